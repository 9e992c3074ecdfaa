r"""Dilation and erosion of binary images, many pixels at a time.

A mask becomes one long integer with a bit per pixel. Moving the mask is a bit shift and uniting two
masks a bitwise or, so that the dilation by a structuring element :math:`B`,

.. math:: A \oplus B = \bigcup_{b \in B} (A + b),

takes a few operations per row of :math:`B` whatever the size of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

__all__ = ["dilate", "enlarge", "erode", "interpolate", "reduce", "reduced_disk"]


def dilate(mask: NDArray[np.bool_], half_widths: Sequence[int]) -> NDArray[np.bool_]:
    """Adds all pixels that a structuring element reaches from the foreground.

    Args:
        mask: ``(H, W)``, true in the foreground.
        half_widths: The structuring element, symmetric in both axes: it covers columns
            ``-half_widths[k]`` to ``half_widths[k]`` of rows ``-k`` and ``k``. Falls with k.

    Returns:
        ``(H, W)``.

    Example:
        >>> mask = np.zeros((3, 5), dtype=bool)
        >>> mask[1, 2] = True
        >>> dilate(mask, [1, 0]).astype(int)
        array([[0, 0, 1, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 1, 0, 0]])
    """
    height, width = mask.shape
    # The margin takes what a shift pushes beyond either end of a row.
    stride = -(-(width + half_widths[0]) // 8) * 8
    bits = _to_integer(np.pad(mask, ((0, 0), (0, stride - width))))
    widened, reached, dilated = bits, 0, 0
    for row in range(len(half_widths) - 1, -1, -1):
        for shift in range(reached + 1, half_widths[row] + 1):
            widened |= bits << shift | bits >> shift
        reached = half_widths[row]
        dilated |= widened << row * stride | widened >> row * stride
    return _to_mask(dilated, height, stride)[:, :width]


def erode(mask: NDArray[np.bool_], half_widths: Sequence[int]) -> NDArray[np.bool_]:
    """Removes all pixels that a structuring element reaches from the background.

    Outside of the mask is neither: it removes nothing.

    Args:
        mask: ``(H, W)``, true in the foreground.
        half_widths: The structuring element, as for :func:`dilate`.

    Returns:
        ``(H, W)``.
    """
    return ~dilate(~mask, half_widths)


def reduced_disk(radius: int) -> list[int]:
    r"""A disk whose rim is blurred by a reduction from 16 times its size.

    It is the structuring element with which Morpho-MNIST images have been made: all pixels that
    have any part in the reduced disk. Reduction spreads the rim by 4/3 pixels along each axis,

    .. math:: B = \{(x, y): \max(|x| - 4/3, 0)^2 + \max(|y| - 4/3, 0)^2 \le (r + 1/2)^2\}
        \cap [-r, r]^2,

    so that small disks are squares.

    Args:
        radius: :math:`r`, in pixels of the mask.

    Returns:
        Half-widths of rows 0 to ``radius``, as :func:`dilate` takes them.

    Example:
        >>> reduced_disk(2)
        [2, 2, 2]
        >>> reduced_disk(7)
        [7, 7, 7, 7, 7, 7, 7, 6]
    """
    blur = 4 / 3
    rows = np.maximum(np.arange(radius + 1) - blur, 0)
    half_widths = np.floor(blur + np.sqrt((radius + 0.5) ** 2 - rows**2))
    return [int(width) for width in np.minimum(half_widths, radius)]


def _to_integer(mask: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def _to_mask(bits: int, height: int, stride: int) -> NDArray[np.bool_]:
    size = height * stride
    content = (bits & (1 << size) - 1).to_bytes(size // 8, "little")
    flat = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return flat.reshape(height, stride).astype(bool)


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
