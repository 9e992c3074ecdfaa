"""The position of an image in the scanner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = ["Placement"]


@dataclass(frozen=True)
class Placement:
    """The position of an image or volume in the scanner, as in NIfTI.

    Attributes:
        affine: ``(4, 4)``, from a voxel index to mm to the right, anterior and superior: of a
            volume ``(C, *sizes)`` from (i, j, k, 1), of a slice ``(C, rows, columns)`` from (row,
            column, 0, 1).
        header: The NIfTI header of the scan; None if there is none.
    """

    affine: NDArray[np.float64]
    header: Nifti1Header | None = None
