"""Enlarging and reducing images without aliasing, as matrix products.

An image pyramid (Burt and Adelson, 1983) is interpolated by cubic convolution and smoothed by a
Gaussian. Both are linear and separable: one matrix for the rows, one for the columns.
Outside of an image is background, 0.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = ["enlarge", "interpolate", "reduce"]


def enlarge(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Enlarges images: cubic interpolation, then smoothing by a third of an original pixel.

    Interpolation overshoots at edges; what leaves the range of an image is clipped to it.

    Args:
        images: ``(N, H, W)``.
        scale: The factor.

    Returns:
        ``(N, scale * H, scale * W)``.
    """
    height, width = images.shape[1:]
    low = images.min(axis=(1, 2), keepdims=True)
    high = images.max(axis=(1, 2), keepdims=True)
    enlarged = np.clip(interpolate(images, scale), low, high)
    return _apply(_smoothing(scale * height, scale), _smoothing(scale * width, scale), enlarged)


def interpolate(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Enlarges images by cubic interpolation alone.

    Args:
        images: ``(N, H, W)``.
        scale: The factor.

    Returns:
        ``(N, scale * H, scale * W)``.
    """
    height, width = images.shape[1:]
    return _apply(
        _interpolation(height, scale * height), _interpolation(width, scale * width), images
    )


def reduce(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Reduces images: smoothing by a third of a resulting pixel, then cubic interpolation.

    Args:
        images: ``(N, scale * H, scale * W)``.
        scale: The factor.

    Returns:
        ``(N, H, W)``.
    """
    height, width = images.shape[1:]
    return _apply(_reduction(height, scale), _reduction(width, scale), images)


def _apply(
    rows: NDArray[np.float32], columns: NDArray[np.float32], images: NDArray[np.float32]
) -> NDArray[np.float32]:
    product: NDArray[np.float32] = rows @ images @ columns.T
    return product


@cache
def _reduction(size: int, scale: int) -> NDArray[np.float32]:
    return _interpolation(size, size // scale) @ _smoothing(size, scale)


@cache
def _interpolation(size: int, new_size: int) -> NDArray[np.float32]:
    """The matrix ``(new_size, size)`` of interpolation at the centres of new pixels."""
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    return _cubic(np.abs(centres[:, None] - np.arange(size))).astype(np.float32)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel of Keys (1981), with a = -1/2."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@cache
def _smoothing(size: int, scale: int) -> NDArray[np.float32]:
    """The matrix ``(size, size)`` of a Gaussian with a standard deviation of ``scale / 3``."""
    identity = np.eye(size, dtype=np.float32)
    smoothing: NDArray[np.float32] = gaussian_filter1d(
        identity, sigma=scale / 3, axis=0, mode="constant"
    )
    return smoothing
