"""Conformal calibration of intervals."""

from __future__ import annotations

import math

from torch import Tensor

from deepscm_pl.checks import real_number

__all__ = ["conformal_factor", "rows_needed"]


def rows_needed(level: float) -> int:
    """Return the smallest number of rows from which an interval of a level can be calibrated.

    Example:
        >>> rows_needed(0.9)
        9
    """
    level = real_number("level", level, above=0, below=1)
    return math.ceil(level / (1 - level) - 1e-9)


def conformal_factor(
    errors: Tensor, scales: Tensor, level: float = 0.9, mask: Tensor | None = None
) -> float:
    r"""Compute the smallest λ for which intervals m ± λ·s contain a share ``level`` of new values.

    The share of pixels outside, averaged over rows, is a risk between 0 and 1. With n calibration
    rows, :math:`\hat λ = \inf \{λ: \tfrac{n}{n + 1} \hat R(λ) + \tfrac{1}{n + 1} ≤ 1 - level\}`
    bounds the expected risk of an exchangeable new row by 1 − ``level`` (conformal risk control,
    Angelopoulos et al. 2024, arXiv:2208.02814, theorem 1). For one number per row this is split
    conformal prediction.

    Args:
        errors: \|y − m\|, the truth's distance from the centre of the interval, ``(n, *event)``.
        scales: s > 0, the half-width at λ = 1, of the same shape.
        level: The share that the intervals are to contain.
        mask: Which of the values count, of the same shape; None for all. Rows are then weighted by
            the number of values that count.

    Raises:
        ValueError: If there are fewer rows than the level needs, the shapes differ, or a scale is
            not positive.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> factor = conformal_factor(torch.randn(4000, 1).abs(), torch.ones(4000, 1))
        >>> round(factor, 1)  # of a standard normal number, Φ⁻¹(0.95)
        1.6
    """
    needed = rows_needed(level)
    if errors.shape != scales.shape or not bool((scales > 0).all()):
        raise ValueError(
            "scales: expected a positive number for each error, but got shapes "
            f"{tuple(errors.shape)} and {tuple(scales.shape)}, or a scale of 0."
        )
    rows = len(errors) if mask is None else int(mask.flatten(1).any(dim=1).sum())
    if rows < needed:
        raise ValueError(
            f"level: {level:g} can be calibrated from {needed} rows on, but there are "
            f"{rows}; use more validation rows or a lower level."
        )
    allowed = (1 - level) - level / rows
    found = errors.double() / scales.double()
    ratios = (found.flatten() if mask is None else found[mask]).sort().values
    inside = math.ceil((1 - allowed) * len(ratios) - 1e-9)
    return float(ratios[max(inside, 1) - 1])
