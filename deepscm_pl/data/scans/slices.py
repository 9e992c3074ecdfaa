"""Slices of volumes in viewing orientation: anterior is up in axial slices, superior in others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "PLANES",
    "Axis",
    "Plane",
    "RandomCrop",
    "centre_crop",
    "centre_offset",
    "flat_plane",
    "slice_coordinate",
]

Axis = Literal["axial", "coronal", "sagittal"]
"""The direction in which a volume is cut."""

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """The orientation of slices in a volume (left to right, back to front, bottom to top).

    Attributes:
        rows: Axis of the volume along the rows, in reverse direction.
        columns: Axis along the columns.
        normal: Axis across the slices.
    """

    rows: int
    columns: int
    normal: int

    def cut(
        self, volume: NDArray[Any], affine: Affine | None, index: float
    ) -> tuple[NDArray[Any], Affine | None]:
        """Cut a slice out of a volume.

        Args:
            volume: ``(X, Y, Z)``, or ``(X, Y, Z, C)``.
            affine: ``(4, 4)``; None if unknown.
            index: Along :attr:`normal`, from 0 to the last slice; interpolated linearly between
                slices.

        Returns:
            ``(rows, columns, 1)`` or ``(rows, columns, 1, C)``, and its affine.

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
        slices = volume.transpose(*axes, *range(3, volume.ndim))[::-1]
        before = math.floor(index)
        image = slices[:, :, before : before + 1]
        if index > before:
            after = slices[:, :, before + 1 : before + 2]
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
    """The plane of a volume of a single slice; None for other volumes.

    Example:
        >>> flat_plane((5, 6, 1)) == PLANES["axial"], flat_plane((5, 6, 7))
        (True, None)
    """
    flat = [plane for plane in PLANES.values() if shape[plane.normal] == 1]
    return flat[0] if len(flat) == 1 else None


def slice_coordinate(position: float, size: int) -> float:
    """The coordinate of a slice among ``size``, from 0 to the last index.

    Args:
        position: A whole number is the index itself. A fraction of the extent lies between the
            outer border of the first slice, 0.0, and that of the last, 1.0, whatever the slice
            thickness, up to the centres of the outermost slices.
        size: Number of slices.

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


class RandomCrop:
    """Crops each image of a batch at a random position.

    The position depends on the seed and on the ``index`` of the rows in the batch: epochs differ,
    and a resumed training continues as if uninterrupted, with any number of worker processes.

    Args:
        sizes: Sizes of the crops.
        seed: Seed of the positions.

    Example:
        >>> batch = {"index": torch.tensor([[3], [7]]), "image": torch.rand(2, 1, 20, 24)}
        >>> RandomCrop([16, 16])(batch)["image"].shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, sizes: Sequence[int], seed: int = 0) -> None:
        self.sizes = tuple(sizes)
        self.seed = seed

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Crop ``image`` to ``(B, C, *sizes)``."""
        # Imported here, because it is slow to import.
        from monai.transforms import RandSpatialCrop

        crop = RandSpatialCrop(self.sizes, random_size=False)
        entropy = np.random.SeedSequence([self.seed, *batch["index"].flatten().tolist()])
        crop.set_random_state(seed=int(entropy.generate_state(1)[0]))
        images = [torch.as_tensor(crop(image)) for image in batch["image"]]
        return {**batch, "image": torch.stack([image.as_subclass(Tensor) for image in images])}


def centre_offset(shape: Sequence[int], sizes: Sequence[int]) -> NDArray[np.int64]:
    """The first index of the centre crop of given sizes, along each axis.

    Raises:
        ValueError: If there are not as many sizes as axes, or one is below 1 or above that of the
            image.

    Example:
        >>> centre_offset((20, 24), (16, 17))
        array([2, 3])
    """
    if len(shape) != len(sizes) or any(
        not 1 <= size <= whole for size, whole in zip(sizes, shape, strict=True)
    ):
        raise ValueError(
            f"random_crop: expected {len(shape)} sizes of at most {list(shape)}, those of the "
            f"prepared images, and of at least 1, but got {list(sizes)}."
        )
    return (np.asarray(shape) - np.asarray(sizes)) // 2


def centre_crop(images: Tensor, sizes: Sequence[int]) -> Tensor:
    """Crop images ``(N, C, *shape)`` to their centre ``(N, C, *sizes)``, as a view.

    Raises:
        ValueError: If the sizes do not fit.
    """
    for axis, start in enumerate(centre_offset(images.shape[2:], sizes).tolist()):
        images = images.narrow(axis + 2, start, sizes[axis])
    return images
