"""Distances between distributions, and correlations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from deepscm_pl.metrics.functional.checks import (
    require_finite_values,
    require_same_device,
    require_same_shape,
)

__all__ = [
    "KolmogorovSmirnov",
    "kolmogorov_smirnov",
    "kolmogorov_smirnov_statistic",
    "pearson_correlation",
    "wasserstein_distance",
]


class KolmogorovSmirnov(NamedTuple):
    """Statistic, 0 to 1, and p-value of a Kolmogorov–Smirnov test."""

    statistic: float
    p_value: float


def kolmogorov_smirnov(sample: Tensor) -> KolmogorovSmirnov:
    """Compute sup |F_N(x) − Φ(x)| between the distribution functions of a sample and of N(0, 1).

    The p-value assumes that the values ``(N,)`` are independent.

    Example:
        >>> kolmogorov_smirnov(torch.zeros(1)).statistic
        0.5
    """
    _require_sample("sample", sample)
    result = stats.kstest(sample.detach().double().cpu().numpy(), "norm")
    return KolmogorovSmirnov(float(result.statistic), float(result.pvalue))


def kolmogorov_smirnov_statistic(sample: Tensor) -> Tensor:
    """Compute only the statistic of :func:`kolmogorov_smirnov`, in a fraction of the time.

    Args:
        sample: ``(N,)``.

    Returns:
        A scalar in double precision.

    Raises:
        ValueError: If the sample is empty, of another shape, or not finite.

    Example:
        >>> kolmogorov_smirnov_statistic(torch.zeros(1))
        tensor(0.5000, dtype=torch.float64)
    """
    _require_sample("sample", sample)
    below = torch.special.ndtr(sample.detach().double().sort().values)
    steps = torch.arange(len(sample) + 1, dtype=below.dtype, device=below.device) / len(sample)
    return torch.maximum((steps[1:] - below).max(), (below - steps[:-1]).max())


def wasserstein_distance(
    first: Tensor,
    second: Tensor,
    first_weight: Tensor | None = None,
    second_weight: Tensor | None = None,
) -> float:
    """Compute ∫ |F(x) − G(x)| dx between the distribution functions of two samples, exactly.

    This is Wasserstein-1, the least mean distance over which probability has to be moved to turn
    one distribution into the other, in the units of the samples.

    Args:
        first: ``(N,)``.
        second: ``(M,)``.
        first_weight: ``(N,)``, nonnegative and not all zero, on any scale; None for equal weights.
        second_weight: ``(M,)``, likewise.

    Example:
        >>> wasserstein_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0]))
        2.0
    """
    require_same_device(first=first, second=second)
    weights = [
        _checked_weight("first", first, first_weight),
        _checked_weight("second", second, second_weight),
    ]
    arrays = [each.detach().double().cpu().numpy() for each in (first, second, *weights)]
    return float(stats.wasserstein_distance(*arrays))


def _require_sample(name: str, sample: Tensor) -> None:
    if sample.dim() != 1 or sample.numel() == 0:
        raise ValueError(
            f"{name}: expected a sample of shape (N,), N of at least 1, but got "
            f"{tuple(sample.shape)}; flatten it."
        )
    require_finite_values(**{name: sample})


def _checked_weight(name: str, sample: Tensor, weight: Tensor | None) -> Tensor:
    _require_sample(name, sample)
    weight = torch.ones_like(sample) if weight is None else weight
    require_same_shape(**{f"{name}_weight": weight, name: sample})
    require_finite_values(**{f"{name}_weight": weight})
    if bool((weight < 0).any()) or not bool((weight > 0).any()):
        raise ValueError(
            f"{name}_weight: expected weights of at least zero, not all zero, but got a minimum of "
            f"{weight.min().item():g} and a maximum of {weight.max().item():g}."
        )
    return weight


def pearson_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Compute the linear correlation of each column of one sample with each column of another.

    Args:
        first: ``(N, A)``.
        second: ``(N, B)``.

    Returns:
        ``(A, B)`` in double precision, −1 to 1; NaN where a column is constant.

    Raises:
        ValueError: If the samples are not two-dimensional, differ in length or device, have fewer
            than 2 rows or are not finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> pearson_correlation(x, torch.cat([3 * x, -x], dim=1)).round(decimals=6)
        tensor([[ 1., -1.]], dtype=torch.float64)
    """
    require_same_device(first=first, second=second)
    for name, sample in (("first", first), ("second", second)):
        if sample.dim() != 2 or len(sample) < 2:
            raise ValueError(
                f"{name}: expected shape (N, features), N of at least 2, but got "
                f"{tuple(sample.shape)}."
            )
    if len(first) != len(second):
        raise ValueError(
            f"first: expected as many rows as second, {len(second)}, but got {len(first)}."
        )
    require_finite_values(first=first, second=second)
    x, y = (_standardised(values.double()) for values in (first, second))
    return (x.T @ y).clamp(-1, 1)


def _standardised(values: Tensor) -> Tensor:
    """Columns of mean zero and length one; NaN where constant."""
    centred = values - values.mean(dim=0)
    # Rounding can move the mean of equal numbers, so that their deviations are not exactly zero.
    constant = (values == values[0]).all(dim=0)
    return (centred / centred.norm(dim=0)).masked_fill(constant, torch.nan)
