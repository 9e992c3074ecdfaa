"""Folders of answers: a table, images, arrays and pictures of the first answers."""

from __future__ import annotations

import io
import math
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.changes import Changes, affected_by, without_noise
from deepscm_pl.cli.moments import MomentsOfMembers
from deepscm_pl.cli.observations import ImageFiles, ImageFormat, choose_formats, whole_levels
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import TableWriter, for_file_name
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.figures import ImageColumn, captions, draw_grid, save_figure
from deepscm_pl.files import exit_on_termination, new_folder
from deepscm_pl.moments import Moments
from deepscm_pl.overlap import Overlap
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Column", "GrowingArrays", "Output", "Part", "Shown", "Written", "write_answers"]

_MAX_ROWS, _MAX_COLUMNS = 16, 16
"""Observations and interventions in a picture, at most."""
_MAX_IMAGES = 96
"""Images in a picture, because drawing takes some megabytes for each."""
_MAX_PIXELS = 2**26
"""Pixels of all images in a picture, or voxels of volumes, which are kept until it is drawn."""
_COPIED_BYTES = 2**24
_MARKS = {"edge": "edge of the data", "extrapolated": "extrapolated"}
"""Captions of images by the verdict on the answer."""


_Row = tuple[int, list[object], list[object]]
"""A row of a table: the number of its observation in its part, and its cells before and after
those about the spread."""


