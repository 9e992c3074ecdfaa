"""Voxel sizes of the images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from deepscm_pl.data.cohort import Source

__all__ = ["check_voxel_sizes"]

_TOLERANCE = 0.02
"""Relative difference up to which sizes count as equal."""


def check_voxel_sizes(
    affines: NDArray[np.float64], sources: Sequence[Source], dimensions: int
) -> None:
    """Refuse images with different voxel sizes, which would look differently large.

    Args:
        affines: ``(N K, 4, 4)``, from voxel indices to mm; NaN if unknown.
        sources: The N files, K images each.
        dimensions: 2 for slices, 3 for volumes.

    Raises:
        ValueError: If known sizes differ by more than 2 %.

    Example:
        >>> from pathlib import Path
        >>> from deepscm_pl.data.cohort import Source
        >>> files = [Source(Path(name), name, 0, 0) for name in ("a.nii", "b.nii")]
        >>> affines = np.stack([np.diag([size, 1.0, 1.0, 1.0]) for size in (1.0, 1.2)])
        >>> check_voxel_sizes(affines, files, 2)
        Traceback (most recent call last):
            ...
        ValueError: voxel_size: voxels of b.nii are 1.2 × 1 mm, those of a.nii are 1 × 1 mm, ...
    """
    sizes = np.linalg.norm(affines[:, :3, :dimensions], axis=1)
    known = np.flatnonzero(np.isfinite(sizes).all(axis=1))
    if not known.size:
        return
    first = sizes[known[0]]
    other = known[(np.abs(sizes[known] / first - 1) > _TOLERANCE).any(axis=1)]
    if other.size:
        per_source = len(affines) // len(sources)
        different, reference = (sources[row // per_source].path for row in (other[0], known[0]))
        raise ValueError(
            f"voxel_size: voxels of {different} are {_in_mm(sizes[other[0]])}, those of "
            f"{reference} are {_in_mm(first)}, so that equal lengths would look different; set "
            "voxel_size to resample all images, in addition to shape."
        )


def _in_mm(sizes: NDArray[np.float64]) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes) + " mm"
