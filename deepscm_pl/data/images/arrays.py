"""NumPy files of slices and volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.images.scan import RefusedError, Scan, without_equal_channels

__all__ = ["is_coloured_array", "read_array"]

_MAGIC, _PICKLED, _ZIPPED = b"\x93NUMPY", b"\x80", b"PK"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_REMEDY = "save one array of numbers with numpy.save(file, array.astype(float))"


def read_array(path: Path) -> Scan:
    """Read an array: a slice ``(rows, columns)`` or a volume, with or without an axis of channels.

    An axis of channels is the first or the last one, of size 1 (grey levels) or 3 (red, green and
    blue); an array with three axes is a volume unless it has such an axis.

    Raises:
        RefusedError: If it has other dimensions, no numbers, or contains Python objects, which are
            never loaded, because they can run programs.
    """
    _refuse_objects(path)
    array = _with_last_channels(np.load(path, allow_pickle=False))
    channels = without_equal_channels(array)
    is_flat = array.ndim == 3
    return Scan(np.expand_dims(channels, 2) if is_flat else channels, flat=is_flat)


def _refuse_objects(path: Path) -> None:
    """Refuse files of Python objects and archives of several arrays, by what they begin with."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        if start[:1] == _PICKLED:
            raise RefusedError(f"it is a pickle file of Python objects, no array; {_REMEDY}.")
        if start[:2] == _ZIPPED:
            raise RefusedError(f"it is an archive of arrays (npz); {_REMEDY}.")
        if start != _MAGIC:
            return
        file.seek(0)
        read_header = _HEADERS.get(np.lib.format.read_magic(file))
        if read_header is not None and read_header(file)[2].hasobject:
            raise RefusedError(f"it contains Python objects, no numbers; {_REMEDY}.")


def is_coloured_array(path: Path) -> bool:
    """Whether an array has three channels, by its shape."""
    return _with_last_channels(np.load(path, mmap_mode="r", allow_pickle=False)).shape[-1] == 3


def _with_last_channels(array: NDArray[Any]) -> NDArray[Any]:
    """The array with a last axis of channels, of size 1 or 3."""
    if array.size == 0:
        raise RefusedError(f"expected numbers, but its shape {array.shape} has none.")
    if array.ndim == 2:
        return array[..., None]
    if array.ndim in (3, 4):
        for channels in (1, 3):
            if array.shape[0] == channels:
                return np.moveaxis(array, 0, -1)
            if array.shape[-1] == channels:
                return array
    if array.ndim == 3:
        return array[..., None]
    raise RefusedError(f"expected two or three dimensions, but got shape {array.shape}.")
