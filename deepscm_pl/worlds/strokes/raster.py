r"""Dilation, erosion and resizing of images of digits.

For dilation, a mask becomes one long integer with a bit per pixel. A shift of the mask is a bit
shift and a union of masks a bitwise or, so that the dilation by a structuring element :math:`B`,

.. math:: A \oplus B = \bigcup_{b \in B} (A + b),

takes a few operations per row of :math:`B` for any size of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

__all__ = [
    "Images",
    "Masks",
    "Measures",
    "dilate",
    "enlarge",
    "erode",
    "grey_range",
    "interpolate",
    "reduce",
    "reduced_disk",
]

Images: TypeAlias = NDArray[np.float32]
Masks: TypeAlias = NDArray[np.bool_]
Measures: TypeAlias = NDArray[np.float64]


def dilate(mask: Masks, half_widths: Sequence[int]) -> Masks:
    """Dilate a mask, ``(H, W)``.

    Args:
        mask: True in the foreground.
        half_widths: The symmetric structuring element: it covers the columns ``-half_widths[k]`` to
            ``half_widths[k]`` of the rows ``-k`` and ``k``. Must not increase with k.
    """
    height, width = mask.shape
    # A margin between rows, so that a shift does not carry pixels into the next row.
    stride = -(-(width + half_widths[0]) // 8) * 8
    packed = np.packbits(np.pad(mask, ((0, 0), (0, stride - width))), bitorder="little")
    bits = int.from_bytes(packed.tobytes(), "little")
    widened, reached, dilated = bits, 0, 0
    for row in range(len(half_widths) - 1, -1, -1):
        for shift in range(reached + 1, half_widths[row] + 1):
            widened |= bits << shift | bits >> shift
        reached = half_widths[row]
        dilated |= widened << row * stride | widened >> row * stride
    size = height * stride
    content = (dilated & (1 << size) - 1).to_bytes(size // 8, "little")
    flat = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    return flat.reshape(height, stride)[:, :width].astype(bool)


def erode(mask: Masks, half_widths: Sequence[int]) -> Masks:
    """Erode a mask, ``(H, W)``, by the structuring element of :func:`dilate`.

    The surroundings of the mask do not count as background.
    """
    return ~dilate(~mask, half_widths)


def reduced_disk(radius: int) -> list[int]:
    r"""Structuring element of Morpho-MNIST: a disk blurred by a reduction from 16 times its size.

    It holds all pixels that the reduced disk covers in part. The reduction widens the rim by 4/3
    pixels along each axis, so that small disks are squares:

    .. math:: B = \{(x, y): \max(|x| - 4/3, 0)^2 + \max(|y| - 4/3, 0)^2 \le (r + 1/2)^2\}
        \cap [-r, r]^2

    Returns:
        Half-widths of the rows 0 to ``radius``, see :func:`dilate`.
    """
    blur = 4 / 3
    rows = np.maximum(np.arange(radius + 1) - blur, 0)
    half_widths = np.floor(blur + np.sqrt((radius + 0.5) ** 2 - rows**2))
    return [int(width) for width in np.minimum(half_widths, radius)]


def grey_range(images: Images) -> tuple[Images, Images]:
    """Smallest and largest grey level of each image, ``(N, 1, 1)`` each."""
    return images.min(axis=(1, 2), keepdims=True), images.max(axis=(1, 2), keepdims=True)


def enlarge(images: Images, scale: int) -> Images:
    """Enlarge images ``(N, H, W)`` to ``(N, scale * H, scale * W)``.

    Cubic interpolation, clipped to the range of each image, is followed by a Gaussian filter with a
    standard deviation of a third of an original pixel.
    """
    rows, columns = (_smoothing(scale * size, scale) for size in images.shape[1:])
    return _apply(rows, columns, np.clip(interpolate(images, scale), *grey_range(images)))


def interpolate(images: Images, scale: int) -> Images:
    """Enlarge images ``(N, H, W)`` to ``(N, scale * H, scale * W)`` without smoothing."""
    rows, columns = (_interpolation(size, scale * size) for size in images.shape[1:])
    return _apply(rows, columns, images)


def reduce(images: Images, scale: int) -> Images:
    """Reduce images ``(N, scale * H, scale * W)`` to ``(N, H, W)``.

    A Gaussian filter with a standard deviation of a third of a resulting pixel is followed by cubic
    interpolation.
    """
    rows, columns = (_reduction(size, scale) for size in images.shape[1:])
    return _apply(rows, columns, images)


def _apply(rows: csr_array, columns: csr_array, images: Images) -> Images:
    """Multiply images ``(N, H, W)`` by ``(H', H)`` and ``(W', W)``; ``(N, H', W')``."""
    transposed = _multiply(columns, _multiply(rows, images).swapaxes(1, 2))
    return np.ascontiguousarray(transposed.swapaxes(1, 2))


def _multiply(matrix: csr_array, images: Images) -> Images:
    """Multiply each image ``(N, H, W)`` from the left by ``(H', H)``."""
    count, height, width = images.shape
    side_by_side = images.transpose(1, 0, 2).reshape(height, count * width)
    products: Images = (matrix @ side_by_side).reshape(-1, count, width)
    return products.swapaxes(0, 1)


@cache
def _reduction(size: int, scale: int) -> csr_array:
    return _interpolation(size, size // scale) @ _smoothing(size, scale)


@cache
def _interpolation(size: int, new_size: int) -> csr_array:
    """Matrix ``(new_size, size)`` that interpolates at the centres of the new pixels.

    The kernel is the cubic convolution of Keys (1981), with a = -1/2.
    """
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    distance = np.abs(centres[:, None] - np.arange(size))
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return csr_array(kernel.astype(np.float32))


@cache
def _smoothing(size: int, scale: int) -> csr_array:
    """Matrix ``(size, size)`` of a Gaussian filter with a standard deviation of ``scale / 3``."""
    identity = np.eye(size, dtype=np.float32)
    return csr_array(gaussian_filter1d(identity, sigma=scale / 3, axis=0, mode="constant"))
