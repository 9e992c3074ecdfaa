"""What a reader finds in an image file: numbers, their position, and what had to be decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADER_BYTES",
    "NIFTI_SUFFIXES",
    "WRITER",
    "Background",
    "RefusedError",
    "Scan",
    "opaque",
    "without_equal_channels",
]

Background = Literal["refuse", "black", "white"]
"""What lies behind transparent pixels: nothing, so that they are refused, black or white."""


WRITER = "deepscm_pl"
"""The mark of image files that this program has written."""

NIFTI_SUFFIXES = (".nii", ".nii.gz")

HEADER_BYTES = 348
"""The length of a NIfTI header."""


class RefusedError(ValueError):
    """A readable file with unexpected content; the message lacks the name of the file."""


@dataclass(frozen=True)
class Scan:
    """An image with three axes and its position.

    Attributes:
        array: Volume (left to right, back to front, bottom to top) or slice (rows, columns, 1), in
            the numbers of the file; in colour with a fourth axis of red, green and blue.
        flat: Whether it is a slice.
        affine: ``(4, 4)``, from a voxel index to mm to the right, anterior and superior; None if
            unknown.
        header: The NIfTI header of the file, with lengths in mm; None for other files.
        is_placed: Whether the affine is that of a scanner; otherwise only its voxel sizes are
            known.
        notes: What the reader had to decide, each as a sentence about the file.

    Example:
        >>> Scan(np.zeros((4, 5, 1, 3)), flat=True).is_coloured
        True
    """

    array: NDArray[Any]
    flat: bool
    affine: NDArray[np.float64] | None = None
    header: bytes | None = None
    is_placed: bool = True
    notes: tuple[str, ...] = ()

    @property
    def is_coloured(self) -> bool:
        """Whether there are three channels."""
        return self.array.ndim == 4


def opaque(
    array: NDArray[Any], white: float, background: Background
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Remove the last channel, the opacity; what is transparent shows the background.

    Args:
        array: ``(*sizes, 2)`` or ``(*sizes, 4)``.
        white: The largest number of a channel, which is opaque.
        background: What transparent pixels show.

    Returns:
        ``(*sizes, 1)`` or ``(*sizes, 3)`` in the type of ``array``, and notes.

    Raises:
        RefusedError: If pixels are transparent and the background is to refuse them.

    Example:
        >>> opaque(np.array([[200, 255], [200, 0]], np.uint8), 255, "black")[0].ravel()
        array([200,   0], dtype=uint8)
    """
    colours, opacity = array[..., :-1], array[..., -1:] / white
    if (opacity == 1).all():
        return colours, ()
    if background == "refuse":
        raise RefusedError(
            "it is partly transparent; save it without transparency, or set "
            "preprocessing.background to black or white."
        )
    behind = white if background == "white" else 0.0
    shown = np.rint(colours * opacity + behind * (1 - opacity)).astype(array.dtype)
    return shown, (f"it is partly transparent, and lies on a {background} background",)


def without_equal_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Return grey levels ``(*sizes,)`` of channels ``(*sizes, C)`` that are all equal, or channels.

    Example:
        >>> without_equal_channels(np.ones((4, 5, 3))).shape
        (4, 5)
    """
    return array[..., 0] if (array == array[..., :1]).all() else array
