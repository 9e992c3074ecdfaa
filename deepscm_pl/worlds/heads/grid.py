"""Where the elements of an image lie in the head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HeadGrid"]


@dataclass(frozen=True)
class HeadGrid:
    """A regular grid in the head: an axial slice of pixels, or a volume of voxels.

    A slice stands for a part of the head of a fixed height, so that its areas are volumes: brains
    of 1.16 million mm³ have slices of 18,100 mm² at the level of the ventricles, where ventricles
    of 36,000 mm³ have 900 mm².

    Args:
        shape: (rows from front to back, columns from left to right) of a slice, or (left to right,
            back to front, bottom to top) of a volume.
        extent: The longer side of a slice, or the middle side of a volume, in mm.
        brain_height: What a slice stands for of the brain, in mm.
        ventricle_height: What a slice stands for of the ventricles, in mm.

    Raises:
        ValueError: If there are not two or three sizes of at least 16, or a length is not positive.

    Example:
        >>> HeadGrid((64, 64)).spacing
        3.75
    """

    shape: tuple[int, ...] = (64, 64)
    extent: float = 240.0
    brain_height: float = 64.0
    ventricle_height: float = 40.0

    def __post_init__(self) -> None:
        """Checks the arguments."""
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
        """2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> float:
        """Distance of neighbouring elements, in mm."""
        longest = max(self.shape) if self.dimensions == 2 else self.shape[1]
        return self.extent / longest

    @property
    def brain_element(self) -> float:
        """The volume of brain that one element stands for, in mm³."""
        flat = self.dimensions == 2
        return float(self.spacing**self.dimensions * (self.brain_height if flat else 1.0))

    @property
    def ventricle_element(self) -> float:
        """The volume of ventricle that one element stands for, in mm³."""
        flat = self.dimensions == 2
        return float(self.spacing**self.dimensions * (self.ventricle_height if flat else 1.0))

    @property
    def affine(self) -> NDArray[np.float64]:
        """From an element to mm to the right, forward and up of the middle, ``(4, 4)``.

        Of a volume from (i, j, k, 1), of a slice from (row, column, 0, 1).

        Example:
            >>> HeadGrid((64, 64)).affine @ [0, 0, 0, 1]  # the first pixel: in front, to the left
            array([-118.125,  118.125,    0.   ,    1.   ])
        """
        middle = [(size - 1) / 2 * self.spacing for size in self.shape]
        affine = np.diag([self.spacing] * 3 + [1.0])
        if self.dimensions == 2:
            affine[:2, :2] = [[0.0, self.spacing], [-self.spacing, 0.0]]
            affine[:2, 3] = -middle[1], middle[0]
        else:
            affine[:3, 3] = np.negative(middle)
        return affine

    def coordinates(self) -> NDArray[np.float32]:
        """Right, forward and (of volumes) up of every element, in mm from the middle, ``(d, E)``.

        E is the number of elements, in the order of a flattened image.
        """
        middle = [(np.arange(size) - (size - 1) / 2) * self.spacing for size in self.shape]
        if self.dimensions == 2:
            forward, right = np.meshgrid(-middle[0], middle[1], indexing="ij")
            axes = [right, forward]
        else:
            axes = list(np.meshgrid(*middle, indexing="ij"))
        return np.stack([axis.ravel() for axis in axes]).astype(np.float32)
