"""Observations that a visitor uploads: pictures, volumes and tables, within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepscm_pl.data.images import read_prepared
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.tables import Table, TableFormat, read_table
from deepscm_pl.escaping import for_terminal, one_line
from deepscm_pl.explorer.questions import Explorer
from deepscm_pl.explorer.session import Observation
from deepscm_pl.memory import format_bytes
from deepscm_pl.observed import read_observed
from deepscm_pl.variables import Variable

__all__ = ["MOST_BYTES", "MOST_FILES", "MOST_ROWS", "read_uploads"]

MOST_FILES, MOST_ROWS, MOST_BYTES = 12, 40, 64_000_000
"""Files of one upload, rows of its table, and bytes of all its files."""
_TABLES = (".csv", ".tsv", ".txt", ".parquet", ".xlsx")


def read_uploads(
    explorer: Explorer, files: Sequence[Path], attributes: Mapping[str, Any]
) -> list[Observation]:
    """Read observations from uploaded files.

    A table has a column for each number and class, and a row for each observation; its column of an
    image has the names of uploaded files. Without a table, ``attributes`` belong to every picture.
    Empty cells and attributes are inferred; in a known world, they are measured in the picture.

    Args:
        explorer: The model.
        files: The files, by their names on the visitor's machine.
        attributes: Texts or numbers by the name of the variable, for uploads without a table.

    Raises:
        ValueError: If there are too many files or bytes, a file is of another kind, size or depth
            than the model expects, or a value cannot be read.
    """
    _check_amount(files)
    upload = _Upload(
        explorer,
        [path for path in files if path.suffix.lower() in _TABLES],
        [path for path in files if path.suffix.lower() not in _TABLES],
    )
    upload.check()
    return upload.from_table() if upload.tables else upload.from_attributes(attributes)


def _check_amount(files: Sequence[Path]) -> None:
    if len(files) > MOST_FILES:
        raise ValueError(
            f"upload: expected at most {MOST_FILES} files, but got {len(files):,}; upload fewer, "
            "or ask about many with deepscm counterfactual --observations."
        )
    size = sum(path.stat().st_size for path in files)
    if size > MOST_BYTES:
        raise ValueError(
            f"upload: expected at most {format_bytes(MOST_BYTES)}, but got {format_bytes(size)}; "
            "upload fewer files."
        )


@dataclass(frozen=True)
class _Upload:
    """Files of one upload."""

    explorer: Explorer
    tables: Sequence[Path]
    pictures: Sequence[Path]

    @property
    def image(self) -> Variable | None:
        """The image of the model."""
        images = self.explorer.scm.image_variables
        return self.explorer.variables[images[0]] if images else None

    @property
    def scalars(self) -> dict[str, Variable]:
        """The numbers and classes of the model."""
        return {n: v for n, v in self.explorer.variables.items() if v.domain.shape == (1,)}

    def check(self) -> None:
        """Raise ValueError unless the files are of kinds that the model expects."""
        if len(self.explorer.scm.image_variables) > 1:
            raise ValueError(
                "upload: expected a model with at most one image; ask about several with deepscm "
                "counterfactual --observations."
            )
        if len(self.tables) > 1:
            raise ValueError(f"upload: expected one table, but got {len(self.tables)}.")
        if self.pictures and self.image is None:
            raise ValueError(
                f"upload: expected a table or attributes only, because the model has no image, but "
                f"got {_names(self.pictures)}."
            )
        if self.image is not None and not self.pictures:
            raise ValueError(
                f"upload: expected {_kind(self.image)} with its attributes, but got no picture."
            )

    def from_attributes(self, attributes: Mapping[str, Any]) -> list[Observation]:
        """An observation for each picture, all with the same attributes."""
        row = {name: _cell(attributes.get(name)) for name in self.scalars}
        if not self.pictures:
            return [self._observation("entered values", row, None)]
        return [self._observation(for_terminal(path.name), row, path) for path in self.pictures]

    def from_table(self) -> list[Observation]:
        """An observation for each row of the table."""
        (path,) = self.tables
        try:
            table = read_table(path, self._format, "upload", [*self.scalars])
        except ImportError as error:
            raise ValueError(str(error)) from None
        missing = [name for name in self.scalars if name not in table.columns]
        if missing:
            raise ValueError(
                f"upload: expected {path.name} to have the columns {', '.join(self.scalars)}, but "
                f"{', '.join(missing)} is missing; it has {table.listed}."
            )
        if len(table) > MOST_ROWS:
            raise ValueError(
                f"upload: expected at most {MOST_ROWS} rows, but {path.name} has {len(table):,}; "
                "ask about many with deepscm counterfactual --observations."
            )
        pictures = self._pictures_of(table)
        found = []
        for k in range(len(table)):
            row = {
                name: None if table.is_missing(name)[k] else table[name][k] for name in self.scalars
            }
            found.append(self._observation(for_terminal(f"{path.name} {k}"), row, pictures[k]))
        return found

    @property
    def _format(self) -> TableFormat:
        """The words for missing values are those of the training table."""
        kept = getattr(self.explorer.data, "table", None)
        if isinstance(kept, TableFormat):
            return TableFormat(missing_words=kept.missing_words)
        return self.explorer.model.checkpoint.table_format

    def _pictures_of(self, table: Table) -> list[Path | None]:
        """The picture of each row: by name in a column, or else in order."""
        if self.image is None:
            return [None] * len(table)
        if self.image.name not in table.columns:
            if len(self.pictures) != len(table):
                raise ValueError(
                    f"upload: expected a picture for each of {len(table)} rows, or their names in "
                    f"a column {self.image.name}, but got {len(self.pictures)}."
                )
            return [*self.pictures]
        known = {path.name: path for path in self.pictures}
        found: list[Path | None] = []
        for cell in table[self.image.name]:
            name = Path(str(cell)).name
            if name not in known:
                raise ValueError(
                    f"upload: expected the picture {one_line(name, 80)} of the table beside it, "
                    f"but got {_names(self.pictures)}; upload both together."
                )
            found.append(known[name])
        return found

    def _observation(self, title: str, row: Mapping[str, Any], picture: Path | None) -> Observation:
        dtype = self.explorer.scm.dtype
        columns = {name: [cell] for name, cell in row.items()}
        try:
            found = read_observed(columns, self.scalars, dtype, _no_image, allows_missing=True)
        except ValueError as error:
            raise ValueError(f"upload: {title}: {error}") from None
        values, places = dict(found.values), {}
        if picture is not None and self.image is not None:
            image, place = self._read(picture, self.image)
            values[self.image.name] = image.to(dtype)[None]
            places = {} if place is None else {self.image.name: place}
            values |= self._measured(values)
        for name, variable in self.explorer.variables.items():
            variable.domain.check(f"upload: {title}, {name}", values[name], is_complete=False)
        return Observation(title, values, None, places)

    def _measured(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Attributes that are missing and can be measured in the image."""
        measured = self.explorer.describe(values).measured
        return {
            name: torch.full_like(values[name], float(value))
            for name, value in measured.items()
            if value is not None and name in values and bool(values[name].isnan().all())
        }

    def _read(self, path: Path, variable: Variable) -> tuple[Tensor, Placement | None]:
        shape, data = variable.domain.shape, self.explorer.data
        try:
            found = read_prepared(path, shape, data if data.prepares_files else None)
        except (ValueError, OSError) as error:
            reason = one_line(str(error).replace(str(path), path.name))
            raise ValueError(f"upload: {_kind(variable)} is expected: {reason}") from None
        if len(found) != 1:
            raise ValueError(
                f"upload: expected {_kind(variable)}, but {path.name} has {len(found)} slices; "
                "upload a file of one."
            )
        image, place = found[0]
        if tuple(image.shape) != shape:
            raise ValueError(
                f"upload: expected {_kind(variable)}, but {path.name} has {_size(image.shape)}; "
                "convert it to one like the training images."
            )
        if not bool(variable.domain.contains(image.double()).all()):
            raise ValueError(
                f"upload: expected {variable.domain}, but {path.name} has values from "
                f"{float(image.min()):g} to {float(image.max()):g}; prepare it as the training "
                "data."
            )
        return image, place


def _cell(value: Any) -> Any:
    text = str(value).strip() if value is not None else ""
    return text or None


def _names(paths: Sequence[Path]) -> str:
    return one_line(", ".join(path.name for path in paths), 120)


def _kind(variable: Variable) -> str:
    shape = variable.domain.shape
    if len(shape) == 4:
        return f"a volume of {_size(shape)} (NIfTI)"
    return f"a {'picture' if shape[0] == 1 else 'picture in colour'} of {_size(shape)}"


def _size(shape: Sequence[int]) -> str:
    if len(shape) == 3:
        return f"{shape[2]}×{shape[1]} pixels"
    return f"{'×'.join(map(str, shape[1:]))} voxels"


def _no_image(path: Path, variable: Variable) -> Tensor:
    raise ValueError(f"{variable.name}: expected a number, but got {path.name}.")
