"""Image files of scans, and the positions of their voxels in the scanner."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import torch
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deepscm_pl.data.cohort import Source
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.scans.slices import flat_plane
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import new_file

__all__ = [
    "HEADER_BYTES",
    "NIFTI_SUFFIXES",
    "ImageFormat",
    "Scan",
    "check_voxel_sizes",
    "default_placement",
    "read_header",
    "read_image",
    "read_scan",
    "write_nifti",
]

ImageFormat = Literal["png", "nifti"]
"""Formats of image files."""

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_DESCRIPTION_BYTES = 79
_ASCII = str.maketrans("−×³²", "-*32")
"""Replacements of characters that interventions use and a header cannot hold."""
_ALIGNED = 2
"""The NIfTI code of coordinates that are not known to be those of a scanner."""


def default_placement(dimensions: int) -> Placement:
    """The placement of images without one: voxels of 1 mm, the first at the origin.

    Slices are axial, with the first row in front and the first column on the left.

    Args:
        dimensions: 2 for slices, 3 for volumes.

    Example:
        >>> default_placement(2).affine[:3, :3]
        array([[ 0.,  1.,  0.],
               [-1.,  0.,  0.],
               [ 0.,  0.,  1.]])
    """
    affine = np.eye(4)
    if dimensions == 2:
        affine[:2, :2] = [[0.0, 1.0], [-1.0, 0.0]]
    return Placement(affine)


def write_nifti(
    path: Path, image: NDArray[Any], placement: Placement, description: str = ""
) -> None:
    """Write an image so that a viewer shows it in the space of the original scan.

    The header is that of the scan, without the acquisition order of its slices.

    Args:
        path: The file, ``.nii`` or ``.nii.gz``; it appears when it is complete.
        image: Volume ``(X, Y, Z)`` or slice ``(rows, columns)``, in the type of the file.
        placement: Position of the voxels.
        description: For the header, up to 79 characters.

    Raises:
        ValueError: If the name has another ending, or the image other dimensions.
    """
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise ValueError(
            f"path: expected a name ending in {' or '.join(NIFTI_SUFFIXES)}, but got {path}."
        )
    if image.ndim not in (2, 3):
        raise ValueError(
            f"image: expected a slice (rows, columns) or a volume (X, Y, Z), but got shape "
            f"{image.shape}; write each channel by itself."
        )
    volume = image if image.ndim == 3 else image[..., None]
    header = _header(volume, placement, description)
    content = nibabel.Nifti1Image(volume, header.get_best_affine(), header).to_bytes()
    with new_file(path) as temporary:
        # Without a timestamp, equal answers give equal files.
        compressed = gzip.compress(content, mtime=0) if path.suffix == ".gz" else content
        temporary.write_bytes(compressed)


def _header(volume: NDArray[Any], placement: Placement, description: str) -> Nifti1Header:
    header = Nifti1Header() if placement.header is None else placement.header.copy()
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape)
    header.set_intent("none")
    header.set_dim_info(None, None, None)
    for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
        header[name] = 0
    # The range that viewers show: grey levels 0 to 255; 0 to 0 leaves it to the viewer.
    header["cal_min"], header["cal_max"] = 0, 255 if volume.dtype == np.uint8 else 0
    if header.get_xyzt_units()[0] == "unknown":
        header.set_xyzt_units("mm", header.get_xyzt_units()[1])
    header["descrip"] = _header_text(description)
    _place(header, placement.affine)
    return header


def _place(header: Nifti1Header, affine: NDArray[np.float64]) -> None:
    """Write the affine as sform and qform, with the codes of the scan."""
    rotation, general = int(header["qform_code"]), int(header["sform_code"])
    header.set_qform(affine, rotation)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        header["qform_code"] = 0  # not representable by a rotation
    # The sform keeps the full precision, which a quaternion loses.
    header.set_sform(affine, general or rotation or _ALIGNED)


def _header_text(description: str) -> bytes:
    text = for_terminal(description).translate(_ASCII).encode("ascii", "replace")
    if len(text) <= _DESCRIPTION_BYTES:
        return text
    return text[: _DESCRIPTION_BYTES - 3] + b"..."


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


HEADER_BYTES = 348
"""The length of a NIfTI header."""

_MILLIMETRES = {1: 1000.0, 3: 0.001}
"""Codes of metres and micrometres in a NIfTI header, in mm."""


@dataclass(frozen=True)
class Scan:
    """An image with three axes and its position.

    Attributes:
        array: Volume (left to right, back to front, bottom to top) or slice (rows, columns, 1), in
            the numbers of the file.
        flat: Whether it is a slice.
        affine: ``(4, 4)``, from a voxel index to mm to the right, anterior and superior; None if
            unknown.
        header: The NIfTI header of the file, with lengths in mm; None for other files.
    """

    array: NDArray[Any]
    flat: bool
    affine: NDArray[np.float64] | None = None
    header: bytes | None = None


def read_scan(path: Path) -> Scan:
    """Read a PNG, JPEG, NumPy or NIfTI file.

    NumPy arrays are slices ``(rows, columns)`` or volumes (left to right, back to front, bottom to
    top), with or without a leading channel of size 1. NIfTI volumes are reoriented to this order; a
    volume of one slice becomes a slice.

    Raises:
        ValueError: If the file cannot be read, is in colour, has other dimensions, or contains
            anything but finite numbers.
    """
    name = path.name.lower()
    reader = next((each for suffix, each in _READERS.items() if name.endswith(suffix)), None)
    if reader is None:
        raise ValueError(f"images: {path}: expected one of {', '.join(_READERS)}.")
    try:
        scan = reader(path)
    except _RefusedError as error:
        raise ValueError(f"images: {path}: {error}") from None
    except Exception as error:  # broken files cause many types of error
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


def read_image(path: Path, shape: Sequence[int]) -> tuple[Tensor, Placement | None]:
    """Read an image that is prepared already, with its placement if the file has one.

    In contrast to :func:`read_scan`, pictures are converted to the number of channels of ``shape``,
    and arrays may have several channels. The caller compares the shape of the result.

    Args:
        path: PNG, JPEG or another picture, NIfTI, or an array ``.npy``.
        shape: ``(C, *sizes)``, the expected shape.

    Raises:
        ValueError: If the file cannot be read, or is a slice instead of a volume or vice versa.
    """
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return _prepared_scan(path, is_flat=len(shape) == 3)
    if path.suffix.lower() == ".npy":
        return _prepared_array(path, shape), None
    return _prepared_picture(path, shape), None


def _prepared_scan(path: Path, is_flat: bool) -> tuple[Tensor, Placement | None]:
    scan = read_scan(path)
    if scan.flat != is_flat:
        kinds = {True: "a single slice", False: "a volume"}
        raise ValueError(
            f"expected {kinds[is_flat]}, but {path} is {kinds[scan.flat]} of shape "
            f"{scan.array.shape}; cut it as the training data, or ask with --prepare."
        )
    array = scan.array[..., 0] if scan.flat else scan.array
    image = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))[None]
    if scan.affine is None:
        return image, None
    header = None if scan.header is None else read_header(scan.header)
    return image, Placement(scan.affine, header)


def _prepared_array(path: Path, shape: Sequence[int]) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
        image = torch.from_numpy(np.asarray(array, dtype=np.float64))
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is no array of numbers ({error}).") from None
    return image[None] if image.dim() == len(shape) - 1 and shape[0] == 1 else image


def _prepared_picture(path: Path, shape: Sequence[int]) -> Tensor:
    if len(shape) != 3:
        raise ValueError(
            f"expected a volume as .nii, .nii.gz or .npy, but got {path}; a picture has no depth."
        )
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is no image ({error}).") from None
    image = torch.from_numpy(pixels.copy())
    return image[None] if image.dim() == 2 else image.movedim(-1, 0)


def read_header(content: bytes) -> Nifti1Header:
    """Parse the NIfTI header in :class:`Scan`."""
    return Nifti1Header(content)


class _RefusedError(ValueError):
    """A readable file with unexpected content."""


def _read_picture(path: Path) -> Scan:
    with Image.open(path) as picture:
        # The numbers of a palette are indices of colours, not grey levels.
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
    affine = np.diag([_millimetres(image.header)] * 3 + [1.0]) @ image.affine
    place = nibabel.Nifti1Image(volume, affine, dtype=volume.dtype)
    _set_millimetres(header)
    upright: Any = nibabel.as_closest_canonical(place)
    return _flattened(np.asanyarray(upright.dataobj), upright.affine, header.binaryblock)


def _open_nifti(path: Path) -> Any:
    if path.suffix.lower() != ".gz":
        return nibabel.load(path)
    # Decompress the whole file, because nibabel does not verify the checksum at its end.
    content = gzip.decompress(path.read_bytes())
    newer = nibabel.Nifti2Image.header_class.sizeof_hdr.to_bytes(4, sys.byteorder)
    kind = nibabel.Nifti2Image if content[:4] in (newer, newer[::-1]) else nibabel.Nifti1Image
    return kind.from_bytes(content)


def _millimetres(header: Any) -> float:
    """The length unit of a file in mm; files with an unknown code are in mm."""
    return _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)


def _set_millimetres(header: Nifti1Header) -> None:
    """Convert the lengths in a header to mm."""
    scale = _millimetres(header)
    if scale == 1.0:
        return
    header["pixdim"][1:4] *= scale
    for name in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[name] *= scale
    header["xyzt_units"] = 2 | int(header["xyzt_units"]) & ~7


def _flattened(volume: NDArray[Any], affine: NDArray[np.float64], header: bytes) -> Scan:
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
