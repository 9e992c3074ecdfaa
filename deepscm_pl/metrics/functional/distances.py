"""Does a sample come from the standard normal distribution?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import kstwo
from torch import Tensor

from deepscm_pl.metrics.functional.checks import (
    require_finite,
    require_same_device,
    require_same_shape,
)

__all__ = [
    "KolmogorovSmirnov",
    "distance_correlation",
    "kolmogorov_smirnov",
    "pearson_correlation",
    "wasserstein_distance",
]


class KolmogorovSmirnov(NamedTuple):
    """The result of a Kolmogorov–Smirnov test, scalars in double precision.

    Attributes:
        statistic: The largest distance between the two distribution functions, 0 to 1.
        p_value: The probability of at least this statistic, were the N values independent draws
            from N(0, 1).
    """

    statistic: Tensor
    p_value: Tensor


def kolmogorov_smirnov(sample: Tensor) -> KolmogorovSmirnov:
    """sup |F_N(x) − Φ(x)|, F_N the distribution function of a sample and Φ that of N(0, 1).

    Args:
        sample: ``(N,)``.

    Raises:
        ValueError: If the sample is not one-dimensional, empty or not finite.

    Example:
        >>> kolmogorov_smirnov(torch.zeros(1)).statistic
        tensor(0.5000, dtype=torch.float64)
    """
    if sample.dim() != 1 or sample.numel() == 0:
        raise ValueError(
            f"sample: expected shape (N,), N of at least 1, but got {tuple(sample.shape)}; "
            "flatten it."
        )
    require_finite(sample=sample)
    size = sample.numel()
    probability = torch.special.ndtr(sample.double().sort().values)
    steps = torch.arange(size + 1, device=sample.device, dtype=torch.float64) / size
    statistic = torch.maximum((steps[1:] - probability).max(), (probability - steps[:-1]).max())
    p_value = float(kstwo.sf(statistic.item(), size))
    return KolmogorovSmirnov(statistic, statistic.new_tensor(p_value))


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


_ROWS = 512
"""Rows of a matrix of distances that are held at a time."""


def pearson_correlation(first: Tensor, second: Tensor) -> Tensor:
    """The linear correlation of each column of one sample with each column of another.

    Args:
        first: ``(N, A)``.
        second: ``(N, B)``.

    Returns:
        ``(A, B)`` in double precision, −1 to 1; NaN where a column is constant.

    Raises:
        ValueError: If the samples are not two-dimensional, of different length or device, shorter
            than 2 or not finite.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> pearson_correlation(x, torch.cat([3 * x, -x], dim=1)).round(decimals=6)
        tensor([[ 1., -1.]], dtype=torch.float64)
    """
    first, second = _paired(first, second)
    x, y = (_standardised(values) for values in (first, second))
    return (x.T @ y).clamp(-1, 1)


def distance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """A correlation that is zero only for independent variables, linear or not.

    dCor = √(dCov²(x, y) / √(dCov²(x, x) dCov²(y, y))), with dCov² the mean product of the doubly
    centred matrices of distances between rows (Székely, Rizzo and Bakirov 2007, "Measuring and
    testing dependence by correlation of distances"; the V-statistic, which for independent samples
    is of order 1/√N and not zero). Takes O(N²) time and O(N) memory.

    Args:
        first: ``(N, A)``.
        second: ``(N, B)``.

    Returns:
        A scalar in double precision, 0 to 1; NaN if all rows of a sample are alike.

    Raises:
        ValueError: As :func:`pearson_correlation`.

    Example:
        >>> x = torch.linspace(-1, 1, 201)[:, None]
        >>> abs(pearson_correlation(x, x**2)) < 1e-6, distance_correlation(x, x**2) > 0.4
        (tensor([[True]]), tensor(True))
    """
    first, second = _paired(first, second)
    products = first.new_zeros(3)
    means = []
    for x, y in zip(first.split(_ROWS), second.split(_ROWS), strict=True):
        a, b = _distances(x, first), _distances(y, second)
        products += torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()])
        means.append(torch.stack([a.mean(dim=1), b.mean(dim=1)]))
    a, b = torch.cat(means, dim=1)
    overall = torch.stack([a.mean() * b.mean(), a.mean().square(), b.mean().square()])
    rows = torch.stack([(a * b).mean(), a.square().mean(), b.square().mean()])
    covariance, *variances = (products / len(first) ** 2 + overall - 2 * rows).clamp(min=0)
    return (covariance / torch.stack(variances).prod().sqrt()).clamp(max=1).sqrt()


def _paired(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
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
    require_finite(first=first, second=second)
    return first.double(), second.double()


def _standardised(values: Tensor) -> Tensor:
    """Columns of mean zero and length one; NaN where constant."""
    centred = values - values.mean(dim=0)
    # The mean of equal numbers may be off by rounding; they are constant all the same.
    constant = (values == values[0]).all(dim=0)
    return (centred / centred.norm(dim=0)).masked_fill(constant, torch.nan)


def _distances(rows: Tensor, values: Tensor) -> Tensor:
    """Euclidean, without the faster formula that cancels."""
    return torch.cdist(rows, values, compute_mode="donot_use_mm_for_euclid_dist")
