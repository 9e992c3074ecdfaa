"""DICOM: files, and folders with the slices of a series.

- Numbers are those of the modality: the stored ones with slope and intercept, without a display
  window.
- ``MONOCHROME1``, whose smallest number is white, is inverted, and this is noted.
- The slices of a folder are ordered by their position. They must belong to one series, and have one
  size, one orientation and equal distances: a missing or repeated slice is refused.
- A file with several frames is a volume if it has their positions.

The package pydicom reads the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.images.scan import RefusedError, Scan, without_equal_channels

__all__ = ["DICOM_SUFFIXES", "is_coloured_dicom", "is_dicom", "is_series", "read_dicom"]

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_MAGIC, _MAGIC_OFFSET = b"DICM", 128
_UNEVEN = 0.02
"""Relative difference of distances of slices from which one is missing."""
_INVERTED = "its smallest number is white (MONOCHROME1); it is inverted"
_TO_NIFTI = np.diag([-1.0, -1.0, 1.0])
"""From the axes of DICOM, left and posterior, to those of NIfTI, right and anterior."""


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder of a series.

    Example:
        >>> is_dicom(Path("scan.dcm")), is_dicom(Path("scan.png"))
        (True, False)
    """
    if path.name.lower().endswith(DICOM_SUFFIXES) or path.is_dir():
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # names such as IM0001 or 1.2.840.113
        return False
    with path.open("rb") as file:
        return file.read(_MAGIC_OFFSET + len(_MAGIC))[_MAGIC_OFFSET:] == _MAGIC


def is_series(path: Path) -> bool:
    """Whether a path is a folder with a DICOM file.

    Example:
        >>> is_series(Path("missing"))
        False
    """
    return path.is_dir() and any(each.is_file() and is_dicom(each) for each in path.iterdir())


def is_coloured_dicom(path: Path) -> bool:
    """Whether the pixels of a file, or of the first one of a folder, are colours."""
    import pydicom

    first = _files(path)[0]
    return int(pydicom.dcmread(first, stop_before_pixels=True).get("SamplesPerPixel", 1)) == 3


def read_dicom(path: Path) -> Scan:
    """Read a file, or a folder with the slices of a series.

    Returns:
        A volume; or a slice in viewing orientation if there is a single one.

    Raises:
        RefusedError: If pydicom is not installed, or the slices do not belong together.
    """
    from deepscm_pl.data.images.nifti import flattened, upright

    slices = [each for file in _files(path) for each in _read(file)]
    notes = tuple(dict.fromkeys(note for each in slices for note in each.notes))
    if len(slices) == 1 and slices[0].place is None:
        array = without_equal_channels(slices[0].array)
        return Scan(array[:, :, None], flat=True, notes=notes)
    ordered = _ordered(slices)
    # From (rows, columns) to (columns, rows, slices), the order of the axes of the affine.
    volume = np.stack([np.swapaxes(each.array, 0, 1) for each in ordered], axis=2)
    places = [each.place for each in ordered if each.place is not None]
    turned, affine = upright(without_equal_channels(volume), _affine(places))
    scan = flattened(turned, affine, None)
    return Scan(scan.array, scan.flat, scan.affine, None, True, notes)


@dataclass(frozen=True)
class _Place:
    """The place of a slice in the axes of DICOM, in mm.

    Attributes:
        corner: Of the first pixel, ``(3,)``.
        right: Direction of the rows, ``(3,)``.
        down: Direction of the columns, ``(3,)``.
        spacing: Distances of rows and of columns, ``(2,)``.
        thickness: Of the slice.
    """

    corner: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.right, self.down)

    @property
    def height(self) -> float:
        return float(self.normal @ self.corner)


@dataclass(frozen=True)
class _Slice:
    """A slice ``(rows, columns, channels)``, the file and the series that it is from."""

    array: NDArray[Any]
    place: _Place | None
    name: str
    series: str
    notes: tuple[str, ...]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if each.is_file() and is_dicom(each))
    if not files:
        raise RefusedError("expected a folder with the DICOM files of a series, but it has none.")
    return files


def _read(path: Path) -> list[_Slice]:
    """The slices of a file."""
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise RefusedError(
            "DICOM files need the package pydicom; install it: pip install deepscm_pl[dicom]."
        ) from None
    header = pydicom.dcmread(path)
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        raise RefusedError(f"{path.name} has a palette of colours; convert it to RGB.")
    try:
        stored = np.asarray(pixel_array(header))  # colours are red, green and blue
    except (RuntimeError, NotImplementedError) as error:
        raise RefusedError(
            f"the pixels of {path.name} cannot be decompressed ({' '.join(str(error).split())}); "
            "install what this names, or decompress the file."
        ) from None
    numbers = _rescaled(stored, header)
    notes: tuple[str, ...] = ()
    if kind == "MONOCHROME1":
        ends = _rescaled(np.array(_ends(header)), header).astype(np.float64)
        numbers = (ends.sum() - numbers).astype(numbers.dtype)
        notes = (_INVERTED,)
    coloured = int(header.get("SamplesPerPixel", 1)) == 3
    frames = int(header.get("NumberOfFrames", 1) or 1)
    channels = numbers if coloured else numbers[..., None]
    arrays = channels if frames > 1 else channels[None]
    series = str(header.get("SeriesInstanceUID", ""))
    return [
        _Slice(array, _place(header, k if frames > 1 else None), path.name, series, notes)
        for k, array in enumerate(arrays)
    ]


