r"""Dilation and erosion of binary images, many pixels at a time.

A mask becomes one long integer with a bit per pixel. Moving the mask is a bit shift and uniting two
masks a bitwise or, so that the dilation by a structuring element :math:`B`,

.. math:: A \oplus B = \bigcup_{b \in B} (A + b),

takes a few operations per row of :math:`B` whatever the size of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["dilate", "erode", "reduced_disk"]


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
