"""Arrays that grow on the disk, and become one ``.npz`` file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GrowingArrays"]

_BYTES = 2**24
"""That are copied at a time."""


@dataclass
class _Raw:
    """Rows in a file, ``(rows, inner, *event)``, whose number is not known yet."""

    path: Path
    dtype: np.dtype[Any]
    inner: int
    event: tuple[int, ...]

    def mapped(self) -> NDArray[Any]:
        """The rows, read when they are used."""
        if not self.path.stat().st_size:
            return np.empty((0, self.inner, *self.event), self.dtype)
        flat = np.memmap(self.path, self.dtype, mode="r")
        return flat.reshape(-1, self.inner, *self.event)


@dataclass
class GrowingArrays:
    """Arrays ``(inner, rows, *event)`` that are written some rows at a time.

    Args:
        folder: An empty folder for what is not complete yet.
    """

    folder: Path
    _arrays: dict[str, _Raw] = field(default_factory=dict)

    def append(self, name: str, values: NDArray[Any], inner: int) -> None:
        """Write further values of an array.

        Args:
            name: Of the array.
            values: ``(P, rows, *event)``: all P = ``inner``, or, of a single row, the next ones.
            inner: The first size of the array.
        """
        if name not in self._arrays:
            path = self.folder / f"{len(self._arrays)}.raw"
            self._arrays[name] = _Raw(path, values.dtype, inner, values.shape[2:])
        with self._arrays[name].path.open("ab") as file:
            file.write(np.ascontiguousarray(values.swapaxes(0, 1)).data)

    def write(self, path: Path, **others: NDArray[Any]) -> None:
        """Write all as a compressed ``.npz`` file.

        Args:
            path: The file.
            others: Small arrays that come first.
        """
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, values in others.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, values)
            for name, raw in self._arrays.items():
                self._copy(archive, name, raw)
                raw.path.unlink()

    def _copy(self, archive: zipfile.ZipFile, name: str, raw: _Raw) -> None:
        rows = raw.mapped()
        shape = (raw.inner, len(rows), *raw.event)
        header = {"descr": raw.dtype.str, "fortran_order": False, "shape": shape}
        count = max(_BYTES // max(rows[:1].nbytes, 1), 1)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for inner in range(raw.inner):
                for start in range(0, len(rows), count):
                    file.write(np.ascontiguousarray(rows[start : start + count, inner]).data)
