"""Distances of sets of features, and of pairs of images in the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["frechet_distance", "kernel_distance", "perceptual_distance"]

_SMALL = 1e-10


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    r"""Compute the Fréchet distance of normal distributions, \|m − m'\|² + tr(C + C' − 2√(C C')).

    With features of an Inception network this is the FID (Heusel et al. 2017, arXiv:1706.08500).

    Args:
        first: Mean ``(D,)`` and covariance ``(D, D)``.
        second: Mean and covariance.

    Example:
        >>> unit = torch.eye(2, dtype=torch.float64)
        >>> frechet_distance((torch.zeros(2), unit), (torch.tensor([3.0, 4.0]), unit)).item()
        25.0
    """
    (mean, covariance), (other, other_covariance) = first, second
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = torch.linalg.eigvalsh(root @ other_covariance.double() @ root)
    traces = covariance.double().trace() + other_covariance.double().trace()
    shift = (mean.double() - other.double()).square().sum()
    return (shift + traces - 2 * product.clamp(min=0).sqrt().sum()).clamp(min=0)


def kernel_distance(first: Tensor, second: Tensor) -> Tensor:
    """Compute the unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)³.

    With features of an Inception network this is the KID (Bińkowski et al. 2018, arXiv:1801.01401).
    It may be negative.

    Args:
        first: Features ``(N, D)``, N at least 2.
        second: Features ``(M, D)``, M at least 2.

    Example:
        >>> kernel_distance(torch.zeros(3, 2), torch.ones(4, 2)).item()
        7.0
    """
    first, second = first.double(), second.double()
    size = first.shape[1]

    def within(features: Tensor) -> Tensor:
        kernel = (features @ features.T / size + 1) ** 3
        count = len(features)
        return (kernel.sum() - kernel.trace()) / (count * (count - 1))

    between = ((first @ second.T / size + 1) ** 3).mean()
    return within(first) + within(second) - 2 * between


def perceptual_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    r"""Compute Σ over layers of the mean over pixels of \|f − f'\|², features of unit length.

    This is the form of LPIPS without learned weights of channels (Zhang et al. 2018,
    arXiv:1801.03924, equation 1 with all weights one).

    Args:
        first: Features of each layer, ``(B, C, *sizes)``.
        second: Features of other images, of the same shapes.

    Returns:
        ``(B,)``.

    Example:
        >>> layer = torch.tensor([[1.0, 0.0]])[..., None, None]
        >>> perceptual_distance([layer], [layer.flip(1)])
        tensor([2.])
    """
    total = first[0].new_zeros(len(first[0]))
    for one, other in zip(first, second, strict=True):
        difference = _unit(one) - _unit(other)
        total = total + difference.square().sum(dim=1).flatten(1).mean(dim=1)
    return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _SMALL)
