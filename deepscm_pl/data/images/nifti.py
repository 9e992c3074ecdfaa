"""NIfTI files: their numbers, and their orientation by a stated rule.

A header describes the position of its voxels up to twice, as *sform* (an affine) and as *qform* (a
rotation with the voxel sizes of *pixdim*), each with a code that is 0 if it does not apply. The
first of these that is finite and not singular counts:

1. the sform,
2. the qform,
3. an orientation that the caller assumes, with the voxel sizes of pixdim; the place in the scanner
   is unknown then.

A file without any of them is refused. What is broken or contradicts the choice is noted.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import orientations
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from deepscm_pl.data.images.scan import (
    HEADER_BYTES,
    WRITER,
    Background,
    RefusedError,
    Scan,
    opaque,
)
from deepscm_pl.data.scans.slices import flat_plane

__all__ = [
    "flattened",
    "is_coloured_nifti",
    "is_written_nifti",
    "read_header",
    "read_nifti",
    "upright",
]

_MILLIMETRES = {1: 1000.0, 3: 0.001}
"""Codes of metres and micrometres in a NIfTI header, in mm."""
_GZIP = b"\x1f\x8b"
_COLOURS = {128, 2304}
"""Codes of the data types of red, green and blue, without and with opacity."""
_TOLERANCE = 0.02
"""Relative difference up to which sizes count as equal."""
_SINGULAR = 1e-4
"""Volume of a voxel, relative to the product of its edges, below which an affine is singular."""

_Affine = NDArray[np.float64]


def read_header(content: bytes) -> Nifti1Header:
    """Parse the NIfTI header in :class:`~deepscm_pl.data.images.Scan`."""
    return Nifti1Header(content, check=False)


def read_nifti(path: Path, orientation: str | None, background: Background) -> Scan:
    """Read a NIfTI file, turned from left to right, back to front, bottom to top.

    Args:
        path: The file.
        orientation: Directions of the axes of files that do not state them, such as ``RAS``; None
            to refuse them.
        background: What transparent voxels show.

    Raises:
        RefusedError: If the file has more than three dimensions, or no orientation.
    """
    header, content = _open(path)
    shape = tuple(header.get_data_shape())
    if len(shape) not in (2, 3) and any(size != 1 for size in shape[3:]):
        raise RefusedError(
            f"expected a volume of three dimensions, but got shape {shape}; store one volume of "
            "it, such as the first, in a file of its own."
        )
    place = _place(header, orientation)
    try:
        array, notes = _numbers(np.asanyarray(ArrayProxy(content, header)), background)
    except HeaderDataError as error:
        raise RefusedError(f"its header is broken ({error}); correct it.") from None
    volume = array.reshape((*shape, 1)[:3] + array.shape[len(shape) :])
    affine = place.affine
    if affine is None:  # the orientation is assumed, and the voxel sizes are unknown
        volume, _ = upright(volume, _axes(orientation or "RAS", np.ones(3)))
    else:
        volume, affine = upright(volume, np.diag([_millimetres(header)] * 3 + [1.0]) @ affine)
    kept = nibabel.Nifti1Header.from_header(header, check=False)
    kept.set_data_offset(0)
    kept.set_slope_inter(None, None)
    _set_millimetres(kept)
    scan = flattened(volume, affine, kept.binaryblock)
    return Scan(
        scan.array, scan.flat, scan.affine, scan.header, place.is_placed, place.notes + notes
    )


def is_coloured_nifti(path: Path) -> bool:
    """Whether the voxels of a file are colours, by its header."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        start = file.read(72)
    position = 12 if start[:4] in _sizes_of_newer() else 70
    code = start[position : position + 2]
    return any(int.from_bytes(code, order) in _COLOURS for order in ("little", "big"))


