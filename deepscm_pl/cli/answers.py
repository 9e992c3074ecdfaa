"""The first answers, which pictures show."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.cli.observations import ImageFiles, ImageFormat, choose_formats, whole_levels
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import TableWriter, for_file_name
from deepscm_pl.figures import ImageColumn, captions, draw_grid, save_figure
from deepscm_pl.files import exit_on_termination, new_folder
from deepscm_pl.scm import StructuralCausalModel, summarise

__all__ = ["Column", "GrowingArrays", "Output", "Part", "Shown", "Written", "write_answers"]

_ROWS = 16
"""Observations in a picture."""
_COLUMNS = 16
"""Interventions in a picture."""
_CELLS = 96
"""Images in a picture, because drawing takes some megabytes for each."""
_ELEMENTS = 2**26
"""Elements of all images in a picture, of volumes whole, which are kept until it is drawn."""


@dataclass(frozen=True)
class _Moments:
    """Means and standard deviations over some particles, ``(N, *event)`` each."""

    count: int
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Moments:
        """Those of ``(particles, N, *event)``."""
        return cls(len(values), *summarise(values))

    def merge(self, other: _Moments) -> _Moments:
        """Those of the particles of both."""
        count = self.count + other.count
        share = other.count / count
        change = other.mean - self.mean
        inner = sum((each.count - 1) * each.deviation.square() for each in (self, other))
        between = self.count * share * change.square()
        deviation = ((inner + between) / (count - 1)).sqrt()
        return _Moments(count, self.mean + share * change, deviation)


class Shown:
    """Gathers what pictures show: the first observations under the first interventions.

    Args:
        scm: The model.
        columns: Number of interventions.

    Attributes:
        columns: How many of them are shown.
        rows: The names of the observations that are shown.
        total: Number of observations so far.
    """

    def __init__(self, scm: StructuralCausalModel, columns: int) -> None:
        elements = sum(scm[name].domain.features for name in scm.image_variables) or 1
        self.all_columns = columns
        self.columns = min(columns, _COLUMNS)
        self.rows: list[str] = []
        self.total = 0
        cells = min(_CELLS, _ELEMENTS // elements)
        self._capacity = max(1, min(_ROWS, cells // self.columns))
        self._kept: list[list[dict[str, _Moments]]] = [[] for _ in range(self.columns)]

    def add(self, first: int, rows: Sequence[str], values: Sequence[Mapping[str, Tensor]]) -> None:
        """Take from answers what is shown of them.

        Args:
            first: Number of the first observation.
            rows: A name for each observation.
            values: For each column ``(particles, observations, *event)`` of every variable.
        """
        is_new = first >= self.total
        self.total = max(self.total, first + len(rows))
        count = min(len(rows), self._capacity - first)
        if count <= 0:
            return
        self.rows += rows[:count] if is_new else ()
        for kept, column in zip(self._kept, values, strict=False):
            # Copies, so that a few rows do not hold the memory of all.
            found = {n: _Moments.of(value[:, :count].clone()) for n, value in column.items()}
            if is_new:
                kept.append(found)
            else:
                kept[-1] = {name: kept[-1][name].merge(found[name]) for name in found}

    def means(self) -> list[dict[str, Tensor]]:
        """For each column that is shown the means over particles of every variable."""
        return [_joined(kept, "mean") for kept in self._kept]

    def deviations(self) -> list[dict[str, Tensor]]:
        """For each column that is shown the standard deviations over particles."""
        return [_joined(kept, "deviation") for kept in self._kept]

    def describe(self) -> str:
        """What of all is shown, or nothing if that is all."""
        words = [
            f"the first {shown} of {total} {things}"
            for shown, total, things in (
                (len(self.rows), self.total, "observations"),
                (self.columns, self.all_columns, "columns"),
            )
            if shown < total
        ]
        return " and ".join(words)


def _joined(kept: Sequence[Mapping[str, _Moments]], what: str) -> dict[str, Tensor]:
    return {name: torch.cat([getattr(each[name], what) for each in kept]) for name in kept[0]}


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


@dataclass(frozen=True)
class Column:
    """What was done.

    Attributes:
        title: In the table.
        about: What the values under it are, in a few words.
        heading: With units, over pictures; the title where it is left out.
        particles: How many draws there are of each observation.
    """

    title: str
    about: str
    heading: str = ""
    particles: int = 1


@dataclass(frozen=True)
class Part:
    """Answers about some observations, or further particles of answers about one.

    Attributes:
        rows: A name for each observation.
        values: For each column ``(particles, observations, *event)`` of every variable.
        first: Number of the first observation.
        particle: Number of the first particle; columns of a single one are in every part.
        placements: For each image variable where the image of each observation lies.
    """

    rows: Sequence[str]
    values: Sequence[Mapping[str, Tensor]]
    first: int = 0
    particle: int = 0
    placements: Mapping[str, Sequence[Placement | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """What is written, and how.

    Attributes:
        folder: The folder to make; new or empty.
        columns: What was done.
        npz: Whether to write all values as ``answers.npz``, too.
        image_format: Of the images; None for NIfTI of volumes, PNG of others.
        differences: Whether NIfTI files of the differences to the first column are written, too.
    """

    folder: Path
    columns: Sequence[Column]
    npz: bool = False
    image_format: ImageFormat | None = None
    differences: bool = False


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: The files, without those in ``images/``, each with what there is to know of it.
        unplaced: Image variables with an image of which it is not known where it lies.
    """

    files: Mapping[Path, str]
    unplaced: frozenset[str]


