"""How good an image, or its likelihood, is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import at_least_single, require_images

__all__ = ["bits_per_dimension", "mean_absolute_error", "peak_signal_to_noise_ratio"]


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """−log p(x) / (D log 2): bits needed for each of the D pixels and channels.

    Args:
        log_prob: log p(x) or a lower bound of it, in nats, ``(*batch,)``.
        dimensions: D.

    Example:
        >>> import torch
        >>> bits_per_dimension(torch.tensor([-784 * math.log(256)]), 784)
        tensor([8.])
    """
    if dimensions < 1:
        raise ValueError(f"dimensions: expected at least 1, but got {dimensions}.")
    return -log_prob / (dimensions * math.log(2))


def mean_absolute_error(image: Tensor, target: Tensor, spatial_dims: int = 2) -> Tensor:
    """Mean of |image − target| over channels and pixels, for each image, in grey levels.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If the shapes differ, which are not broadcast, or the devices, or
            ``spatial_dims`` is neither.

    Example:
        >>> import torch
        >>> mean_absolute_error(torch.full((2, 1, 4, 4), 3.0), torch.zeros(2, 1, 4, 4))
        tensor([3., 3.])
    """
    return _error(image, target, spatial_dims).abs().flatten(-1 - spatial_dims).mean(-1)


def peak_signal_to_noise_ratio(
    image: Tensor,
    target: Tensor,
    data_range: float = 255.0,
    ceiling: float = 100.0,
    spatial_dims: int = 2,
) -> Tensor:
    """10 log₁₀(L² / MSE) for each image, in decibels, MSE the mean of (image − target)².

    The ratio of identical images is infinite; so that means over images stay finite, it counts as
    ``ceiling``. The default lies above the ratio of images that differ by one grey level in one of
    150,000 pixels.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        data_range: L, in grey levels.
        ceiling: The largest ratio that is returned, in decibels; ``math.inf`` for none.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If the shapes or the devices differ, ``data_range`` is not positive, or
            ``spatial_dims`` is neither.

    Example:
        >>> import torch
        >>> black, white = torch.zeros(1, 8, 8), torch.full((1, 8, 8), 255.0)
        >>> peak_signal_to_noise_ratio(white, black), peak_signal_to_noise_ratio(white, white)
        (tensor(0.), tensor(100.))
    """
    if not data_range > 0:
        raise ValueError(f"data_range: expected a positive number, but got {data_range}.")
    squared_error = _error(image, target, spatial_dims).square().flatten(-1 - spatial_dims).mean(-1)
    ratio = 10 * (2 * math.log10(data_range) - torch.log10(squared_error))
    return ratio.clamp(max=ceiling)


def _error(image: Tensor, target: Tensor, spatial_dims: int) -> Tensor:
    require_images(spatial_dims, image=image, target=target)
    return at_least_single(image) - at_least_single(target)
