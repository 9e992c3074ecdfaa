"""Errors of images, and bits per dimension of their likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import at_least_single, require_images

__all__ = [
    "bits_per_dimension",
    "mean_absolute_error",
    "peak_signal_to_noise_ratio",
    "structural_similarity",
]

_WINDOW_RADIUS = 5
_WINDOW_DEVIATION = 1.5


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Compute −log p(x) / (D log 2), the bits needed for each of D values (pixels × channels).

    Args:
        log_prob: log p(x), or a lower bound of it, in nats, ``(*batch,)``.
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
    """Compute the mean of |image − target| over channels and pixels, in grey levels.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If shapes or devices differ, or ``spatial_dims`` is neither 2 nor 3.

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
    """Compute 10 log₁₀(L² / MSE) of each image, in decibels.

    The ratio of identical images, which is infinite, counts as ``ceiling``, so that means over
    images stay finite. Images that differ by one grey level in one of 150,000 pixels are below the
    default.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        data_range: L, in grey levels.
        ceiling: The largest returned ratio, in decibels; ``math.inf`` for no limit.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If shapes or devices differ, ``data_range`` is not positive, or
            ``spatial_dims`` is neither 2 nor 3.

    Example:
        >>> import torch
        >>> dark, bright = torch.zeros(1, 8, 8), torch.full((1, 8, 8), 255.0)
        >>> peak_signal_to_noise_ratio(bright, dark), peak_signal_to_noise_ratio(bright, bright)
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


def structural_similarity(
    image: Tensor, target: Tensor, data_range: float = 255.0, spatial_dims: int = 2
) -> Tensor:
    r"""Compute the structural similarity (SSIM) of each image, 1 for identical images.

    .. math::
        \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
             {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)},
        \qquad c_1 = (0.01 L)^2, \; c_2 = (0.03 L)^2

    Means, variances and the covariance are weighted by a Gaussian window of 11 × 11 pixels (11 ×
    11 × 11 voxels) and standard deviation 1.5 around every pixel, and the result is averaged over
    pixels and channels (Wang et al. 2004, "Image quality assessment: from error visibility to
    structural similarity"). Images are reflected at their borders, as in torchmetrics, and may be
    smaller than the window.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        data_range: L, in grey levels.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If shapes or devices differ, ``data_range`` is not positive, or
            ``spatial_dims`` is neither 2 nor 3.

    Example:
        >>> image = 255 * torch.rand(2, 1, 28, 28)
        >>> structural_similarity(image, image)
        tensor([1., 1.])
    """
    require_images(spatial_dims, image=image, target=target)
    if not data_range > 0:
        raise ValueError(f"data_range: expected a positive number, but got {data_range}.")
    x, y = at_least_single(image), at_least_single(target)
    mean_x, mean_y = _smooth(x, spatial_dims), _smooth(y, spatial_dims)
    covariance = _smooth(x * y, spatial_dims) - mean_x * mean_y
    variances = _smooth(x * x, spatial_dims) - mean_x.square()
    variances = variances + _smooth(y * y, spatial_dims) - mean_y.square()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    similarity = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity.flatten(-1 - spatial_dims).mean(-1)


def _smooth(images: Tensor, spatial_dims: int) -> Tensor:
    """Weighted means around every pixel, of the same shape; the window is separable."""
    *slices, rows, columns = (
        _averages(length).to(images) for length in images.shape[-spatial_dims:]
    )
    with torch.autocast(
        images.device.type, enabled=False
    ):  # float32, as large squares are subtracted
        smooth: Tensor = rows @ (images @ columns.T)
        for averages in slices:
            smooth = (averages @ smooth.flatten(-2)).unflatten(-1, images.shape[-2:])
    return smooth


def _averages(length: int) -> Tensor:
    """Matrix that averages the neighbours of each position, ``(length, length)``."""
    offsets = torch.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1)
    weights = torch.exp(-0.5 * (offsets.double() / _WINDOW_DEVIATION) ** 2)
    period = max(2 * (length - 1), 1)
    positions = (torch.arange(length)[:, None] + offsets) % period
    reflected = torch.where(positions < length, positions, period - positions)
    averages = torch.zeros(length, length, dtype=torch.float64)
    return averages.scatter_add_(1, reflected, (weights / weights.sum()).expand(length, -1))
