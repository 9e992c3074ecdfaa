"""How good an image, or its likelihood, is."""

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


_WINDOW_REACH = 5
_WINDOW_DEVIATION = 1.5


def structural_similarity(
    image: Tensor, target: Tensor, data_range: float = 255.0, spatial_dims: int = 2
) -> Tensor:
    r"""Mean over windows of how alike two images are, 1 for identical ones, for each image.

    .. math::
        \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
             {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)},
        \qquad c_1 = (0.01 L)^2, \; c_2 = (0.03 L)^2

    with means, variances and covariance under a Gaussian window of 11 × 11 pixels and standard
    deviation 1.5 around every pixel, averaged over pixels and channels (Wang et al. 2004, "Image
    quality assessment: from error visibility to structural similarity"). Of volumes the window has
    11 × 11 × 11 voxels. Beyond its border an image goes on as its reflection, as in torchmetrics;
    images may be smaller than the window.

    Args:
        image: ``(*batch, C, H, W)``, or volumes ``(*batch, C, D, H, W)``.
        target: The same shape.
        data_range: L, in grey levels.
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If the shapes or the devices differ, ``data_range`` is not positive, or
            ``spatial_dims`` is neither.

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
    """Weighted means around every element, of the same shape; the window is separable."""
    *slices, rows, columns = (
        _averages(length).to(images) for length in images.shape[-spatial_dims:]
    )
    with torch.autocast(images.device.type, enabled=False):  # differences of large squares follow
        smooth: Tensor = rows @ (images @ columns.T)
        for averages in slices:
            smooth = (averages @ smooth.flatten(-2)).unflatten(-1, images.shape[-2:])
    return smooth


def _averages(length: int) -> Tensor:
    """The matrix of Gaussian averages over the neighbours of each place, ``(length, length)``."""
    offsets = torch.arange(-_WINDOW_REACH, _WINDOW_REACH + 1)
    weights = torch.exp(-0.5 * (offsets.double() / _WINDOW_DEVIATION) ** 2)
    period = max(2 * (length - 1), 1)
    places = (torch.arange(length)[:, None] + offsets) % period
    reflected = torch.where(places < length, places, period - places)
    averages = torch.zeros(length, length, dtype=torch.float64)
    return averages.scatter_add_(1, reflected, (weights / weights.sum()).expand(length, -1))
