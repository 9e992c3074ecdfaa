"""Image files of all kinds as arrays whose axes are known."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.scans.slices import flat_plane

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

__all__ = ["HEADER_BYTES", "Scan", "read_header", "read_scan"]

HEADER_BYTES = 348
"""The length of a NIfTI header."""

_MILLIMETRES = {1: 1000.0, 3: 0.001}
"""Codes of metres and micrometres in a NIfTI header, in mm."""


@dataclass(frozen=True)
class Scan:
    """An image with three axes and its place.

    Attributes:
        array: Of a volume (left to right, back to front, bottom to top), of a slice (rows, columns,
            1), in the numbers of the file.
        flat: Whether it is a slice.
        affine: ``(4, 4)``, from an element to mm to the right, forward and up; None where the file
            does not say.
        header: The NIfTI header of the file, if it has one; its lengths are in mm.
    """

    array: NDArray[Any]
    flat: bool
    affine: NDArray[np.float64] | None = None
    header: bytes | None = None


def read_scan(path: Path) -> Scan:
    """Reads a PNG, JPEG, NumPy or NIfTI file.

    Args:
        path: The file. A NumPy array is a slice ``(rows, columns)``, a volume (left to right, back
            to front, bottom to top), or either with a leading channel of size 1. A volume of NIfTI
            is turned into that order, and is a slice if it has only one.

    Returns:
        What it holds.

    Raises:
        ValueError: If it cannot be read, is in colour, has other dimensions, or holds anything
            but finite numbers.
    """
    name = path.name.lower()
    reader = next((each for suffix, each in _READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise ValueError(f"images: {path}: expected one of {', '.join(_READERS)}.")
    try:
        scan = reader(path)
    except _RefusedError as error:
        raise ValueError(f"images: {path}: {error}") from None
    except Exception as error:  # a broken file breaks its reader in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"images: {path} cannot be read ({reason}); it is truncated or of another format. "
            "Get it again, or remove its row."
        ) from None
    if scan.array.dtype.kind not in "buif" or not np.isfinite(scan.array).all():
        raise ValueError(
            f"images: {path}: expected finite numbers, but got NaN, infinity or others "
            f"({scan.array.dtype}); replace them."
        )
    return scan


def read_header(content: bytes) -> Nifti1Header:
    """A NIfTI header from what :class:`Scan` keeps of it."""
    from nibabel.nifti1 import Nifti1Header

    return Nifti1Header(content)


class _RefusedError(ValueError):
    """A file that can be read but is not what is expected."""


def _read_picture(path: Path) -> Scan:
    from PIL import Image

    with Image.open(path) as picture:
        # The numbers of a palette are names of colours, not grey levels.
        array = np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)
    if array.ndim == 3:
        grey = array[..., :1]
        colours = array[..., :3] if array.shape[-1] >= 3 else grey
        if (colours != grey).any():
            raise _RefusedError("expected grey levels, but it is in colour; convert it.")
        array = grey[..., 0]
    return Scan(array[..., None], flat=True)


def _read_numpy(path: Path) -> Scan:
    array = np.load(path, allow_pickle=False)
    if array.ndim in (3, 4) and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3):
        raise _RefusedError(f"expected two or three dimensions, but got shape {array.shape}.")
    return Scan(array[..., None] if array.ndim == 2 else array, flat=array.ndim == 2)


def _read_nifti(path: Path) -> Scan:
    import nibabel

    image = _open_nifti(path)
    shape = tuple(image.shape)
    if len(shape) not in (2, 3) and any(size != 1 for size in shape[3:]):
        raise _RefusedError(
            f"expected a volume of three dimensions, but got shape {shape}; store one volume of "
            "it, such as the first, in a file of its own."
        )
    header = nibabel.Nifti1Header.from_header(image.header, check=False)
    array = np.asanyarray(image.dataobj)
    volume = array.reshape((*shape, 1)[:3])
    place = nibabel.Nifti1Image(volume, _in_millimetres(image), dtype=volume.dtype)
    _set_millimetres(header)
    upright: Any = nibabel.as_closest_canonical(place)
    return _flattened(np.asanyarray(upright.dataobj), upright.affine, header.binaryblock)


def _open_nifti(path: Path) -> Any:
    import nibabel

    if path.suffix.lower() != ".gz":
        return nibabel.load(path)
    # All of it, because the checksum comes last, and nibabel stops before.
    content = gzip.decompress(path.read_bytes())
    newer = nibabel.Nifti2Image.header_class.sizeof_hdr.to_bytes(4, sys.byteorder)
    kind = nibabel.Nifti2Image if content[:4] in (newer, newer[::-1]) else nibabel.Nifti1Image
    return kind.from_bytes(content)


def _in_millimetres(image: Any) -> NDArray[np.float64]:
    """The affine of an image, whose file may count in metres or micrometres."""
    scale = np.diag([_millimetres(image.header)] * 3 + [1.0])
    return np.asarray(scale @ image.affine, dtype=np.float64)


def _millimetres(header: Any) -> float:
    """What a file counts in, in mm; some files hold codes of no unit, and most mean mm."""
    return _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)


def _set_millimetres(header: Nifti1Header) -> None:
    """Write the lengths of a header in mm, if they are not."""
    scale = _millimetres(header)
    if scale == 1.0:
        return
    header["pixdim"][1:4] *= scale
    for name in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[name] *= scale
    header["xyzt_units"] = 2 | int(header["xyzt_units"]) & ~7


def _flattened(volume: NDArray[Any], affine: NDArray[np.float64], header: bytes) -> Scan:
    """A scan, turned into a slice if it is no more than that."""
    plane = flat_plane(volume.shape)
    if plane is None:
        return Scan(volume, False, affine, header)
    image, place = plane.cut(volume, affine, 0)
    return Scan(image, True, place, header)


_READERS: dict[str, Callable[[Path], Scan]] = {
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".jpeg": _read_picture,
    ".npy": _read_numpy,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
}
