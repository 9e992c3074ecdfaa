"""Positions of the pixels or voxels of an image in the head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "HeadGrid"]

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class HeadGrid:
    """Regular grid in the head: an axial slice of pixels or a volume of voxels.

    A slice represents a part of the head with a fixed height, which turns areas into volumes: a
    brain of 1.16 million mm³ has an area of 18,100 mm² at the level of the ventricles, and
    ventricles of 36,000 mm³ have an area of 900 mm².

    Args:
        shape: (rows from front to back, columns from left to right) of a slice, or (left to right,
            back to front, bottom to top) of a volume.
        extent: Longer side of a slice or second side of a volume, in mm.
        brain_height: Height of the brain that a slice represents, in mm.
        ventricle_height: Height of the ventricles that a slice represents, in mm.

    Raises:
        ValueError: If ``shape`` is not two or three sizes of at least 16, or a length is not
            positive and finite.
    """

    shape: tuple[int, ...] = (64, 64)
    extent: float = 240.0
    brain_height: float = 64.0
    ventricle_height: float = 40.0

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 16:
            raise ValueError(
                f"shape: expected two or three sizes of at least 16, but got {self.shape}."
            )
        for name in ("extent", "brain_height", "ventricle_height"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}: expected a positive length in mm, but got {getattr(self, name):g}."
                )

    @property
    def dimensions(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> float:
        """Distance between neighbouring pixels or voxels, in mm."""
        return self.extent / (max(self.shape) if self.dimensions == 2 else self.shape[1])

    @property
    def brain_per_voxel(self) -> float:
        """Volume of brain that one pixel or voxel represents, in mm³."""
        return self.spacing**self.dimensions * (self.brain_height if self.dimensions == 2 else 1.0)

    @property
    def ventricle_per_voxel(self) -> float:
        """Volume of the ventricles that one pixel or voxel represents, in mm³."""
        height = self.ventricle_height if self.dimensions == 2 else 1.0
        return self.spacing**self.dimensions * height

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map from indices to mm to the right, forward and up from the centre, ``(4, 4)``.

        Indices are (i, j, k, 1) in a volume and (row, column, 0, 1) in a slice.
        """
        middle = [(size - 1) / 2 * self.spacing for size in self.shape]
        affine = np.diag([self.spacing] * 3 + [1.0])
        if self.dimensions == 2:
            affine[:2, :2] = [[0.0, self.spacing], [-self.spacing, 0.0]]
            affine[:2, 3] = -middle[1], middle[0]
        else:
            affine[:3, 3] = np.negative(middle)
        return affine

    def coordinates(self) -> Floats:
        """Positions of all E pixels or voxels, in mm from the centre, ``(dimensions, E)``.

        Axes point right, forward and, in volumes, up. The order is that of a flattened image.
        """
        middle = [(np.arange(size) - (size - 1) / 2) * self.spacing for size in self.shape]
        if self.dimensions == 2:
            forward, right = np.meshgrid(-middle[0], middle[1], indexing="ij")
            axes = [right, forward]
        else:
            axes = [*np.meshgrid(*middle, indexing="ij")]
        return np.stack([axis.ravel() for axis in axes]).astype(np.float32)
