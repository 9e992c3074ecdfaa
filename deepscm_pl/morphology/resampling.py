"""Enlarging and reducing images without aliasing, as matrix products.

An image pyramid (Burt and Adelson, 1983) is interpolated by cubic convolution and smoothed by a
Gaussian. Both are linear and separable: one matrix for the rows, one for the columns. They are
sparse, so that products are cheap and need no threads.
Outside of an image is background, 0.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

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


def _apply(rows: csr_array, columns: csr_array, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiplies images ``(N, H, W)`` by ``(H', H)`` and ``(W', W)``, giving ``(N, H', W')``."""
    transposed = _multiply(columns, _multiply(rows, images).swapaxes(1, 2))
    return np.ascontiguousarray(transposed.swapaxes(1, 2))


def _multiply(matrix: csr_array, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiplies each image ``(N, H, W)`` from the left by ``(H', H)``."""
    count, height, width = images.shape
    side_by_side = images.transpose(1, 0, 2).reshape(height, count * width)
    products: NDArray[np.float32] = (matrix @ side_by_side).reshape(-1, count, width)
    return products.swapaxes(0, 1)


@cache
def _reduction(size: int, scale: int) -> csr_array:
    return _interpolation(size, size // scale) @ _smoothing(size, scale)


@cache
def _interpolation(size: int, new_size: int) -> csr_array:
    """The matrix ``(new_size, size)`` of interpolation at the centres of new pixels."""
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    return csr_array(_cubic(np.abs(centres[:, None] - np.arange(size))).astype(np.float32))


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic convolution kernel of Keys (1981), with a = -1/2."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@cache
def _smoothing(size: int, scale: int) -> csr_array:
    """The matrix ``(size, size)`` of a Gaussian with a standard deviation of ``scale / 3``."""
    identity = np.eye(size, dtype=np.float32)
    return csr_array(gaussian_filter1d(identity, sigma=scale / 3, axis=0, mode="constant"))