def _ends(header: Any) -> tuple[int, int]:
    """The smallest and the largest number that can be stored."""
    bits = int(header.BitsStored)
    return (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if header.PixelRepresentation
        else (0, 2**bits - 1)
    )


def _rescaled(stored: NDArray[Any], header: Any) -> NDArray[Any]:
    """The numbers of the modality, in the type of the file if they are those that it stores."""
    from pydicom.pixels.processing import apply_modality_lut

    slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
    if "ModalityLUTSequence" not in header and (slope, intercept) == (1, 0):
        return stored
    numbers = np.asarray(apply_modality_lut(stored, header))
    whole = (numbers == np.rint(numbers)).all()
    return numbers.astype(np.int32) if whole else numbers.astype(np.float32)


def _place(header: Any, frame: int | None) -> _Place | None:
    """The place of a frame, or of the only slice of a file; None if it is unknown."""
    corner, directions, measures = header, header, header
    if frame is not None:
        own = header.get("PerFrameFunctionalGroupsSequence")
        shared = header.get("SharedFunctionalGroupsSequence")
        groups = [*([own[frame]] if own else []), *([shared[0]] if shared else [])]
        corner = _group(groups, "PlanePositionSequence")
        directions = _group(groups, "PlaneOrientationSequence")
        measures = _group(groups, "PixelMeasuresSequence")
    position = corner.get("ImagePositionPatient") if corner is not None else None
    orientation = directions.get("ImageOrientationPatient") if directions is not None else None
    spacing = measures.get("PixelSpacing") if measures is not None else None
    if not position or not orientation or not spacing:
        return None
    vectors = np.asarray(orientation, dtype=np.float64)
    place = _Place(
        np.asarray(position, dtype=np.float64),
        vectors[:3],
        vectors[3:],
        np.asarray(spacing, dtype=np.float64),
        float(measures.get("SliceThickness") or 1.0),
    )
    if not np.isfinite([*place.corner, *vectors, *place.spacing]).all() or not place.normal.any():
        raise RefusedError(
            "its ImageOrientationPatient, ImagePositionPatient or PixelSpacing is broken."
        )
    return place


def _group(groups: Sequence[Any], name: str) -> Any:
    """The first item of a sequence in functional groups, or None."""
    return next((each[name][0] for each in groups if name in each), None)


def _ordered(slices: Sequence[_Slice]) -> list[_Slice]:
    """The slices by position, each next to those beside it.

    Raises:
        RefusedError: If they do not belong together, or one is missing or repeated.
    """
    first = slices[0]
    for each in slices:
        if each.place is None or first.place is None:
            raise RefusedError(
                f"expected the position of every slice, but {each.name} has none; give one slice, "
                "or a volume as NIfTI."
            )
        if each.series != first.series:
            raise RefusedError(
                f"expected one series, but {first.name} and {each.name} are of two; put each into "
                "a folder of its own."
            )
        same = (
            each.array.shape == first.array.shape
            and np.allclose(each.place.right, first.place.right, atol=1e-3)
            and np.allclose(each.place.down, first.place.down, atol=1e-3)
            and np.allclose(each.place.spacing, first.place.spacing, rtol=_UNEVEN)
        )
        if not same:
            raise RefusedError(
                f"expected slices of one size and orientation, but {first.name} and {each.name} "
                "differ; put each series into a folder of its own."
            )
    ordered = sorted(slices, key=_height)
    _check_distances(ordered)
    return ordered


def _height(each: _Slice) -> float:
    return 0.0 if each.place is None else each.place.height


def _check_distances(ordered: Sequence[_Slice]) -> None:
    if len(ordered) < 2:
        return
    distances = np.diff([_height(each) for each in ordered])
    usual = float(np.median(distances))
    for k, distance in enumerate(distances.tolist()):
        pair = f"{ordered[k].name} and {ordered[k + 1].name}"
        if distance <= 1e-3:
            raise RefusedError(
                f"expected one slice at each position, but {pair} are at the same one; keep one of "
                "them, or one of several time points."
            )
        if abs(distance - usual) > max(_UNEVEN * usual, 1e-2):
            raise RefusedError(
                f"expected equal distances of slices, but {pair} are {distance:.4g} mm apart, "
                f"others {usual:.4g} mm; add the missing slices."
            )


def _affine(places: Sequence[_Place]) -> NDArray[np.float64]:
    """From (column, row, slice) to mm to the right, anterior and superior."""
    first, last = places[0], places[-1]
    step = first.normal * first.thickness
    if len(places) > 1:
        step = (last.corner - first.corner) / (len(places) - 1)
    affine = np.eye(4)
    affine[:3, 0] = _TO_NIFTI @ first.right * first.spacing[1]
    affine[:3, 1] = _TO_NIFTI @ first.down * first.spacing[0]
    affine[:3, 2] = _TO_NIFTI @ step
    affine[:3, 3] = _TO_NIFTI @ first.corner
    return affine
