"""The reader of image files: one for training and for questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepscm_pl.data.images.arrays import is_coloured_array, read_array
from deepscm_pl.data.images.dicom import (
    DICOM_SUFFIXES,
    is_coloured_dicom,
    is_dicom,
    is_series,
    read_dicom,
)
from deepscm_pl.data.images.pictures import PICTURE_SUFFIXES, is_coloured_picture, read_picture
from deepscm_pl.data.images.scan import (
    NIFTI_SUFFIXES,
    WRITER,
    Background,
    RefusedError,
    Scan,
)
from deepscm_pl.data.placement import Placement

__all__ = [
    "SUFFIXES",
    "image_stamp",
    "is_answer",
    "is_image",
    "is_in_colour",
    "read_image",
    "read_scan",
]

SUFFIXES = (*PICTURE_SUFFIXES, ".npy", *NIFTI_SUFFIXES, *DICOM_SUFFIXES)
"""Endings of the names of image files."""


def read_scan(
    path: Path, unknown_orientation: str | None = None, background: Background = "black"
) -> Scan:
    """Read a PNG, JPEG, TIFF, WebP, NumPy, NIfTI or DICOM file, in the numbers of the file.

    No number is changed: 16-bit files keep their levels, and colours their channels. What a file
    leaves open is decided by a stated rule and noted in the result, or the file is refused; see
    ``deepscm_pl.data.images.nifti``, ``pictures`` and ``dicom``.

    NumPy arrays are slices ``(rows, columns)`` or volumes (left to right, back to front, bottom to
    top), with or without an axis of 1 or 3 channels. NIfTI volumes are reoriented to this order; a
    volume of one slice becomes a slice.

    Args:
        path: The file; for DICOM, also the folder with the slices of a series.
        unknown_orientation: Directions of the axes of NIfTI files that do not state them, such as
            ``RAS``; None to refuse them.
        background: What transparent pixels show.

    Raises:
        ValueError: If the file cannot be read, has other dimensions, or contains anything but
            finite numbers.
    """
    name = path.name.lower()
    try:
        if name.endswith(PICTURE_SUFFIXES):
            scan = read_picture(path, background)
        elif name.endswith(".npy"):
            scan = read_array(path)
        elif name.endswith(NIFTI_SUFFIXES):
            from deepscm_pl.data.images.nifti import read_nifti

            scan = read_nifti(path, unknown_orientation, background)
        elif is_dicom(path):
            scan = read_dicom(path)
        else:
            raise RefusedError(f"it is no image; expected one of {', '.join(SUFFIXES)}.")
        _check_numbers(scan.array)
    except RefusedError as error:
        raise ValueError(f"images: {path}: {error}") from None
    except Exception as error:  # broken files cause many types of error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"images: {path} cannot be read ({reason}); it is truncated or of another format. "
            "Get it again, or remove its row."
        ) from None
    return scan


def _check_numbers(array: NDArray[Any]) -> None:
    if array.dtype.kind == "c":
        raise RefusedError(
            f"expected real numbers, but got {array.dtype}; store their magnitude instead."
        )
    if array.dtype.kind not in "buif":
        raise RefusedError(f"expected numbers, but got {array.dtype}; store numbers instead.")
    if not np.isfinite(array).all():
        raise RefusedError(
            f"expected finite numbers, but got NaN or infinity ({array.dtype}); replace them."
        )


def is_image(path: Path) -> bool:
    """Whether there is a file, or a folder with a DICOM series.

    Example:
        >>> is_image(Path("missing.png"))
        False
    """
    return path.is_file() or is_series(path)


def image_stamp(path: Path) -> tuple[int, int]:
    """The size of a file and the time of its modification, by which a change is detected.

    Of a folder, the sizes of all files are added, and the last of their times is taken.
    """
    files = [each for each in path.iterdir() if each.is_file()] if path.is_dir() else [path]
    stats = [each.stat() for each in files]
    return sum(each.st_size for each in stats), max(each.st_mtime_ns for each in stats)


def is_in_colour(path: Path) -> bool:
    """Whether an image is in colour; False if it cannot be read.

    Example:
        >>> is_in_colour(Path("missing.png"))
        False
    """
    name = path.name.lower()
    try:
        if name.endswith(PICTURE_SUFFIXES):
            return is_coloured_picture(path)
        if name.endswith(".npy"):
            return is_coloured_array(path)
        if name.endswith(NIFTI_SUFFIXES):
            from deepscm_pl.data.images.nifti import is_coloured_nifti

            return is_coloured_nifti(path)
        return is_dicom(path) and is_coloured_dicom(path)
    except Exception:  # reported when it is read
        return False


def is_answer(path: Path) -> bool:
    """Whether a question of this program has written an image, which is prepared already.

    Example:
        >>> is_answer(Path("missing.png"))
        False
    """
    try:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            from deepscm_pl.data.images.nifti import is_written_nifti

            return is_written_nifti(path)
        if path.suffix.lower() != ".png":
            return False
        with Image.open(path) as picture:
            return picture.info.get("Software") == WRITER
    except Exception:  # reported when it is read
        return False


def read_image(path: Path, shape: Sequence[int]) -> tuple[Tensor, Placement | None]:
    """Read an image that is prepared already, with its placement if the file has one.

    Nothing is converted, except that grey levels become three equal channels for a variable in
    colour. The caller compares the sizes and the numbers of the result.

    Args:
        path: A file as for :func:`read_scan`, with 8 bits if it is a picture.
        shape: ``(C, *sizes)``, the expected shape.

    Raises:
        ValueError: If the file cannot be read, is a slice instead of a volume or vice versa, in
            colour instead of grey levels, or a picture with 16 bits.
    """
    try:
        return _prepared(path, read_scan(path), shape)
    except RefusedError as error:
        raise ValueError(f"images: {path}: {error}") from None


def _prepared(path: Path, scan: Scan, shape: Sequence[int]) -> tuple[Tensor, Placement | None]:
    is_flat, is_picture = len(shape) == 3, path.name.lower().endswith(PICTURE_SUFFIXES)
    if scan.flat != is_flat:
        kinds = {True: "a single slice", False: "a volume"}
        raise RefusedError(
            f"expected {kinds[is_flat]}, but it is {kinds[scan.flat]} of shape "
            f"{scan.array.shape[:3]}; prepare it as the training data."
        )
    if scan.is_coloured and shape[0] == 1:
        raise RefusedError(
            "expected grey levels, but it is in colour; prepare it as the training data."
        )
    if is_picture and scan.array.dtype != np.uint8:
        raise RefusedError(
            f"expected grey levels of 8 bits, but got {scan.array.dtype} from {scan.array.min():g} "
            f"to {scan.array.max():g}; prepare it as the training data."
        )
    array = np.moveaxis(scan.array, -1, 0) if scan.is_coloured else scan.array[None]
    array = array[..., 0] if scan.flat else array
    image = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    image = image.expand(shape[0], *image.shape[1:]) if len(image) == 1 else image
    if scan.affine is None or not scan.is_placed:
        return image, None
    if scan.header is None:
        return image, Placement(scan.affine)
    from deepscm_pl.data.images.nifti import read_header

    return image, Placement(scan.affine, read_header(scan.header))
