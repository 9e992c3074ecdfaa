"""The distance between distributions on the line."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import (
    require_finite,
    require_same_device,
    require_same_shape,
)

__all__ = ["wasserstein_distance"]


def wasserstein_distance(
    first: Tensor,
    second: Tensor,
    first_weight: Tensor | None = None,
    second_weight: Tensor | None = None,
) -> Tensor:
    """∫ |F(x) − G(x)| dx between the distribution functions of two samples, exactly.

    The least mean distance over which probability has to be moved to turn one distribution into the
    other (Wasserstein-1), in the units of the samples.

    Args:
        first: ``(N,)``.
        second: ``(M,)``.
        first_weight: Weights of the first sample, ``(N,)``, at least zero and not all zero; their
            scale does not matter. Equal weights if left out.
        second_weight: Weights of the second sample, ``(M,)``.

    Returns:
        A scalar in double precision.

    Raises:
        ValueError: If a sample is not one-dimensional, empty or not finite, weights are negative,
            all zero or of another shape than their sample, or devices differ.

    Example:
        >>> wasserstein_distance(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0]))
        tensor(2., dtype=torch.float64)
    """
    require_same_device(first=first, second=second)
    one = _Distribution("first", first, first_weight)
    other = _Distribution("second", second, second_weight)
    places = torch.cat([one.values, other.values]).sort().values
    difference = one.function(places[:-1]) - other.function(places[:-1])
    return (difference.abs() * places.diff()).sum()


class _Distribution:
    """The distribution function of a weighted sample."""

    def __init__(self, name: str, sample: Tensor, weight: Tensor | None) -> None:
        if sample.dim() != 1 or sample.numel() == 0:
            raise ValueError(
                f"{name}: expected a sample of shape (N,), N of at least 1, but got "
                f"{tuple(sample.shape)}; flatten it."
            )
        weight = torch.ones_like(sample) if weight is None else weight
        require_same_shape(**{f"{name}_weight": weight, name: sample})
        require_finite(**{name: sample, f"{name}_weight": weight})
        if bool((weight < 0).any()) or not bool((weight > 0).any()):
            raise ValueError(
                f"{name}_weight: expected weights of at least zero, not all zero, but got a "
                f"smallest of {weight.min().item():g} and a largest of {weight.max().item():g}."
            )
        self.values, order = sample.double().sort()
        cumulative = weight.double()[order].cumsum(dim=0)
        self.cumulative = torch.cat([cumulative.new_zeros(1), cumulative / cumulative[-1]])

    def function(self, places: Tensor) -> Tensor:
        """P(X ≤ place)."""
        return self.cumulative[torch.searchsorted(self.values, places, right=True)]
