r"""Dilation, erosion and resizing of images of digits.

For dilation, a mask becomes one long integer with a bit per pixel. A shift of the mask is a bit
shift and a union of masks a bitwise or, so that the dilation by a structuring element :math:`B`,

.. math:: A \oplus B = \bigcup_{b \in B} (A + b),

takes a few operations per row of :math:`B`, whatever the size of the mask.
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
    """Dilate a mask, ``(H, W)``.

    Args:
        mask: True in the foreground.
        half_widths: The symmetric structuring element: it covers the columns ``-half_widths[k]`` to
            ``half_widths[k]`` of the rows ``-k`` and ``k``. Must not increase with k.

    Example:
        >>> mask = np.zeros((3, 5), dtype=bool)
        >>> mask[1, 2] = True
        >>> dilate(mask, [1, 0]).astype(int)
        array([[0, 0, 1, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 1, 0, 0]])
    """
    height, width = mask.shape
    # A margin between rows, so that a shift does not carry pixels into the next row.
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
    """Erode a mask, ``(H, W)``; the surroundings of the mask do not count as background.

    The structuring element is given as for :func:`dilate`.
    """
    return ~dilate(~mask, half_widths)


def reduced_disk(radius: int) -> list[int]:
    r"""Structuring element of Morpho-MNIST: a disk blurred by a reduction from 16 times its size.

    It holds all pixels that the reduced disk covers in part. The reduction widens the rim by 4/3
    pixels along each axis,

    .. math:: B = \{(x, y): \max(|x| - 4/3, 0)^2 + \max(|y| - 4/3, 0)^2 \le (r + 1/2)^2\}
        \cap [-r, r]^2,

    so that small disks are squares.

    Returns:
        Half-widths of the rows 0 to ``radius``, see :func:`dilate`.

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
    """Enlarge images ``(N, H, W)`` to ``(N, scale * H, scale * W)``.

    Cubic interpolation, clipped to the range of each image, is followed by a Gaussian filter with a
    standard deviation of a third of an original pixel.
    """
    height, width = images.shape[1:]
    low = images.min(axis=(1, 2), keepdims=True)
    high = images.max(axis=(1, 2), keepdims=True)
    enlarged = np.clip(interpolate(images, scale), low, high)
    return _apply(_smoothing(scale * height, scale), _smoothing(scale * width, scale), enlarged)


def interpolate(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Enlarge images ``(N, H, W)`` to ``(N, scale * H, scale * W)`` without smoothing."""
    height, width = images.shape[1:]
    return _apply(
        _interpolation(height, scale * height), _interpolation(width, scale * width), images
    )


def reduce(images: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Reduce images ``(N, scale * H, scale * W)`` to ``(N, H, W)``.

    A Gaussian filter with a standard deviation of a third of a resulting pixel is followed by cubic
    interpolation.
    """
    height, width = images.shape[1:]
    return _apply(_reduction(height, scale), _reduction(width, scale), images)


def _apply(rows: csr_array, columns: csr_array, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply images ``(N, H, W)`` by ``(H', H)`` and ``(W', W)``; ``(N, H', W')``."""
    transposed = _multiply(columns, _multiply(rows, images).swapaxes(1, 2))
    return np.ascontiguousarray(transposed.swapaxes(1, 2))


def _multiply(matrix: csr_array, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply each image ``(N, H, W)`` from the left by ``(H', H)``."""
    count, height, width = images.shape
    side_by_side = images.transpose(1, 0, 2).reshape(height, count * width)
    products: NDArray[np.float32] = (matrix @ side_by_side).reshape(-1, count, width)
    return products.swapaxes(0, 1)


@cache
def _reduction(size: int, scale: int) -> csr_array:
    return _interpolation(size, size // scale) @ _smoothing(size, scale)


@cache
def _interpolation(size: int, new_size: int) -> csr_array:
    """Matrix ``(new_size, size)`` that interpolates at the centres of the new pixels."""
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    return csr_array(_cubic(np.abs(centres[:, None] - np.arange(size))).astype(np.float32))


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution kernel of Keys (1981), with a = -1/2."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@cache
def _smoothing(size: int, scale: int) -> csr_array:
    """Matrix ``(size, size)`` of a Gaussian filter with a standard deviation of ``scale / 3``."""
    identity = np.eye(size, dtype=np.float32)
    return csr_array(gaussian_filter1d(identity, sigma=scale / 3, axis=0, mode="constant"))