def is_written_nifti(path: Path) -> bool:
    """Whether this program has written a file, by its header."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rb") as file:
        return file.read(HEADER_BYTES)[328:344].rstrip(b"\0") == WRITER.encode()


def upright(volume: NDArray[Any], affine: _Affine) -> tuple[NDArray[Any], _Affine]:
    """Turn the first three axes of a volume from left to right, back to front, bottom to top."""
    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(volume, turn)
    return turned, affine @ orientations.inv_ornt_aff(turn, volume.shape[:3])


def flattened(volume: NDArray[Any], affine: _Affine | None, header: bytes | None) -> Scan:
    """A volume, or the slice in viewing orientation if it has a single one."""
    plane = flat_plane(volume.shape[:3])
    if plane is None:
        return Scan(volume, False, affine, header)
    image, place = plane.cut(volume, affine, 0)
    return Scan(image, True, place, header)


def _sizes_of_newer() -> tuple[bytes, bytes]:
    size = nibabel.Nifti2Image.header_class.sizeof_hdr.to_bytes(4, sys.byteorder)
    return size, size[::-1]


def _open(path: Path) -> tuple[Any, Any]:
    """The header as it is in the file, and what its numbers are read from."""
    content: Any = path
    _check_compression(path)
    if path.suffix.lower() == ".gz":
        # Decompress the whole file, because nibabel does not verify the checksum at its end.
        content = BytesIO(gzip.decompress(path.read_bytes()))
    with path.open("rb") if content is path else content as file:
        start = file.read(4)
        file.seek(0)
        kind = nibabel.Nifti2Image if start in _sizes_of_newer() else nibabel.Nifti1Image
        # nibabel replaces what is broken in a header as it checks it.
        header = kind.header_class.from_fileobj(file, check=False)
        if int(header["sizeof_hdr"]) != header.sizeof_hdr or header["magic"] not in (
            header.single_magic,
            header.pair_magic,
        ):
            raise ValueError("it has no NIfTI header")
        _check_content(header)
        return header, str(path) if content is path else BytesIO(content.getvalue())


def _check_compression(path: Path) -> None:
    """Refuse a file whose name says something else about its compression than its first bytes."""
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        raise RefusedError("it is empty; get it again, or remove its row.")
    is_named, is_compressed = path.suffix.lower() == ".gz", start == _GZIP
    if is_compressed and not is_named:
        raise RefusedError(f"it is compressed with gzip; rename it to {path.name}.gz.")
    if is_named and not is_compressed:
        raise RefusedError(
            f"it is not compressed with gzip; rename it to {path.name[:-3]} if it is NIfTI, or get "
            "it again."
        )


def _check_content(header: Any) -> None:
    """Refuse a header with impossible dimensions or an unknown type of numbers."""
    dimensions = header["dim"].tolist()
    shape = dimensions[1 : 1 + max(dimensions[0], 0)]
    if not 1 <= dimensions[0] <= 7 or min(shape) < 1:
        raise RefusedError(
            f"its header is broken: expected positive dimensions, but got dim {dimensions}; "
            "correct it, or get the file again."
        )
    try:
        header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise RefusedError(
            f"its header is broken: the datatype {int(header['datatype'])} is unknown; correct it, "
            "or get the file again."
        ) from None


def _numbers(array: NDArray[Any], background: Background) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The numbers of an array, with a last axis of channels if they are colours."""
    names = array.dtype.names
    if names is None:
        return array, ()
    channels = np.stack([array[name] for name in names], axis=-1)
    return opaque(channels, 255, background) if len(names) == 4 else (channels, ())


@dataclass(frozen=True)
class _Place:
    affine: _Affine | None
    is_placed: bool
    notes: tuple[str, ...]


