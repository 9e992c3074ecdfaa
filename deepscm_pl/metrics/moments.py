"""Means and covariances of a stream of numbers, without loss of precision."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["merge_moments", "moments_of", "no_moments"]


def no_moments(size: int) -> Tensor:
    """The moments of no observation of ``size`` quantities."""
    return torch.zeros(size + 2, size, dtype=torch.float64)


def moments_of(values: Tensor) -> Tensor:
    """Count, mean and sums of products of deviations of N observations of K quantities.

    Sums of squares lose all digits where the spread is small beside the mean; deviations from the
    mean do not.

    Args:
        values: ``(N, K)``.

    Returns:
        ``(K + 2, K)`` in double precision: a row of counts, a row of means m, and the matrix
        Σ (x − m)(x − m)ᵀ.
    """
    count, size = values.shape
    if count == 0:
        return no_moments(size).to(values.device)
    values = values.double()
    # Relative to the first, so that the mean of equal values is exactly that value.
    mean = values[0] + (values - values[0]).mean(dim=0)
    deviations = values - mean
    return torch.cat([_row(count, mean), mean[None], deviations.T @ deviations])


def merge_moments(parts: Tensor) -> Tensor:
    """The moments of all observations, of those of R parts of them, ``(R, K + 2, K)``.

    The parallel algorithm of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
    variance".
    """
    counts, means, products = parts[:, 0, :1], parts[:, 1], parts[:, 2:]
    total = counts.sum(dim=0)
    # Relative to the largest part; one without observations has no mean to speak of.
    reference = means[counts.argmax()]
    # Parts without observations must not spread a NaN of another, nor their own zero mean.
    shift = torch.where(counts > 0, means - reference, 0)
    mean = reference + (counts * shift).sum(dim=0) / total.clamp(min=1)
    deviations = torch.where(counts > 0, means - mean, 0)
    between = (counts * deviations).T @ deviations
    return torch.cat([parts.sum(dim=0)[:1], mean[None], products.sum(dim=0) + between])


def _row(count: int, like: Tensor) -> Tensor:
    return torch.full_like(like, count)[None]
