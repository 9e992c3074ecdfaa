"""Observations of a request from the test split or a table, and the image files of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.checkpoints.stored_observations import require_rows
from deepscm_pl.data import CausalData
from deepscm_pl.data.images import (
    ImageFormat,
    colours,
    default_placement,
    is_image,
    read_prepared,
    write_nifti,
    write_picture,
)
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.tables import Table, TableFormat, read_table
from deepscm_pl.escaping import for_file_name
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
    "other_columns",
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


@dataclass(frozen=True)
class Observations:
    """Some observations.

    Attributes:
        values: ``(N, *event)`` of every variable.
        rows: A name for each row.
        placements: For each image variable the position of each image; None if unknown.
        others: For each row the cells of the other columns of its table.
    """

    values: Mapping[str, Tensor]
    rows: Sequence[str]
    placements: Mapping[str, Sequence[Placement | None]]
    others: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class ObservedRows:
    """All observations of a request, read in batches.

    Attributes:
        count: Number of observations, at least.
        is_exact: Whether ``count`` is exact; files may contain several images.
        read: From a batch size to the batches.
        others: The other columns of the table, such as identifiers.
        option: The option that selects them, for messages.
    """

    count: int
    is_exact: bool
    read: Callable[[int], Iterator[Observations]]
    others: Sequence[str] = ()
    option: str = "observations"


def observations_from_test_split(
    scm: StructuralCausalModel,
    datamodule: CausalData,
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
    require_rows(datamodule, rows)
    variables = datamodule.variables("test")
    names = datamodule.row_names("test")

    def read(count: int) -> Iterator[Observations]:
        for start in range(0, len(rows), count):
            some = list(rows[start : start + count])
            chosen = torch.as_tensor(some)
            places = {
                name: [datamodule.placement_of(name, "test", row) for row in some]
                for name in scm.image_variables
            }
            yield Observations(
                {name: variables[name][chosen].to(scm.dtype) for name in scm.graph.nodes},
                [f"test {row}" if names is None else f"test {row} ({names[row]})" for row in some],
                places,
            )

    return ObservedRows(len(rows), is_exact=True, read=read, option="index")


_Cell = tuple[Tensor, Placement | None]
"""A value, and where it lies if it is an image."""

_Row = tuple[str, dict[str, _Cell], Sequence[str]]
"""The name of an observation, its values, and its cells in other columns."""


def observations_from_csv(
    scm: StructuralCausalModel,
    path: Path,
    data: CausalData | None = None,
    table_format: TableFormat = TableFormat(),  # noqa: B008
) -> ObservedRows:
    """A table with a column for each variable; images by their paths, relative to the table.

    It is read with the rules for training data: see :func:`~deepscm_pl.data.tables.read_table`.
    Classes are given by their names, or by their indices if they have none; cells of numbers and
    classes may be empty, which gives NaN. Images are prepared as those of ``data``; see
    :func:`~deepscm_pl.data.images.read_prepared`. All numbers, and the existence of all images, are
    checked first; images are read in batches.

    Args:
        scm: The model.
        path: The table.
        data: The data of the model, by which images are prepared; each of several images of a file
            is an observation. None for images that are prepared already.
        table_format: The format of the table.

    Raises:
        FileNotFoundError: If the table or an image does not exist.
        ValueError: If a column is missing or a cell is invalid; later, if an image has another
            shape.
    """
    names = scm.graph.nodes
    table = _TableOfObservations(scm, read_table(path, table_format, "observations", names))
    table.check()
    read_images = _reader(scm, data)

    def read(size: int) -> Iterator[Observations]:
        observed = (row for number in range(len(table)) for row in table.read(number, read_images))
        while rows := list(islice(observed, size)):
            yield Observations(
                {name: torch.stack([row[name][0] for _, row, _ in rows]) for name in names},
                [title for title, _, _ in rows],
                {name: [row[name][1] for _, row, _ in rows] for name in scm.image_variables},
                [others for _, _, others in rows],
            )

    return ObservedRows(len(table), data is None, read, table.others)


_COLUMNS_OF_ANSWERS = (
    "observation",
    "intervention",
    "particle",
    "member",
    "overlap",
    "overlap_rows",
)
_SUFFIXES_OF_ANSWERS = ("between", "within", "quantile", "change", "difference")


def other_columns(columns: Sequence[str], variables: Sequence[str]) -> list[str]:
    """Return the columns of a table that are of no variable, such as identifiers.

    Of an ``answers.csv``, whose rows may be the observations of the next question, the columns that
    this program adds are left out.

    Example:
        >>> other_columns(["name", "age", "site"], ["age"])
        ['name', 'site']
    """
    known = set(variables)
    if set(_COLUMNS_OF_ANSWERS[:3]) <= set(columns):
        known |= {*_COLUMNS_OF_ANSWERS}
        known |= {f"{name}_{suffix}" for name in variables for suffix in _SUFFIXES_OF_ANSWERS}
    return [name for name in columns if name not in known]


@dataclass(frozen=True)
class _TableOfObservations:
    """A table with a column for each variable."""

    scm: StructuralCausalModel
    table: Table

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def others(self) -> list[str]:
        """The columns of no variable."""
        return other_columns(list(self.table.columns), self.scm.graph.nodes)

    def check(self) -> None:
        """Check the columns, every number and the existence of every image."""
        names = self.scm.graph.nodes
        missing = [name for name in names if name not in self.table.columns]
        if missing:
            raise ValueError(
                f"observations: expected {self.table.path} to have the columns {', '.join(names)}, "
                f"but {', '.join(missing)} is missing; it has {self.table.listed}."
            )
        self._check_numbers()
        for name in self.scm.image_variables:
            for row in range(len(self)):
                self._require_image(row, name)

    def read(
        self, row: int, read_images: Callable[[str, Path, str], Sequence[_Cell]]
    ) -> Iterator[_Row]:
        """The observations of a row: one for each image of its file."""
        cells = {
            name: read_images(self._where(row, name), self._file(row, name), name)
            if name in self.scm.image_variables
            else [(self.values[name][row], None)]
            for name in self.scm.graph.nodes
        }
        count = max(map(len, cells.values()))
        one = f"{self.table.path.name} {row}"
        for k in range(count):
            title = f"{one}, slice {k}" if count > 1 else one
            values = {name: cell[k if len(cell) > 1 else 0] for name, cell in cells.items()}
            yield title, values, [str(self.table[name][row]) for name in self.others]

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The numbers and class indices ``(N, 1)`` of each variable that is no image, or NaN."""
        scalars = [name for name in self.scm.graph.nodes if name not in self.scm.image_variables]
        return {name: self._column(self.scm.variables[name]) for name in scalars}

    def _column(self, variable: Variable) -> Tensor:
        name = variable.name
        found = self.table.numbers(name)
        if variable.classes:
            indices = [variable.class_index(text) for text in self.table[name]]
            found = np.array([np.nan if each is None else each for each in indices], np.float64)
        wrong = ~np.isfinite(found) & ~self.table.is_missing(name)
        for row in np.flatnonzero(wrong).tolist():
            expected = f"one of {', '.join(variable.classes)}" if variable.classes else "a number"
            text = self.table.uncertain(name) if not variable.classes else None
            hint = (
                f", which may be {text.replace(',', '.')} or {text.replace(',', '')}"
                if text
                else ""
            )
            raise ValueError(
                f"{self._where(row, name)}: expected {expected}, but got {self.table[name][row]!r}"
                f"{hint}."
            )
        return torch.as_tensor(found, dtype=self.scm.dtype)[:, None]

    def _where(self, row: int, name: str) -> str:
        place = f"{self.table.counted} {self.table.number(row)}"
        return f"observations: {self.table.path}, {place}, {name}"

    def _file(self, row: int, name: str) -> Path:
        return self.table.path.parent / str(self.table[name][row])

    def _require_image(self, row: int, name: str) -> None:
        path = self._file(row, name)
        with suppress(OSError):  # for example, if the name is too long
            if is_image(path):
                return
        raise FileNotFoundError(f"{self._where(row, name)}: there is no image {path}.")

    def _check_numbers(self) -> None:
        for name, values in self.values.items():
            domain = self.scm[name].domain
            if values[0].shape != domain.shape:
                domain.check(name, values)
            wrong = ~domain.contains(values)[:, 0] & ~values.isnan()[:, 0]
            if wrong.any():
                first = int(wrong.int().argmax())
                domain.check(self._where(first, name), values[first : first + 1])


def _reader(
    scm: StructuralCausalModel, data: CausalData | None
) -> Callable[[str, Path, str], Sequence[_Cell]]:
    """A function that reads the images of a file, given its position in the table."""

    def read(where: str, path: Path, name: str) -> Sequence[_Cell]:
        domain = scm[name].domain
        try:
            found = read_prepared(path, domain.shape, data)
        except ValueError as error:
            advice = "" if data is None else (
                " Images are prepared by the settings of the training, which a trained model "
                "cannot change: convert it to one like the training images, or prepare it yourself "
                "and add --prepared."
            )  # fmt: skip
            raise ValueError(f"{where}: {error}{advice}") from None
        for image, _ in found:
            _check_image(where, path, image, domain, is_prepared=data is not None)
        return [(image.to(scm.dtype), place) for image, place in found]

    return read


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