class Shown:
    """Gathers what pictures show: the first observations under the first interventions.

    Args:
        scm: The model.
        columns: Number of interventions.

    Attributes:
        columns: Number of interventions that are shown.
        rows: The names of the observations that are shown.
        verdicts: For each column that is shown, the verdict on each of these observations.
        total: Number of observations so far.
    """

    def __init__(self, scm: StructuralCausalModel, columns: int) -> None:
        pixels = sum(scm[name].domain.features for name in scm.image_variables) or 1
        self.all_columns = columns
        self.columns = min(columns, _MAX_COLUMNS)
        self.rows: list[str] = []
        self.verdicts: list[list[str]] = [[] for _ in range(self.columns)]
        self.total = 0
        images = min(_MAX_IMAGES, _MAX_PIXELS // pixels)
        self._capacity = max(1, min(_MAX_ROWS, images // self.columns))
        self._kept: list[list[dict[str, Moments]]] = [[] for _ in range(self.columns)]

    def add(self, part: Part) -> None:
        """Keep what is shown of some answers."""
        is_new = part.first >= self.total
        self.total = max(self.total, part.first + len(part.rows))
        count = min(len(part.rows), self._capacity - part.first)
        if count <= 0:
            return
        if is_new:
            self.rows += part.rows[:count]
            for k, verdicts in enumerate(self.verdicts):
                verdicts += part.verdicts(k)[:count]
        for kept, column in zip(self._kept, part.values, strict=False):
            # Copies, so that a few rows do not hold the memory of all.
            found = {n: Moments.of(value[:, :count].clone()) for n, value in column.items()}
            if is_new:
                kept.append(found)
            else:
                kept[-1] = {name: kept[-1][name].merge(found[name]) for name in found}

    def moments(self, kind: Literal["mean", "deviation"]) -> list[dict[str, Tensor]]:
        """Return a moment over particles of every variable, for each column that is shown."""
        return [
            {name: torch.cat([getattr(each[name], kind) for each in kept]) for name in kept[0]}
            for kept in self._kept
        ]

    def describe(self) -> str:
        """Describe the share of the answers that is shown; an empty text if all are."""
        counts = (
            (len(self.rows), self.total, "observations"),
            (self.columns, self.all_columns, "columns"),
        )
        parts = [f"the first {n} of {total} {kind}" for n, total, kind in counts if n < total]
        return " and ".join(parts)


@dataclass
class _RowsFile:
    """A file of rows ``(rows, inner, *event)``, to which further rows are appended."""

    path: Path
    dtype: np.dtype[Any]
    inner: int
    event: tuple[int, ...]


class GrowingArrays:
    """Arrays ``(inner, rows, *event)`` that are written some rows at a time.

    Args:
        folder: An empty folder for incomplete arrays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, _RowsFile] = {}

    def append(self, name: str, values: NDArray[Any], inner: int) -> None:
        """Write further values of an array.

        Args:
            name: The name of the array.
            values: ``(P, rows, *event)``: all P = ``inner``, or, of a single row, the next ones.
            inner: The first size of the array.
        """
        if name not in self._files:
            path = self.folder / f"{len(self._files)}.raw"
            self._files[name] = _RowsFile(path, values.dtype, inner, values.shape[2:])
        with self._files[name].path.open("ab") as file:
            file.write(np.ascontiguousarray(values.swapaxes(0, 1)).data)

    def write(self, path: Path, **others: NDArray[Any]) -> None:
        """Write all arrays, after small ``others``, as a compressed ``.npz`` file."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for name, values in others.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values)
            for name, file in self._files.items():
                self._copy(archive, name, file)
                file.path.unlink()

    def _copy(self, archive: zipfile.ZipFile, name: str, file: _RowsFile) -> None:
        rows: NDArray[Any] = np.empty((0, file.inner, *file.event), file.dtype)
        if file.path.stat().st_size:
            rows = np.memmap(file.path, file.dtype, mode="r").reshape(-1, *rows.shape[1:])
        shape = (file.inner, len(rows), *file.event)
        header = {"descr": file.dtype.str, "fortran_order": False, "shape": shape}
        count = max(_COPIED_BYTES // max(rows[:1].nbytes, 1), 1)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(member, header)
            for inner in range(file.inner):
                for start in range(0, len(rows), count):
                    member.write(np.ascontiguousarray(rows[start : start + count, inner]).data)


@dataclass(frozen=True)
class Column:
    """An intervention, or another kind of answer.

    Attributes:
        title: The entry in the table.
        about: A short description of the values.
        heading: The title over pictures, with units; ``title`` if empty.
        particles: Number of draws of each observation.
        is_observed: Whether the values are observations, which no model has given.
        changed: The variables that the intervention sets or changes.
    """

    title: str
    about: str
    heading: str = ""
    particles: int = 1
    is_observed: bool = False
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Answers about some observations, or further particles of answers about one.

    Attributes:
        rows: A name for each observation.
        values: For each column ``(particles, observations, *event)`` of every variable.
        first: Number of the first observation.
        particle: Number of the first particle; columns of a single one are in every part.
        placements: For each image variable the placement of the image of each observation.
        overlaps: For each column the overlap of each observation, ``(observations,)``; None for
            columns without an intervention, or if it is unknown.
        members: The index of the model of each answer, ``(particles, observations)``.
        others: For each observation the cells of the other columns of its table.
    """

    rows: Sequence[str]
    values: Sequence[Mapping[str, Tensor]]
    first: int = 0
    particle: int = 0
    placements: Mapping[str, Sequence[Placement | None]] = field(default_factory=dict)
    overlaps: Sequence[Overlap | None] = ()
    members: Tensor | None = None
    others: Sequence[Sequence[str]] = ()

    def verdicts(self, column: int) -> list[str]:
        """The verdict on each observation, empty if there is none."""
        overlap = self.overlaps[column] if self.overlaps else None
        return [""] * len(self.rows) if overlap is None else overlap.verdicts


@dataclass(frozen=True)
class Output:
    """A folder to write, and its form.

    Attributes:
        folder: The folder to make; new or empty.
        columns: The columns of the answers.
        npz: Whether to write all values as ``answers.npz``, too.
        image_format: The format of images; None for NIfTI of volumes, PNG of others.
        differences: Whether to write NIfTI files of the differences to the first column, too.
        quantiles: Variables with a column of quantiles; None for a table without the overlap.
        refused: Verdicts on answers that are not written.
        members: Number of models; with several, the table has a column of the model of each answer.
        spread: Variables of whose answers by several models the table has the standard deviations.
        calibration: The calibration of intervals of images; None if they are unknown.
        others: The other columns of the table of observations, such as identifiers.
        changes: Numbers with a column of their change from the first column of answers.
    """

    folder: Path
    columns: Sequence[Column]
    npz: bool = False
    image_format: ImageFormat | None = None
    differences: bool = False
    quantiles: Sequence[str] | None = None
    refused: Sequence[str] = ()
    members: int = 1
    spread: Sequence[str] = ()
    calibration: Calibration | None = None
    others: Sequence[str] = ()
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class Written:
    """A folder that was written.

    Attributes:
        files: The files, without those in ``images/``, each with a note about it.
        unplaced: Image variables with an image whose placement is not known.
        disagreements: Sentences about the disagreement of several models.
        changes: For each column its heading, and what the intervention changes.
    """

    files: Mapping[Path, str]
    unplaced: frozenset[str]
    disagreements: Sequence[str] = ()
    changes: Sequence[tuple[str, Changes]] = ()


def write_answers(scm: StructuralCausalModel, parts: Iterable[Part], output: Output) -> Written:
    """Write a new folder, complete or not at all, a part at a time.

    ``answers.csv`` has a row for each column, observation and particle, and names the files in
    ``images/``: every image as PNG or NIfTI; ``<image>.png`` has the first observations and columns
    in one grid, means over particles, with signed differences to the first column;
    ``<image>-deviation.png`` the standard deviation over particles, if there are several, and
    ``<image>-interval.png`` the half-width of calibrated intervals.
    Refused answers have no rows and images, and are NaN in ``answers.npz``.

    Raises:
        ValueError: If the folder is not empty or cannot be written, or an image is not for NIfTI.
    """
    with exit_on_termination(), new_folder(output.folder) as folder:
        writer = _Writer(scm, output, folder)
        for part in parts:
            writer.add(part)
        notes = writer.finish()
    files = sorted(path for path in output.folder.iterdir() if path.is_file())
    noted = {path: notes.get(path.name, "") for path in files}
    changes = [(c.heading, e) for c, e in zip(output.columns, writer.changes, strict=True)]
    return Written(noted, frozenset(writer.unplaced), writer.disagreements(), changes)


class _Writer:
    """Writes parts of answers, of which only one is in memory at a time."""

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
        self._waiting: list[list[_Row]] = [[] for _ in output.columns]
        self._moments = [MomentsOfMembers(output.spread) for _ in output.columns]
        self.changes = [
            Changes(scm.variables, affected_by(scm.graph, column.changed))
            for column in output.columns
        ]
        if scm.image_variables:
            (folder / "images").mkdir()

    def add(self, part: Part) -> None:
        self.shown.add(part)
        for k, values in enumerate(part.values):
            if part.particle and self.output.columns[k].particles == 1:
                continue
            self._add_changes(part, k)
            # A table for each column, because columns follow each other in the end.
            with self._table(k).open("a", newline="", encoding="utf-8") as file:
                TableWriter(file).writerows(self._complete_rows(part, k))
            if self.output.npz:
                kept = self._kept(part, k)
                for name, value in values.items():
                    written = value
                    if len(kept) < len(part.rows):
                        written = torch.full_like(value, torch.nan)
                        written[:, kept] = value[:, kept]
                    particles = self.output.columns[k].particles
                    self._arrays.append(f"{k}/{name}", written.numpy(), particles)

    def _add_changes(self, part: Part, k: int) -> None:
        """Add the answers that are not refused to what an intervention changes."""
        if k == 0 or not self.output.columns[0].is_observed:
            return
        kept = self._kept(part, k)
        factual, answers = part.values[0], part.values[k]
        if len(kept) < len(part.rows):
            factual, answers = (
                {name: value[:, kept] for name, value in each.items()}
                for each in (factual, answers)
            )
        count = 0 if part.particle else len(kept)
        self.changes[k].add({name: value[0] for name, value in factual.items()}, answers, count)

    def finish(self) -> dict[str, str]:
        """Join the tables and draw the pictures; return notes about files by name."""
        self._join_tables()
        if self.output.npz:
            titles = np.array([column.title for column in self.output.columns])
            self._arrays.write(self.folder / "answers.npz", titles=titles)
        self._parts.rmdir()
        note = self.shown.describe()
        return {file: note for name in self.scm.image_variables for file in self._draw(name)}

    def disagreements(self) -> list[str]:
        """Describe the disagreement of several models on each column."""
        sentences = [moments.sentence(self.scm.variables) for moments in self._moments]
        pairs = zip(self.output.columns, sentences, strict=True)
        return [f"{column.heading}: {sentence}" for column, sentence in pairs if sentence]

    def _table(self, column: int) -> Path:
        return self._parts / f"{column}.csv"

    def _join_tables(self) -> None:
        with (self.folder / "answers.csv").open("wb") as table:
            header = ["intervention", "particle"]
            if self.output.members > 1:
                kinds = ("between", "within")
                header += ["member", *(f"{n}_{kind}" for n in self.output.spread for kind in kinds)]
            if self.output.quantiles is not None:
                quantiles = [f"{name}_quantile" for name in self.output.quantiles]
                header += ["overlap", "overlap_rows", *quantiles]
            # Variables keep their names.
            header = _unlike(header, self.scm.graph.nodes, "answer")
            header += [*self.scm.graph.nodes, *(f"{name}_change" for name in self.output.changes)]
            header += [f"{name}_difference" for name in self._compared()]
            own = _unlike(self.output.others, ("observation", *header))
            text = io.StringIO()
            TableWriter(text).writerow(["observation", *own, *header])
            table.write(text.getvalue().encode())
            for k in range(len(self.output.columns)):
                with self._table(k).open("rb") as part:
                    shutil.copyfileobj(part, table)
                self._table(k).unlink()

    def _compared(self) -> list[str]:
        """The image variables whose differences to the first column are written."""
        formats = self.files.formats
        return [n for n, each in formats.items() if self.output.differences and each == "nifti"]

    def _complete_rows(self, part: Part, k: int) -> Iterator[list[object]]:
        """The rows of one column; with several models, all particles of an observation at once."""
        column, moments, rows = self.output.columns[k], self._moments[k], self._rows(part, k)
        if part.members is None or self.output.members == 1:
            return ([*start, *cells] for _, start, cells in rows)
        if not column.is_observed:
            moments.add(part.particle, part.values[k], part.members[:, 0])
            if part.particle + len(part.members) < column.particles:
                self._waiting[k] += rows
                return iter(())
        waiting, self._waiting[k] = self._waiting[k], []
        spread = moments.cells(len(part.rows), self._kept(part, k))
        return ([*start, *spread[n], *cells] for n, start, cells in chain(waiting, rows))

    def _rows(self, part: Part, k: int) -> Iterator[_Row]:
        """The rows of the table of one column; the images in them are written."""
        kept = self._kept(part, k)
        cells = [
            self._images(part, k, name)
            if name in self.scm.image_variables
            else _format_values(part.values[k][name][:, kept], variable.classes)
            for name, variable in self.scm.variables.items()
        ]
        cells += [self._number_changes(part, k, name) for name in self.output.changes]
        cells += [self._differences(part, k, name) for name in self._compared()]
        particles = len(next(iter(part.values[k].values())))
        for n in kept:
            overlap = self._overlap(part, k, n)
            for p in range(particles):
                own = [next(cell) for cell in cells]
                others = part.others[n] if part.others else [""] * len(self.output.others)
                start = [part.rows[n], *others, self.output.columns[k].title, part.particle + p]
                yield n, [*start, *self._member(part, k, p, n)], [*overlap, *own]

    def _kept(self, part: Part, k: int) -> list[int]:
        """The observations of a column whose answers are not refused."""
        verdicts = part.verdicts(k)
        return [n for n, verdict in enumerate(verdicts) if verdict not in self.output.refused]

    def _member(self, part: Part, k: int, p: int, n: int) -> list[object]:
        """The cell of the model of an answer, if there are several."""
        if part.members is None or self.output.members == 1:
            return []
        return ["" if self.output.columns[k].is_observed else int(part.members[p, n]) + 1]

    def _overlap(self, part: Part, k: int, n: int) -> list[str]:
        """The cells about the overlap of one observation."""
        names = self.output.quantiles
        if names is None:
            return []
        overlap = part.overlaps[k] if part.overlaps else None
        if overlap is None:
            return [""] * (2 + len(names))
        known = {name: float(each[n]) for name, each in overlap.quantiles.items()}
        quantiles = [known.get(name, math.nan) for name in names]
        cells = ["" if math.isnan(each) else f"{each:.4g}" for each in quantiles]
        return [overlap.verdicts[n], f"{round(float(overlap.rows[n]), 6):.6g}", *cells]

    def _images(self, part: Part, k: int, name: str) -> Iterator[str]:
        about, pixels = self.output.columns[k].about, whole_levels(part.values[k][name])
        for n, p, label, placement in self._each(part, k, name):
            if placement is None:
                self.unplaced.add(name)
            yield self.files.write(name, label, pixels[p, n], about, placement)

    def _number_changes(self, part: Part, k: int, name: str) -> Iterator[str]:
        """The cells of the change of a number; empty for observations."""
        kept = self._kept(part, k)
        before, after = (
            _format_values(each[name].expand_as(part.values[k][name])[:, kept])
            for each in (part.values[0], part.values[k])
        )
        for first, last in zip(before, after, strict=True):
            is_known = k and first and last
            yield f"{without_noise(float(first), float(last)):.9g}" if is_known else ""

    def _differences(self, part: Part, k: int, name: str) -> Iterator[str]:
        about = f"change of grey levels: {self.output.columns[k].about}"
        values, factual = part.values[k][name], part.values[0][name]
        for n, p, label, placement in self._each(part, k, name):
            difference = values[p, n] - factual[0, n]
            write = self.files.write_difference
            yield write(name, label, difference, about, placement) if k else ""

    def _each(
        self, part: Part, k: int, name: str
    ) -> Iterator[tuple[int, int, str, Placement | None]]:
        """Observation, particle, label and placement of every image of a part."""
        placements = part.placements.get(name) or [None] * len(part.rows)
        for n in self._kept(part, k):
            for p in range(len(part.values[k][name])):
                yield n, p, f"{part.first + n}-{k}-{part.particle + p}", placements[n]

    def _draw(self, name: str) -> Iterator[str]:
        """Draw the grids of an image variable; yield the names of their files."""
        columns, means = self.output.columns[: self.shown.columns], self.shown.moments("mean")
        verdicts = self.shown.verdicts
        headings = [column.heading or column.title for column in columns]
        labels = [["refused" * (v in self.output.refused) for v in each] for each in verdicts]
        if all(map(all, labels)):
            return
        shown = [
            ImageColumn(heading, mean[name], self._captions(mean, each), label)
            for heading, mean, each, label in zip(headings, means, verdicts, labels, strict=True)
        ]
        figure = draw_grid(shown, self.shown.rows, differences=len(columns) > 1)
        yield self._save(figure, f"{for_file_name(name)}.png")
        if max(column.particles for column in columns) == 1:
            return
        deviations = [each[name] for each in self.shown.moments("deviation")]
        spread = list(zip(headings, deviations, labels, strict=True))
        figure = self._draw_spread(spread, "standard deviation over particles")
        yield self._save(figure, f"{for_file_name(name)}-deviation.png")
        calibration = self.output.calibration
        if calibration is None or not columns[0].is_observed:
            return
        factual = means[0][name]
        widths = [
            (
                heading,
                torch.zeros_like(factual)
                if column.is_observed
                else calibration.half_width(
                    heading,
                    column.changed,
                    Moments(column.particles, mean[name], deviation),
                    factual,
                ),
                label,
            )
            for column, mean, (heading, deviation, label) in zip(
                columns, means, spread, strict=True
            )
        ]
        title = f"half-width of intervals of {100 * calibration.level:g} % around the mean"
        figure = self._draw_spread(widths, title)
        yield self._save(figure, f"{for_file_name(name)}-interval.png")

    def _draw_spread(
        self, columns: Sequence[tuple[str, Tensor, Sequence[str]]], title: str
    ) -> Figure:
        """Draw a grid of headings, grey levels and labels, as bright as the largest one."""
        shown = [ImageColumn(heading, images, labels=label) for heading, images, label in columns]
        largest = max(float(column.images.max()) for column in shown)
        return draw_grid(
            shown,
            self.shown.rows,
            f"{title}, white is {largest:.0f} grey levels",
            differences=False,
            levels=max(int(largest) + 1, 2),
        )

    def _captions(self, values: Mapping[str, Tensor], verdicts: Sequence[str]) -> list[str]:
        """The scalars, unless they are refused, and a mark on answers that are not supported."""
        texts = captions(self.scm, values) or [""] * len(verdicts)
        lines = [
            ("" if verdict in self.output.refused else text, _MARKS.get(verdict, ""))
            for text, verdict in zip(texts, verdicts, strict=True)
        ]
        return ["\n".join(filter(None, pair)) for pair in lines]

    def _save(self, figure: Figure, file: str) -> str:
        save_figure(figure, self.folder / file)
        return file


def _format_values(values: Tensor, classes: Sequence[str] = ()) -> Iterator[str]:
    """The cells of a scalar variable, observation by observation; numbers as short as possible.

    Cells of missing values are empty.
    """
    for value in values[..., 0].T.flatten().cpu().numpy():
        is_class = classes and value in range(len(classes))
        # Numbers of some mechanisms are in double precision, those of files are not.
        text = str(value) if value.dtype == np.float32 else f"{value:.9g}"
        number = "" if np.isnan(value) else text.removesuffix(".0")
        yield classes[int(value)] if is_class else number


def _unlike(names: Sequence[str], taken: Sequence[str], suffix: str = "given") -> list[str]:
    """Names of columns that differ from those of this program.

    Example:
        >>> _unlike(["name", "overlap"], ["overlap"])
        ['name', 'overlap_given']
    """
    found: list[str] = []
    for name in names:
        while name in (*taken, *found):
            name = f"{name}_{suffix}"
        found.append(name)
    return found
