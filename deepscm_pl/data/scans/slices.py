"""Slices of volumes, as they are looked at: forward is up in axial ones, up is up in the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["PLANES", "Axis", "Plane", "flat_plane", "slice_coordinate"]

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
        self, volume: NDArray[Any], affine: Affine | None, index: float
    ) -> tuple[NDArray[Any], Affine | None]:
        """A slice of a volume.

        Args:
            volume: ``(X, Y, Z)``.
            affine: ``(4, 4)``, where its elements lie.
            index: Along :attr:`normal`, from 0 to the last slice. Between two slices it is
                interpolated linearly, so that slices of volumes whose slices lie otherwise show
                the same place.

        Returns:
            ``(rows, columns, 1)``, and where its elements lie.

        Example:
            >>> volume = np.arange(24).reshape(2, 3, 4)
            >>> image, _ = PLANES["axial"].cut(volume, None, 1)
            >>> image[..., 0]  # from front to back, from left to right
            array([[ 9, 21],
                   [ 5, 17],
                   [ 1, 13]])
            >>> PLANES["axial"].cut(volume, None, 1.5)[0][0, 0, 0]
            np.float64(9.5)
        """
        axes = (self.rows, self.columns, self.normal)
        slices = volume.transpose(axes)[::-1]
        before = math.floor(index)
        image = slices[..., before : before + 1]
        if index > before:
            after = slices[..., before + 1 : before + 2]
            image = image + (index - before) * (after.astype(np.float64) - image)
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


def slice_coordinate(position: float, size: int) -> float:
    """Where a slice lies among others, 0 for the first one.

    Args:
        position: A whole number, which is the index itself, or a fraction of the extent, from the
            outer border of the first slice, 0.0, to that of the last one, 1.0. The same fraction
            is the same place, however thick slices are, up to the middles of the outermost.
        size: How many slices there are.

    Returns:
        From 0 to the last index.

    Raises:
        ValueError: If it lies outside.

    Example:
        >>> slice_coordinate(0.5, 10), slice_coordinate(1.0, 10), slice_coordinate(1, 10)
        (4.5, 9.0, 1)
    """
    if isinstance(position, float):
        if 0 <= position <= 1:
            return min(max(position * size - 0.5, 0.0), size - 1.0)
    elif 0 <= position < size:
        return position
    raise ValueError(
        f"slices: expected indices from 0 to {size - 1} or fractions from 0.0 to 1.0, but got "
        f"{position}."
    )
