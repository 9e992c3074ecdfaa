"""The structural similarity of images."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import at_least_single, require_images

__all__ = ["structural_similarity"]

_REACH = 5
_SCALE = 1.5


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
    offsets = torch.arange(-_REACH, _REACH + 1)
    weights = torch.exp(-0.5 * (offsets.double() / _SCALE) ** 2)
    period = max(2 * (length - 1), 1)
    places = (torch.arange(length)[:, None] + offsets) % period
    reflected = torch.where(places < length, places, period - places)
    averages = torch.zeros(length, length, dtype=torch.float64)
    return averages.scatter_add_(1, reflected, (weights / weights.sum()).expand(length, -1))
