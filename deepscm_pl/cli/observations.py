"""Observations of a request from the test split or a table, and the image files of answers."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.images import (
    ImageFormat,
    colours,
    default_placement,
    read_observed,
    write_nifti,
    write_picture,
)
from deepscm_pl.data.placement import Placement
from deepscm_pl.escaping import for_file_name, from_spreadsheet
from deepscm_pl.figures import as_pictures
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variable

__all__ = [
    "ImageFiles",
    "ImageFormat",
    "Observations",
    "ObservedRows",
    "choose_formats",
    "observations_from_csv",
    "observations_from_test_split",
    "whole_levels",
]


def choose_formats(scm: StructuralCausalModel, asked: ImageFormat | None) -> dict[str, ImageFormat]:
    """The file format of each image variable.

    Args:
        scm: The model.
        asked: One format for all; None for NIfTI if volumes and PNG if images.

    Raises:
        ValueError: If NIfTI is requested without images, or for images of other than one or three
            channels.
    """
    shapes = {name: scm[name].domain.shape for name in scm.image_variables}
    if asked == "nifti" and not shapes:
        raise ValueError("format: nifti is for images, but the model has none; leave it out.")
    formats: dict[str, ImageFormat] = {
        name: asked or ("nifti" if len(shape) == 4 else "png") for name, shape in shapes.items()
    }
    for name, each in formats.items():
        if each == "nifti" and shapes[name][0] not in (1, 3):
            raise ValueError(
                f"format: nifti needs images of one or three channels, but {name} has "
                f"{shapes[name][0]}; choose png."
            )
    return formats


@dataclass(frozen=True)
class ImageFiles:
    """Writer of the images of answers.

    Attributes:
        folder: Folder of the answers.
        formats: Format of each image variable.
    """

    folder: Path
    formats: Mapping[str, ImageFormat]

    def write(
        self, name: str, label: str, pixels: Tensor, about: str, placement: Placement | None
    ) -> str:
        """Write an image.

        Args:
            name: The variable.
            label: Distinguishes the file from others of the variable.
            pixels: Whole grey levels ``(C, *sizes)``, see :func:`whole_levels`.
            about: Description for the header.
            placement: Position in the scanner; None if unknown.

        Returns:
            The path relative to the folder.
        """
        stem = f"images/{for_file_name(name)}-{label}"
        if self.formats[name] == "nifti":
            return self._write_nifti(stem, pixels.numpy(), about, placement)
        picture = as_pictures(pixels, pixels.dim()).numpy()
        write_picture(self.folder / f"{stem}.png", picture)
        return f"{stem}.png"

    def write_difference(
        self, name: str, label: str, difference: Tensor, about: str, placement: Placement | None
    ) -> str:
        """Write signed differences of grey levels ``(C, *sizes)`` as NIfTI; see :meth:`write`."""
        stem = f"images/{for_file_name(name)}-{label}-difference"
        return self._write_nifti(stem, difference.cpu().float().numpy(), about, placement)

    def _write_nifti(
        self, stem: str, values: NDArray[Any], about: str, placement: Placement | None
    ) -> str:
        path, dimensions = f"{stem}.nii.gz", values.ndim - 1
        image = values[0] if len(values) == 1 else colours(values)
        write_nifti(self.folder / path, image, placement or default_placement(dimensions), about)
        return path


def whole_levels(images: Tensor) -> Tensor:
    """Images as bytes, in whole grey levels."""
    return images.round().clamp(0, 255).byte().cpu()


_CHECKED = 4096
"""Rows of a table whose numbers are checked at a time."""


@dataclass(frozen=True)
class Observations:
    """Some observations.

    Attributes:
        values: ``(N, *event)`` of every variable.
        rows: A name for each row.
        placements: For each image variable the position of each image; None if unknown.
    """

    values: Mapping[str, Tensor]
    rows: Sequence[str]
    placements: Mapping[str, Sequence[Placement | None]]


@dataclass(frozen=True)
class ObservedRows:
    """All observations of a request, read in batches.

    Attributes:
        count: Number of observations, at least.
        is_exact: Whether ``count`` is exact; files may contain several images.
        read: From a batch size to the batches.
    """

    count: int
    is_exact: bool
    read: Callable[[int], Iterator[Observations]]


def observations_from_test_split(
    scm: StructuralCausalModel,
    datamodule: CausalDataModule,
    rows: Sequence[int],
) -> ObservedRows:
    """Rows of the test split of the data that a model was trained with.

    Args:
        scm: The model.
        datamodule: The data of its run.
        rows: Row numbers, from 0.

    Raises:
        ValueError: If a row does not exist.
    """
    datamodule.prepare_data()
    datamodule.setup("test")
    variables = datamodule.variables("test")
    size = len(variables[scm.graph.nodes[0]])
    wrong = [row for row in rows if not 0 <= row < size]
    if wrong:
        raise ValueError(
            f"index: expected rows from 0 to {size - 1} of the test split, but got {wrong[0]}."
        )
    names = datamodule.row_names("test")

    def read(count: int) -> Iterator[Observations]:
        for start in range(0, len(rows), count):
            some = list(rows[start : start + count])
            chosen = torch.as_tensor(some)
            places = [datamodule.placement("test", row) for row in some]
            yield Observations(
                {name: variables[name][chosen].to(scm.dtype) for name in scm.graph.nodes},
                [f"test {row}" if names is None else f"test {row} ({names[row]})" for row in some],
                dict.fromkeys(scm.image_variables, places),
            )

    return ObservedRows(len(rows), is_exact=True, read=read)


_Cell = tuple[Tensor, Placement | None]
"""A value, and where it lies if it is an image."""

_Row = tuple[str, dict[str, _Cell]]
"""The name of an observation, and its values."""


def observations_from_csv(
    scm: StructuralCausalModel,
    path: Path,
    data: CausalDataModule | None = None,
) -> ObservedRows:
    """A table with a column for each variable; images by their paths, relative to the table.

    Classes are given by their names, or by their indices if they have none. Images are prepared as
    those of ``data``; see :func:`~deepscm_pl.data.images.read_observed`. All numbers, and the
    existence of all images, are checked first; images are read in batches.

    Args:
        scm: The model.
        path: The table.
        data: The data of the model, by which images are prepared; each of several images of a file
            is an observation. None for images that are prepared already.

    Raises:
        FileNotFoundError: If the table or an image does not exist.
        ValueError: If a column is missing or a cell is invalid; later, if an image has another
            shape.
    """
    table = _Table(scm, path)
    count = table.check()
    read_images = _reader(scm, data)

    def read(size: int) -> Iterator[Observations]:
        observed = (row for line in table.lines() for row in table.read(line, read_images))
        while rows := list(islice(observed, size)):
            yield Observations(
                {name: torch.stack([row[name][0] for _, row in rows]) for name in scm.graph.nodes},
                [title for title, _ in rows],
                {name: [row[name][1] for _, row in rows] for name in scm.image_variables},
            )

    return ObservedRows(count, is_exact=data is None, read=read)


@dataclass(frozen=True)
class _Line:
    """A row of a table: its number from 0, and its cells."""

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class _Table:
    """A table of observations that is read row by row."""

    scm: StructuralCausalModel
    path: Path

    @cached_property
    def variables(self) -> dict[str, Variable]:
        return self.scm.variables

    def lines(self) -> Iterator[_Line]:
        """The rows of a table with a column for each variable."""
        if not self.path.is_file():
            raise FileNotFoundError(f"observations: there is no file {self.path}.")
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                self._require_columns(reader.fieldnames or ())
                for number, row in enumerate(reader):
                    cells = {name: row[name] or "" for name in self.scm.graph.nodes}
                    yield _Line(number, {n: from_spreadsheet(cells[n]) for n in cells})
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"observations: {self.path} is no table of UTF-8 ({error}).") from None

    def check(self) -> int:
        """Check every number and the existence of every image, and count the rows."""
        count, lines = 0, self.lines()
        while some := list(islice(lines, _CHECKED)):
            count += len(some)
            for name in self.scm.graph.nodes:
                if name in self.scm.image_variables:
                    for line in some:
                        self._require_image(line, name)
                else:
                    self._check_numbers(some, name)
        if not count:
            self._require_columns(self.scm.graph.nodes, rows=False)
        return count

    def read(
        self, line: _Line, read_images: Callable[[str, Path, str], Sequence[_Cell]]
    ) -> Iterator[_Row]:
        """The observations of a row: one for each image of its file."""
        cells = {
            name: read_images(self._where(line, name), self._file(line, name), name)
            if name in self.scm.image_variables
            else [(self._numbers([line], name)[0], None)]
            for name in self.scm.graph.nodes
        }
        count = max(map(len, cells.values()))
        one = f"{self.path.name} {line.number}"
        for k in range(count):
            title = f"{one}, slice {k}" if count > 1 else one
            yield title, {name: cell[k if len(cell) > 1 else 0] for name, cell in cells.items()}

    def _require_columns(self, columns: Sequence[str], rows: bool = True) -> None:
        names = self.scm.graph.nodes
        missing = [name for name in names if name not in columns]
        if missing or not rows:
            raise ValueError(
                f"observations: expected {self.path} to have the columns {', '.join(names)} and "
                f"at least one row, but {', '.join(missing) or 'every row'} is missing."
            )

    def _where(self, line: _Line, name: str) -> str:
        return f"observations: {self.path}, line {line.number + 2}, {name}"

    def _file(self, line: _Line, name: str) -> Path:
        return self.path.parent / line.cells[name]

    def _require_image(self, line: _Line, name: str) -> None:
        path = self._file(line, name)
        with suppress(OSError):  # for example, if the name is too long
            if path.is_file():
                return
        raise FileNotFoundError(f"{self._where(line, name)}: there is no image {path}.")

    def _numbers(self, lines: Sequence[_Line], name: str) -> Tensor:
        """Numbers ``(N, 1)`` of a column."""
        variable = self.variables[name]
        found = [
            [_read_number(self._where(line, name), line.cells[name], variable)] for line in lines
        ]
        return torch.tensor(found, dtype=self.scm.dtype)

    def _check_numbers(self, lines: Sequence[_Line], name: str) -> None:
        domain, values = self.scm[name].domain, self._numbers(lines, name)
        if values[0].shape != domain.shape:
            domain.check(name, values)
        wrong = ~domain.contains(values)[:, 0]
        if wrong.any():
            first = int(wrong.int().argmax())
            domain.check(self._where(lines[first], name), values[first : first + 1])


def _reader(
    scm: StructuralCausalModel, data: CausalDataModule | None
) -> Callable[[str, Path, str], Sequence[_Cell]]:
    """A function that reads the images of a file, given its position in the table."""

    def read(where: str, path: Path, name: str) -> Sequence[_Cell]:
        domain = scm[name].domain
        try:
            found = read_observed(path, domain.shape, data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        for image, _ in found:
            _check_image(where, path, image, domain, is_prepared=data is not None)
        return [(image.to(scm.dtype), place) for image, place in found]

    return read


def _read_number(where: str, cell: str, variable: Variable) -> float:
    """A number, or the index of a class."""
    if variable.classes:
        found = variable.class_index(cell)
        if found is None:
            expected = ", ".join(variable.classes)
            raise ValueError(f"{where}: expected one of {expected}, but got {cell!r}.")
        return found
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{where}: expected a number, but got {cell!r}.") from None


def _check_image(where: str, path: Path, image: Tensor, domain: Domain, is_prepared: bool) -> None:
    """Raise unless an image has the shape and the values of the variable."""
    advice = "ask a model of such images" if is_prepared else (
        "prepare it as the training data"
    )  # fmt: skip
    if tuple(image.shape) != domain.shape:
        raise ValueError(
            f"{where}: expected {_image_size(domain.shape)}, but {path} has "
            f"{_image_size(image.shape, short=True)}; {advice}."
        )
    if not bool(domain.contains(image.double()).all()):
        raise ValueError(
            f"{where}: expected {domain}, but {path} has from {image.min().item():g} to "
            f"{image.max().item():g}; {advice}."
        )


def _image_size(shape: Sequence[int], short: bool = False) -> str:
    """Such as ``an image of 28×24 pixels (width × height)``."""
    if len(shape) == 3:
        size = f"{shape[2]}×{shape[1]}"
        return size if short else f"an image of {size} pixels (width × height)"
    size = "×".join(map(str, shape[1:]))
    return size if short else f"a volume of {size} voxels"
