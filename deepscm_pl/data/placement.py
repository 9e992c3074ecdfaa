"""Where the elements of an image lie in the world of the scanner."""

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
    """Where the elements of one image or volume lie, as NIfTI says it.

    Attributes:
        affine: ``(4, 4)``, from an element to mm to the right, forward and up: of a volume
            ``(C, *sizes)`` from (i, j, k, 1), of a slice ``(C, rows, columns)`` from
            (row, column, 0, 1).
        header: Of the scan that the image was taken from; None where there is none.
    """

    affine: NDArray[np.float64]
    header: Nifti1Header | None = None