def write_answers(scm: StructuralCausalModel, parts: Iterable[Part], output: Output) -> Written:
    """Write a new folder, complete or not at all, a part at a time.

    ``answers.csv`` has a row for each column, observation and particle, and names the files in
    ``images/``: every image as PNG or NIfTI; ``<image>.png`` has the first observations and columns
    in one grid, means over particles, with signed differences to the first column;
    ``<image>-deviation.png`` the standard deviation over particles, where there are several.

    Args:
        scm: The model.
        parts: The answers, observation by observation. They are used once.
        output: What is written, and how.

    Raises:
        ValueError: If the folder is not empty or cannot be written, or an image is not for NIfTI.
    """
    with exit_on_termination(), new_folder(output.folder) as folder:
        writer = _Writer(scm, output, folder)
        for part in parts:
            writer.add(part)
        notes = writer.finish()
    files = sorted(path for path in output.folder.iterdir() if path.is_file())
    return Written({path: notes.get(path.name, "") for path in files}, frozenset(writer.unplaced))


class _Writer:
    """Writes parts of answers as they come; at no time is there more than one in memory."""

    def __init__(self, scm: StructuralCausalModel, output: Output, folder: Path) -> None:
        self.scm = scm
        self.output = output
        self.folder = folder
        self.files = ImageFiles(folder, choose_formats(scm, output.image_format))
        self.unplaced: set[str] = set()
        self.shown = Shown(scm, len(output.columns))
        self._parts = folder / ".parts"
        self._parts.mkdir()
        self._arrays = GrowingArrays(self._parts)
        if scm.image_variables:
            (folder / "images").mkdir()

    def add(self, part: Part) -> None:
        """Write a part to the table, the images and the arrays."""
        self.shown.add(part.first, part.rows, part.values)
        for k, values in enumerate(part.values):
            if part.particle and self.output.columns[k].particles == 1:
                continue
            # A table for each column, so that columns follow each other in the end.
            with self._table(k).open("a", newline="", encoding="utf-8") as file:
                TableWriter(file).writerows(self._rows(part, k))
            if self.output.npz:
                for name, value in values.items():
                    particles = self.output.columns[k].particles
                    self._arrays.append(f"{k}/{name}", value.numpy(), particles)

    def finish(self) -> dict[str, str]:
        """Put the table together and draw the pictures; what there is to know of files."""
        self._join_tables()
        if self.output.npz:
            titles = np.array([column.title for column in self.output.columns])
            self._arrays.write(self.folder / "answers.npz", titles=titles)
        self._parts.rmdir()
        notes: dict[str, str] = {}
        for name in self.scm.image_variables:
            for file in self._draw(name):
                notes[file] = self.shown.describe()
        return notes

    def _table(self, column: int) -> Path:
        return self._parts / f"{column}.csv"

    def _join_tables(self) -> None:
        with (self.folder / "answers.csv").open("wb") as table:
            extra = [f"{name}_difference" for name in self._compared()]
            header = ["observation", "intervention", "particle", *self.scm.graph.nodes, *extra]
            table.write((",".join(header) + "\r\n").encode())
            for k in range(len(self.output.columns)):
                with self._table(k).open("rb") as part:
                    shutil.copyfileobj(part, table)
                self._table(k).unlink()

    def _compared(self) -> list[str]:
        """The image variables whose differences to the first column are written."""
        formats = self.files.formats
        return [n for n, each in formats.items() if self.output.differences and each == "nifti"]

    def _rows(self, part: Part, k: int) -> Iterator[list[object]]:
        """The rows of the table of one column, and the images that they name."""
        column, cells = self.output.columns[k], self._cells(part, k)
        particles = len(next(iter(part.values[k].values())))
        for row in part.rows:
            for p in range(particles):
                own = [next(cell) for cell in cells]
                yield [row, column.title, part.particle + p, *own]

    def _cells(self, part: Part, k: int) -> list[Iterator[str]]:
        """For each column of the table its cells, observation by observation."""
        cells = [
            self._images(part, k, name)
            if name in self.scm.image_variables
            else _numbers(part.values[k][name], variable.classes)
            for name, variable in self.scm.variables.items()
        ]
        return cells + [self._differences(part, k, name) for name in self._compared()]

    def _images(self, part: Part, k: int, name: str) -> Iterator[str]:
        about, pixels = self.output.columns[k].about, whole_levels(part.values[k][name])
        for n, p, label, place in self._each(part, k, name):
            if place is None:
                self.unplaced.add(name)
            yield self.files.write(name, label, pixels[p, n], about, place)

    def _differences(self, part: Part, k: int, name: str) -> Iterator[str]:
        """The files of what images have that those of the first column have not."""
        about = f"change of grey levels: {self.output.columns[k].about}"
        values, factual = part.values[k][name], part.values[0][name]
        for n, p, label, place in self._each(part, k, name):
            difference = values[p, n] - factual[0, n]
            found = self.files.write_difference(name, label, difference, about, place) if k else ""
            yield found

    def _each(
        self, part: Part, k: int, name: str
    ) -> Iterator[tuple[int, int, str, Placement | None]]:
        """Every image of a part: where it is, its label, and where it lies."""
        places = part.placements.get(name) or [None] * len(part.rows)
        for n, place in enumerate(places):
            for p in range(len(part.values[k][name])):
                yield n, p, f"{part.first + n}-{k}-{part.particle + p}", place

    def _draw(self, name: str) -> Iterator[str]:
        """The grids of an image variable; their names."""
        columns = self.output.columns[: self.shown.columns]
        means = self.shown.means()
        texts = [captions(self.scm, mean) for mean in means]
        shown = [
            ImageColumn(column.heading or column.title, mean[name], text)
            for column, mean, text in zip(columns, means, texts, strict=True)
        ]
        figure = draw_grid(shown, self.shown.rows, differences=len(columns) > 1)
        file = f"{for_file_name(name)}.png"
        save_figure(figure, self.folder / file)
        yield file
        if max(column.particles for column in columns) > 1:
            file = f"{for_file_name(name)}-deviation.png"
            self._draw_deviations(name, columns, self.folder / file)
            yield file

    def _draw_deviations(self, name: str, columns: Sequence[Column], path: Path) -> None:
        deviations = [
            ImageColumn(column.heading or column.title, deviation[name])
            for column, deviation in zip(columns, self.shown.deviations(), strict=True)
        ]
        largest = max(float(column.images.max()) for column in deviations)
        figure = draw_grid(
            deviations,
            self.shown.rows,
            f"standard deviation over particles, white is {largest:.0f} grey levels",
            differences=False,
            levels=max(int(largest) + 1, 2),
        )
        save_figure(figure, path)


def _numbers(values: Tensor, names: Sequence[str]) -> Iterator[str]:
    """A scalar variable as it stands in the table, observation by observation."""
    for value in values[..., 0].T.flatten().tolist():
        yield names[int(value)] if value in range(len(names)) else f"{value:.9g}"
