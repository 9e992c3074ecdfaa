"""Whether an element means the same length in all images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.scans.sources import Source

__all__ = ["check_voxel_sizes"]

_ALIKE = 0.02
"""By what share sizes may differ that are called the same."""


def check_voxel_sizes(
    affines: NDArray[np.float64], sources: Sequence[Source], dimensions: int
) -> None:
    """Refuses images whose elements are of different sizes, as far as the files say.

    A head of 1 mm elements and one of 1.2 mm elements look as if they were of different sizes.

    Args:
        affines: ``(N K, 4, 4)``, from elements to mm; nan where that is not known.
        sources: The N files, K images each.
        dimensions: Of an image, 2 or 3.

    Raises:
        ValueError: If sizes differ by more than 2 %.

    Example:
        >>> from pathlib import Path
        >>> files = [Source(Path(name), name, 0, 0) for name in ("a.nii", "b.nii")]
        >>> affines = np.stack([np.diag([size, 1.0, 1.0, 1.0]) for size in (1.0, 1.2)])
        >>> check_voxel_sizes(affines, files, 2)
        Traceback (most recent call last):
            ...
        ValueError: voxel_size: elements of b.nii are of 1.2 × 1 mm, those of a.nii of 1 × 1 mm, ...
    """
    sizes = np.linalg.norm(affines[:, :3, :dimensions], axis=1)
    known = np.flatnonzero(np.isfinite(sizes).all(axis=1))
    if not known.size:
        return
    first = sizes[known[0]]
    other = known[(np.abs(sizes[known] / first - 1) > _ALIKE).any(axis=1)]
    if other.size:
        per_source = len(affines) // len(sources)
        odd, usual = (sources[row // per_source].path for row in (other[0], known[0]))
        raise ValueError(
            f"voxel_size: elements of {odd} are of {_sizes(sizes[other[0]])}, those of {usual} of "
            f"{_sizes(first)}, so that what is equally large would not look it; give the "
            "voxel_size that all are to have, beside any shape."
        )


def _sizes(sizes: NDArray[np.float64]) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes) + " mm"