def _place(header: Any, orientation: str | None) -> _Place:
    """The position of the voxels by the rule of this module, in the unit of the file."""
    sizes, notes = _voxel_sizes(header)
    forms = {"sform": _sform(header), "qform": _qform(header, sizes)}
    stated = {name: affine for name, affine in forms.items() if affine is not None}
    problems = {name: _problem(affine) for name, affine in stated.items()}
    valid = [name for name, problem in problems.items() if not problem]
    broken = [f"its {name} is broken ({problem})" for name, problem in problems.items() if problem]
    if valid:
        affine, used = stated[valid[0]], f"its {valid[0]} is used"
        notes += [f"{each}; {used}" for each in broken]
        if valid == ["sform", "qform"]:
            notes += _contradiction(affine, stated["qform"], used)
        if not _agree(np.linalg.norm(affine[:3, :3], axis=0), sizes, header):
            notes += [f"its pixdim contradicts its {valid[0]}; {used}"]
        return _Place(affine, True, tuple(notes))
    reason = "; ".join(broken) or "it has neither a qform_code nor an sform_code"
    if orientation is None:
        raise RefusedError(
            f"its orientation is not known, because {reason}; correct its header, or state the "
            "directions of its axes in preprocessing.unknown_orientation, such as RAS (to the "
            "right, anterior, superior) or LAS."
        )
    notes += [f"{reason}; the axes are assumed to be {orientation}, and its place is not known"]
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        return _Place(None, False, (*notes, "its pixdim has no voxel sizes"))
    return _Place(_axes(orientation, sizes), False, tuple(notes))


def _voxel_sizes(header: Any) -> tuple[_Affine, list[str]]:
    """The three sizes in pixdim, 1 across axes of one voxel, and notes."""
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    notes = ["its pixdim is negative; the sizes without sign are used"] if (sizes < 0).any() else []
    sizes = np.abs(sizes)
    shape = (*header.get_data_shape(), 1, 1, 1)[:3]
    return np.where((sizes == 0) & (np.array(shape) == 1), 1.0, sizes), notes


def _sform(header: Any) -> _Affine | None:
    if int(header["sform_code"]) <= 0:
        return None
    rows = [np.asarray(header[f"srow_{axis}"], dtype=np.float64) for axis in "xyz"]
    return np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(header: Any, sizes: _Affine) -> _Affine | None:
    if int(header["qform_code"]) <= 0:
        return None
    copy = header.copy()
    copy["pixdim"][1:4] = sizes
    if copy["pixdim"][0] not in (-1, 1):
        copy["pixdim"][0] = 1  # as the standard says
    try:
        return np.asarray(copy.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):  # no rotation
        return np.full((4, 4), np.nan)


def _problem(affine: _Affine) -> str:
    """What is broken in an affine; empty if it is valid."""
    if np.isnan(affine).any():
        return "NaN"
    if np.isinf(affine).any():
        return "infinite"
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not edges.any():
        return "zeros"
    volume = abs(np.linalg.det(affine[:3, :3] / edges)) if edges.all() else 0.0
    return "singular" if volume < _SINGULAR else ""


def _contradiction(sform: _Affine, qform: _Affine, used: str) -> list[str]:
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        return [f"its sform and qform are mirror images of each other; {used}"]
    one, other = (orientations.aff2axcodes(each) for each in (sform, qform))
    return [] if one == other else [f"its sform and qform have different orientations; {used}"]


def _agree(edges: _Affine, sizes: _Affine, header: Any) -> bool:
    shape = np.array((*header.get_data_shape(), 1, 1, 1)[:3])
    return bool((np.abs(sizes - edges) <= _TOLERANCE * edges)[shape > 1].all())


def _axes(codes: str, sizes: _Affine) -> _Affine:
    """The affine of axes with given directions and voxel sizes, around the origin.

    Example:
        >>> _axes("LAS", np.ones(3))[:3, :3].diagonal()
        array([-1.,  1.,  1.])
    """
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    for axis, (world, sign) in enumerate(orientations.axcodes2ornt(tuple(codes)).tolist()):
        affine[int(world), axis] = sign * sizes[axis]
    return affine


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
