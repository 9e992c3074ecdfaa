"""How much two samples depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_finite, require_same_device

__all__ = ["distance_correlation", "pearson_correlation"]

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
