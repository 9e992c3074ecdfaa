"""Answers as a folder: a table, every image, and a grid to look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from deepscm_pl.cli.array_files import GrowingArrays
from deepscm_pl.cli.image_files import ImageFiles, ImageFormat, choose_formats, whole_levels
from deepscm_pl.cli.shown import Shown
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import TableWriter, for_file_name
from deepscm_pl.figures import ImageColumn, captions, draw_grid, save_figure
from deepscm_pl.files import exit_on_termination, new_folder
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Column", "Output", "Part", "Written", "write_answers"]


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
        units: Of the variables that have one, for the grid.
        class_names: Of the categorical variables whose classes have names.
        differences: Whether NIfTI files of the differences to the first column are written, too.
    """

    folder: Path
    columns: Sequence[Column]
    npz: bool = False
    image_format: ImageFormat | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
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
            else _numbers(part.values[k][name], self.output.class_names.get(name, ()))
            for name in self.scm.graph.nodes
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
        texts = [
            captions(self.scm, mean, self.output.units, self.output.class_names) for mean in means
        ]
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
