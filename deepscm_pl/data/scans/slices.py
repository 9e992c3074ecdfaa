"""Slices of volumes, as they are looked at: forward is up in axial ones, up is up in the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["PLANES", "Axis", "Plane", "flat_plane", "slice_index"]

Axis = Literal["axial", "coronal", "sagittal"]
"""The direction in which a volume is cut."""

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """How slices lie in a volume (left to right, back to front, bottom to top).

    Attributes:
        rows: The axis of the volume that rows go along, against its direction.
        columns: The axis that columns go along.
        normal: The axis that slices follow each other along.
    """

    rows: int
    columns: int
    normal: int

    def cut(
        self, volume: NDArray[Any], affine: Affine | None, index: int
    ) -> tuple[NDArray[Any], Affine | None]:
        """A slice of a volume.

        Args:
            volume: ``(X, Y, Z)``.
            affine: ``(4, 4)``, where its elements lie.
            index: Along :attr:`normal`.

        Returns:
            ``(rows, columns, 1)``, and where its elements lie.

        Example:
            >>> volume = np.arange(24).reshape(2, 3, 4)
            >>> image, _ = PLANES["axial"].cut(volume, None, 1)
            >>> image[..., 0]  # from front to back, from left to right
            array([[ 9, 21],
                   [ 5, 17],
                   [ 1, 13]])
        """
        axes = (self.rows, self.columns, self.normal)
        image = volume.transpose(axes)[::-1, :, index : index + 1]
        if affine is None:
            return image, None
        step = np.zeros((4, 4))
        step[axes, (0, 1, 2)] = -1.0, 1.0, 1.0
        step[self.rows, 3] = volume.shape[self.rows] - 1
        step[self.normal, 3] = index
        step[3, 3] = 1.0
        return image, affine @ step


PLANES: dict[str, Plane] = {
    "axial": Plane(rows=1, columns=0, normal=2),
    "coronal": Plane(rows=2, columns=0, normal=1),
    "sagittal": Plane(rows=2, columns=1, normal=0),
}
"""Axial slices have rows from front to back and columns from left to right; coronal ones rows from
top to bottom, columns from left to right; sagittal ones rows from top to bottom, columns from back
to front."""


def flat_plane(shape: tuple[int, ...]) -> Plane | None:
    """The plane of a volume that is one slice only; None for other volumes.

    Example:
        >>> flat_plane((5, 6, 1)) == PLANES["axial"], flat_plane((5, 6, 7))
        (True, None)
    """
    flat = [plane for plane in PLANES.values() if shape[plane.normal] == 1]
    return flat[0] if len(flat) == 1 else None


def slice_index(position: float, size: int) -> int:
    """The slice at a position.

    Args:
        position: A whole number, which is the index itself, or a fraction from 0.0, the first
            slice, to 1.0, the last one.
        size: How many slices there are.

    Raises:
        ValueError: If there is no such slice.

    Example:
        >>> slice_index(0.5, 11), slice_index(1.0, 11), slice_index(1, 11)
        (5, 10, 1)
    """
    index = math.floor(position * (size - 1) + 0.5) if isinstance(position, float) else position
    if not 0 <= index < size:
        raise ValueError(
            f"slices: expected indices from 0 to {size - 1} or fractions from 0.0 to 1.0, but got "
            f"{position}."
        )
    return index
