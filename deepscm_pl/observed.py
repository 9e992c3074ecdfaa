"""Observations as people have them: data frames, lists, class names and files of images."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscm_pl.escaping import one_line
from deepscm_pl.variables import Variable, common_shape

__all__ = ["Observed", "read_observed"]


@dataclass(frozen=True)
class Observed:
    """Observations of every variable, and what else their table has.

    Attributes:
        values: ``(*batch, *event)`` of every variable.
        columns: The columns of the table in their order, those of variables included.
        others: Columns of no variable, such as identifiers, with a cell for each observation.
        index: Labels of the observations; None for a mapping.
    """

    values: Mapping[str, Tensor]
    columns: Sequence[str] = ()
    others: Mapping[str, Any] = field(default_factory=dict)
    index: Any = None

    def row(self, number: int) -> str:
        """Name an observation: its row from 0, and its label if that is another."""
        if self.index is None or self.index[number] == number:
            return f"row {number}"
        return f"row {number} ({one_line(self.index[number], 80)})"


def read_observed(
    given: Any,
    variables: Mapping[str, Variable],
    dtype: torch.dtype,
    read_image: Callable[[Path, Variable], Tensor],
    allows_missing: bool = False,
) -> Observed:
    """Read observations from a data frame, a mapping of columns or a list of mappings.

    A class is given by its name; a number is the name of a class if one is called so, and its index
    if not. In tensors and in arrays of numbers, it is always the index. Images are tensors or
    arrays of grey levels ``(N, *event)``, or one array, image or path for each observation; the
    channels of an array may come last, and a single one may lack. A column of one cell belongs to
    every observation.

    Args:
        given: A frame of pandas or polars, a mapping from the names of columns to tensors, arrays,
            lists or single values, or a sequence of mappings.
        variables: The variables of the model.
        dtype: The type of numbers.
        read_image: Reads the image ``(*event)`` of a variable from a file.
        allows_missing: Whether a missing number (None or NaN) becomes NaN; it is refused if not.

    Raises:
        FileNotFoundError: If an image does not exist.
        ValueError: If a column is missing or repeated, or a cell cannot be read; the message names
            the row and the column.

    Example:
        >>> sex = Variable("sex", classes=("female", "male"))
        >>> table = {"name": ["Ada", "Bo"], "age": [36, 60], "sex": ["female", "male"]}
        >>> found = read_observed(table, {"age": Variable("age"), "sex": sex}, torch.float32, print)
        >>> found.values["sex"].tolist(), found.others
        ([[0.0], [1.0]], {'name': ['Ada', 'Bo']})
    """
    columns, index = _columns_of(given, variables)
    _require(variables, columns)
    reader = _Reader(Observed({}, index=index), dtype, read_image, allows_missing)
    values = {
        name: reader.images(variable, columns[name])
        if len(variable.domain.shape) > 1
        else reader.numbers(variable, columns[name])
        for name, variable in variables.items()
    }
    batch = _batch_shape(values, variables)
    values = {
        name: each.expand(*batch, *variables[name].domain.shape) for name, each in values.items()
    }
    count = math.prod(batch)
    others = {name: each for name, each in columns.items() if name not in variables}
    kept = {name: each for name, each in others.items() if _length(each) == count}
    return Observed(values, [name for name in columns if name in {*variables, *kept}], kept, index)


def _columns_of(given: Any, variables: Mapping[str, Variable]) -> tuple[dict[str, Any], Any]:
    """The columns by their stripped names, and the labels of rows."""
    if hasattr(given, "to_pandas"):  # polars, pyarrow
        given = given.to_pandas()
    index = getattr(given, "index", None) if hasattr(given, "columns") else None
    if index is not None:
        pairs = [(name, given.iloc[:, k]) for k, name in enumerate(given.columns)]
    elif hasattr(given, "items"):
        pairs = list(given.items())
    elif isinstance(given, Sequence) and given and all(isinstance(e, Mapping) for e in given):
        names = dict.fromkeys(name for each in given for name in each)
        pairs = [(name, [each.get(name) for each in given]) for name in names]
    else:
        raise ValueError(
            f"observations: expected a data frame or a mapping with {', '.join(variables)}, but "
            f"got {one_line(repr(given), 80)}; give a column for each variable."
        )
    columns: dict[str, Any] = {}
    for name, column in pairs:
        text = str(name).strip()
        if text in columns:
            raise ValueError(
                f"observations: expected different columns, but got {text!r} twice; rename or drop "
                "one."
            )
        columns[text] = column
    return columns, None if index is None else list(index)


def _require(variables: Mapping[str, Variable], columns: Mapping[str, Any]) -> None:
    missing = [name for name in variables if name not in columns]
    if not missing:
        return
    others = [name for name in columns if name not in variables]
    lower = {name.lower(): name for name in others}
    near = difflib.get_close_matches(missing[0].lower(), lower, n=1)
    advice = f"rename {lower[near[0]]!r}, if it is meant" if near else "add a column for each"
    raise ValueError(
        f"observations: expected the columns {', '.join(variables)}, but {', '.join(missing)} is "
        f"missing; {advice}."
    )


@dataclass(frozen=True)
class _Reader:
    """Converts columns to tensors; ``rows`` names their rows."""

    rows: Observed
    dtype: torch.dtype
    read_image: Callable[[Path, Variable], Tensor]
    allows_missing: bool

    def numbers(self, variable: Variable, column: Any) -> Tensor:
        """Numbers or indices of classes, ``(*batch, 1)``."""
        if isinstance(column, Tensor):
            is_column = (column.dim() == 1 and len(column) != 1) or column.dim() == 0
            return column[..., None] if is_column else column
        if isinstance(column, np.ndarray) and column.dtype.kind in "buif":
            values = torch.from_numpy(np.array(column)).to(self.dtype)
            return values[..., None] if values.dim() < 2 else values
        if _is_single(column):
            column = [column]
        try:
            cells = list(column)
        except TypeError:
            raise ValueError(
                f"observations: expected a column of {variable.name}, but got "
                f"{one_line(repr(column), 80)}."
            ) from None
        found = [self._number(variable, cell, k) for k, cell in enumerate(cells)]
        # In double precision first, so that a number is rounded once.
        values = torch.tensor(found, dtype=torch.float64).to(self.dtype)[:, None]
        wrong = ~variable.domain.contains(values) & ~values.isnan()
        if bool(wrong.any()):
            first = int(wrong.flatten().int().argmax())
            variable.domain.check(self._where(variable, first), values[first : first + 1])
        return values

    def _where(self, variable: Variable, number: int) -> str:
        return f"observations: {self.rows.row(number)}, {variable.name}"

    def _number(self, variable: Variable, cell: Any, number: int) -> float:
        where = self._where(variable, number)
        if _is_missing(cell):
            if self.allows_missing:
                return math.nan
            raise ValueError(
                f"{where}: expected a value, but it is missing; fill it, or leave the row out."
            )
        if isinstance(cell, Tensor | np.ndarray | list | tuple) and np.size(cell) == 1:
            cell = np.asarray(cell).reshape(()).item()
        if variable.classes:
            index = variable.class_index(str(cell).strip())
            if index is None and isinstance(cell, bool | np.bool_):
                index = variable.class_index(str(int(cell)))
            if index is None:
                names = ", ".join(variable.classes)
                near = difflib.get_close_matches(
                    str(cell).strip(), variable.classes, n=1, cutoff=0.5
                )
                meant = f"; did you mean {near[0]!r}?" if near else "; give one of them."
                raise ValueError(f"{where}: expected one of {names}, but got {cell!r}{meant}")
            return float(index)
        if hasattr(cell, "isoformat"):
            raise ValueError(
                f"{where}: expected a number, but got the date {cell}; give days or years since an "
                "origin, as in the training data."
            )
        try:
            return float(cell)
        except (TypeError, ValueError):
            raise ValueError(
                f"{where}: expected a number, but got {one_line(repr(cell), 80)}; give a number "
                "with a decimal point."
            ) from None

    def images(self, variable: Variable, column: Any) -> Tensor:
        """Images ``(*batch, *event)``."""
        shape = variable.domain.shape
        if isinstance(column, Tensor) and tuple(column.shape[-len(shape) :]) == shape:
            return column
        if isinstance(column, np.ndarray) and column.dtype.kind in "buif":
            array = _with_channels(column, shape)
            if array is not None:
                return torch.from_numpy(np.array(array)).to(self.dtype)
        cells = [column] if _is_single(column) or hasattr(column, "getbands") else list(column)
        found = [self._image(variable, cell, k) for k, cell in enumerate(cells)]
        return torch.stack(found) if found else torch.empty(0, *shape, dtype=self.dtype)

    def _image(self, variable: Variable, cell: Any, number: int) -> Tensor:
        where, shape = self._where(variable, number), variable.domain.shape
        if isinstance(cell, str | os.PathLike):
            path = Path(cell)
            if not path.is_file():
                raise FileNotFoundError(f"{where}: there is no image {path}.")
            try:
                image = self.read_image(path, variable)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        else:
            array = np.asarray(cell.detach().cpu() if isinstance(cell, Tensor) else cell)
            fitting = _with_channels(array, shape) if array.dtype.kind in "buif" else None
            if fitting is None or fitting.ndim != len(shape):
                kind = f"an array of {array.dtype} {array.shape}" if array.ndim else repr(cell)
                raise ValueError(
                    f"{where}: expected an image of shape {shape} or a path to one, but got "
                    f"{one_line(kind, 80)}; prepare it as the training data."
                )
            image = torch.from_numpy(np.array(fitting))
        image = image.to(self.dtype)
        variable.domain.check(where, image)
        return image


def _with_channels(array: Any, shape: Sequence[int]) -> Any:
    """The array with its channels before the sizes; None if it does not end in such images."""
    n = len(shape)
    if array.shape[-n:] == tuple(shape):
        return array
    if array.shape[-n:] == (*shape[1:], shape[0]):
        return np.moveaxis(array, -1, -n)
    if shape[0] == 1 and array.shape[-(n - 1) :] == tuple(shape[1:]):
        return np.expand_dims(array, -n)
    return None


def _is_single(column: Any) -> bool:
    """Whether a value is one cell in place of a column."""
    return isinstance(column, str | bytes | os.PathLike) or (
        np.ndim(column) == 0 and not hasattr(column, "__len__")
    )


def _is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, or one of the missing values of pandas."""
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and bool(np.isnan(cell))


def _length(column: Any) -> int | None:
    """The number of cells of a column of no variable; None if it is of another form."""
    shape = np.shape(column) if isinstance(column, Tensor | np.ndarray) else None
    if shape is not None:
        return shape[0] if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) else None
    return len(column) if hasattr(column, "__len__") and not isinstance(column, str) else None


def _batch_shape(values: Mapping[str, Tensor], variables: Mapping[str, Variable]) -> torch.Size:
    """The common dimensions of the observations; raise unless the columns agree."""
    batches = {}
    for name, value in values.items():
        shape = variables[name].domain.shape
        if tuple(value.shape[max(value.dim() - len(shape), 0) :]) != shape:
            variables[name].domain.check(f"observations: {name}", value)
        batches[name] = variables[name].domain.batch_shape(value)
    try:
        return common_shape(*batches.values())
    except ValueError:
        sizes = ", ".join(f"{name} {math.prod(shape)}" for name, shape in batches.items())
        raise ValueError(
            f"observations: expected columns of one length, but got {sizes}; give each variable "
            "one value for each observation."
        ) from None
