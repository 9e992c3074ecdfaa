"""Columns of tables as variables: numbers, or indices of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.tables.kinds import (
    FEW_LEVELS,
    AttributeKind,
    are_dates,
    is_date,
    kind_of_numbers,
    order_of,
    standard_bounds,
)
from deepscm_pl.data.tables.numbers import common_unit, is_number
from deepscm_pl.data.tables.table import Table, Text
from deepscm_pl.numerals import format_number

__all__ = [
    "Attribute",
    "AttributeKind",
    "ColumnRules",
    "MissingValues",
    "read_attribute",
    "select_columns",
]

MissingValues = Literal["refuse", "drop", "infer"]
"""The treatment of rows in which a variable has no value."""

Numbers = NDArray[np.float64]

_OF_CLASSES = ("ordinal", "binary", "categorical")
_RESERVED = ("image", "label", "index")
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""The range of absolute values that single precision represents with all its digits."""

_DECLARED = "declared"
_DATE_REMEDY = "convert dates to numbers, such as days or years since an origin"


@dataclass(frozen=True)
class Attribute:
    """A variable from a column of a table.

    Attributes:
        name: Name of the variable.
        column: Name of the column.
        kind: Kind of its values.
        reason: Why it is of this kind; ``declared`` if the settings say so.
        levels: Names of the class indices 0, 1, …; empty for numbers.
        values: ``(N,)`` float32, in the unit of the column, or class indices; NaN if missing.
    """

    name: str
    column: str
    kind: AttributeKind
    reason: str
    levels: tuple[str, ...]
    values: NDArray[np.float32]

    @property
    def declared(self) -> bool:
        """Whether the kind was declared, not inferred."""
        return self.reason == _DECLARED

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval of a bounded variable: 0 to 1, -1 to 1 or 0 to 100; None for other kinds."""
        if self.kind != "bounded":
            return None
        return standard_bounds(float(np.nanmin(self.values)), float(np.nanmax(self.values)))

    @property
    def missing(self) -> int:
        """Number of rows without a value."""
        return int(np.isnan(self.values).sum())

    def reordered(self, rows: NDArray[np.int64]) -> Attribute:
        """Reorder the values."""
        return replace(self, values=self.values[rows])

    def __str__(self) -> str:
        if self.levels:
            shown = ", ".join(f"{number} = {level}" for number, level in enumerate(self.levels))
        else:
            known = self.values[~np.isnan(self.values)]
            shown = f"from {format_number(known.min())} to {format_number(known.max())}"
            if (count := len(np.unique(known))) <= FEW_LEVELS:
                shown += f", {count} different values"
        if self.missing:
            shown += f", missing in {self.missing} rows"
        source = self.reason if self.declared else f"inferred: {self.reason}"
        return f"{self.name}: {self.kind} ({source}), column {self.column}, {shown}"


def select_columns(
    table: Table,
    columns: Mapping[str, str] | Sequence[str] | None,
    kinds: Mapping[str, str],
    others: Sequence[str],
) -> dict[str, str]:
    """Select the column of each variable.

    Args:
        table: The table.
        columns: Variable to column, or columns that keep their name; None for all but ``others``.
        kinds: Variable to kind.
        others: Columns that are not variables: identifiers, splits, parts of file names.

    Raises:
        ValueError: If a column or variable is unknown or reserved, a kind is unknown, or there is
            no variable.
    """
    if columns is None:
        columns = [name for name in table.columns if name not in others]
    selected = dict(columns if isinstance(columns, Mapping) else zip(columns, columns, strict=True))
    table.require("columns", list(selected.values()))
    if not selected:
        raise ValueError(f"columns: expected at least one column of {table.path}, but got none.")
    reserved = [name for name in selected if name in _RESERVED]
    if reserved:
        raise ValueError(
            f"columns: the name {reserved[0]} is reserved; use another for the variable, as in "
            f"{{my_{reserved[0]}: {selected[reserved[0]]}}}."
        )
    for name, kind in kinds.items():
        if name not in selected:
            raise ValueError(f"kinds: {name!r} is not one of the variables {', '.join(selected)}.")
        if kind not in get_args(AttributeKind):
            raise ValueError(
                f"kinds: {name}: expected one of {', '.join(get_args(AttributeKind))}, but got "
                f"{kind!r}."
            )
    return selected


@dataclass(frozen=True)
class ColumnRules:
    """The settings of a column.

    Attributes:
        name: Name of the variable.
        column: Name of the column.
        kind: Kind of its values; None to infer it.
        classes: Names of the classes in their order; None to find and sort them.
        missing: The treatment of rows without a value; rows to drop are not in the table any more.
        infers_order: Whether classes whose names have an order are inferred to be ordinal.
    """

    name: str
    column: str
    kind: AttributeKind | None = None
    classes: Sequence[str] | None = None
    missing: MissingValues = "refuse"
    infers_order: bool = True


def read_attribute(table: Table, column: ColumnRules, training: NDArray[np.bool_]) -> Attribute:
    """Read and check a column.

    Args:
        table: The table.
        column: The column and its settings.
        training: ``(N,)``, which rows are for training. Class indices count the levels in these
            rows: in the order of ``classes``, in that of their names if they are ordinal, and
            otherwise in numerical or alphabetical order.

    Raises:
        ValueError: If a cell is empty and may not be, is not a number where one is required,
            exceeds single precision, or does not fit the kind; if a column holds dates; if a level
            does not occur in training rows, or all their values are equal or missing.

    Example:
        >>> from pathlib import Path
        >>> texts = np.array(["low", "high", "medium", "low"], dtype=object)
        >>> table = Table(Path("t.csv"), {"risk": texts})
        >>> print(read_attribute(table, ColumnRules("risk", "risk"), np.ones(4, dtype=bool)))
        risk: ordinal (inferred: the names of its classes have an order), column risk, 0 = low, ...
    """
    cells = _Cells.read(table, column, training)
    found, reason, order = _kind(cells)
    if found in _OF_CLASSES:
        levels, values = _classes(cells, found, order)
    else:
        levels, values = (), _checked_numbers(cells, found)
    single = values.astype(np.float32)
    known = training & cells.present
    if len(set(single[known].tolist())) == 1:
        verb = "is" if len(set(values[known].tolist())) == 1 else "is, in single precision,"
        raise ValueError(
            f"columns: {column.column} of {table.path} {verb} {cells.texts[known.argmax()]} in "
            "every row of the training split, and a constant carries no information; leave "
            f"{column.name} out, or subtract the common part of all values."
        )
    return Attribute(column.name, column.column, found, reason, levels, single)


@dataclass(frozen=True)
class _Cells:
    """The cells of a column, and its settings."""

    table: Table
    rules: ColumnRules
    training: NDArray[np.bool_]
    texts: Text
    numbers: Numbers
    present: NDArray[np.bool_]

    @classmethod
    def read(cls, table: Table, rules: ColumnRules, training: NDArray[np.bool_]) -> _Cells:
        column = rules.column
        present = ~table.is_missing(column)
        cells = cls(table, rules, training, table[column], table.numbers(column), present)
        if rules.missing != "infer" and not present.all():
            row = int(present.argmin())
            raise ValueError(
                f"columns: {table.where(row)}: expected a value in {column}, but got "
                f"{cells.texts[row]!r}; fill it in, set missing to drop (leave such rows out) or "
                "infer, or, if it is the name of a class, remove it from missing_words."
            )
        if not (training & present).any():
            raise ValueError(
                f"columns: {column} of {table.path} has no value in any row of the training "
                f"split; leave {rules.name} out."
            )
        return cells

    @property
    def are_numbers(self) -> bool:
        """Whether all cells with a value are numbers."""
        return bool(np.isfinite(self.numbers[self.present]).all())

    def refuse_uncertain(self) -> None:
        """Refuse numbers such as 1,234 if nothing decides what the comma means."""
        text = self.table.uncertain(self.rules.column)
        if text is not None:
            row = int((self.texts == text).argmax())
            raise ValueError(
                f"decimal: {self.table.where(row)}: {text} in {self.rules.column} may be "
                f"{text.replace(',', '.')} or {text.replace(',', '')}; set decimal to ',' or '.'."
            )


_Kind = tuple[AttributeKind, str, tuple[str, ...] | None]
"""A kind, its reason, and the order of its classes if it is known."""


def _kind(cells: _Cells) -> _Kind:
    """The kind of a column."""
    rules = cells.rules
    texts = cells.texts[cells.present]
    classes = None if rules.classes is None else tuple(map(str, rules.classes))
    if rules.kind is not None:
        order = classes if classes is not None or rules.kind != "ordinal" else _order(cells)
        return rules.kind, _DECLARED, order
    if classes is not None:
        return ("binary" if len(classes) == 2 else "ordinal"), "classes are given in order", classes
    if are_dates(texts.tolist()):
        raise ValueError(
            f"columns: {rules.column} of {cells.table.path} contains dates, such as {texts[0]}; "
            f"{_DATE_REMEDY}, or declare it categorical in kinds."
        )
    if not cells.are_numbers and np.mean([is_number(text) for text in texts]) > 0.5:
        cells.refuse_uncertain()
    numbers = cells.numbers[cells.present]
    levels = set(numbers.tolist()) if cells.are_numbers else set(texts)
    finite = numbers[np.isfinite(numbers)]
    if len(levels) > 2 and len(finite) > len(numbers) / 2:
        # A text among numbers is a mistake, not a category.
        return *kind_of_numbers(finite), None
    if not cells.are_numbers:
        _check_class_names(cells, levels)
        order = order_of(levels) if rules.infers_order else None
        if order is not None and len(levels) > 2:
            return "ordinal", "the names of its classes have an order", order
        if len(levels) == 2:
            return "binary", "two different texts", order
        return "categorical", f"{len(levels)} different texts", None
    return "binary", "two different numbers", None


def _order(cells: _Cells) -> tuple[str, ...] | None:
    """The order of the classes of a declared ordinal; None for numbers."""
    if cells.are_numbers:
        return None
    levels = sorted(set(cells.texts[cells.present]))
    order = order_of(levels)
    if order is None:
        raise ValueError(
            f"kinds: {cells.rules.name}: expected classes with an order, but that of "
            f"{', '.join(levels[:FEW_LEVELS])} is not known; list them in ascending order, as in "
            f"classes: {{{cells.rules.name}: [{', '.join(levels[:3])}]}}."
        )
    return order


def _check_class_names(cells: _Cells, levels: set[str]) -> None:
    """Refuse texts that are probably no names of classes."""
    column, table = cells.rules.column, cells.table
    if len(levels) > FEW_LEVELS:
        raise ValueError(
            f"columns: {column} of {table.path} contains {len(levels)} different texts, such as "
            f"{cells.texts[cells.present][0]!r}; declare it categorical in kinds, remove units "
            "from numbers, name it in identifier, or list in columns only those to read."
        )
    unit = common_unit(levels) if len(levels) > 2 else None
    if unit is not None:
        raise ValueError(
            f"columns: {column} of {table.path} contains numbers with the unit {unit}, such as "
            f"{cells.texts[cells.present][0]!r}; remove the unit from the cells, and state it in "
            f"units, or declare {cells.rules.name} ordinal or categorical in kinds."
        )
    signs = [level for level in levels if not re.search(r"\w", level)]
    if signs and len(signs) < len(levels):
        row = int((cells.texts == signs[0]).argmax())
        raise ValueError(
            f"columns: {table.where(row)}: expected the name of a class in {column}, but got "
            f"{signs[0]!r}; add it to missing_words if it means a missing value, or declare "
            f"{cells.rules.name} categorical in kinds."
        )


def _checked_numbers(cells: _Cells, kind: AttributeKind) -> Numbers:
    """The numbers of a column, NaN where a value is missing."""
    table, column, numbers = cells.table, cells.rules.column, cells.numbers
    cells.refuse_uncertain()
    fits = {
        "positive": (numbers > 0, "a positive number"),
        "count": ((numbers >= 0) & (numbers == np.rint(numbers)), "a whole number from 0"),
    }
    valid, expected = fits.get(kind, (np.isfinite(numbers), "a number"))
    valid = ~cells.present | (np.isfinite(numbers) & valid)
    if not valid.all():
        row = int(valid.argmin())
        text = cells.texts[row]
        remedy = f"correct it, or declare {column} of another kind in kinds"
        if not np.isfinite(numbers[row]):
            expected = "a number"
            remedy += ", or add it to missing_words if it means a missing value"
        if is_date(text):
            remedy = _DATE_REMEDY
        if is_number(text) and not np.isfinite(numbers[row]):
            remedy = (
                f"write all numbers of {column} with the same decimal character "
                f"({table.decimal(column) or '.'} here), or set decimal"
            )
        raise ValueError(
            f"columns: {table.where(row)}: expected {expected} in {column}, but got {text!r}; "
            f"{remedy}."
        )
    size = np.abs(numbers)
    fitting = ~cells.present | (((size >= _SMALLEST) | (size == 0)) & (size <= _LARGEST))
    if not fitting.all():
        row = int(fitting.argmin())
        raise ValueError(
            f"columns: {table.where(row)}: {cells.texts[row]!r} in {column} is outside the range "
            f"of single precision, absolute values from {_SMALLEST:.0e} to {_LARGEST:.0e}; correct "
            "it, or convert the column to another unit."
        )
    known = numbers[cells.present]
    if kind == "bounded" and standard_bounds(known.min(), known.max()) is None:
        raise ValueError(
            f"kinds: {column} of {table.path} should be bounded, by 0 and 1, -1 and 1, or 0 and "
            f"100, but it contains {known.min():g} to {known.max():g}; convert it, or declare it "
            "continuous and give its mechanism a constraint."
        )
    return numbers


def _level_name(level: str | float) -> str:
    """The name of a class: the text of the table, whole numbers without a point."""
    if isinstance(level, str):
        return level
    return str(int(level)) if level.is_integer() else repr(level)


def _classes(
    cells: _Cells, kind: AttributeKind, order: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Numbers]:
    """The levels, and the index of the level of each row."""
    table, column = cells.table, cells.rules.column
    content = cells.numbers if cells.are_numbers else cells.texts
    known = set(content[cells.training & cells.present].tolist())
    levels: list[str | float] = sorted(known)
    if order is not None:
        levels = _ordered(cells, order, known)
    if kind == "binary" and len(levels) > 2:
        shown = [_level_name(level) for level in levels]
        raise ValueError(
            f"kinds: {column} of {table.path} should be binary, but it contains {len(levels)} "
            f"different values, {shown[0]}, {shown[1]} and {shown[2]} among them; declare it "
            "categorical."
        )
    index: dict[str | float, float] = {level: float(k) for k, level in enumerate(levels)}
    values = np.full(len(content), np.nan)
    for row in np.flatnonzero(cells.present).tolist():
        found = index.get(content[row])
        if found is None:
            raise ValueError(
                f"columns: {table.where(row)}: {cells.texts[row]!r} in {column} does not occur in "
                "any row of the training split, so nothing can be learned about it; remove the "
                "row, or stratify the split by this column."
            )
        values[row] = found
    return tuple(map(_level_name, levels)), values


def _ordered(cells: _Cells, order: tuple[str, ...], known: set[str | float]) -> list[str | float]:
    """The levels of the training rows in a given order."""
    table, column = cells.table, cells.rules.column
    levels: list[str | float] = list(order)
    if cells.are_numbers:
        levels = [float(text) if is_number(text) else text for text in order]
    others = [_level_name(level) for level in known if level not in levels]
    if others:
        raise ValueError(
            f"classes: {cells.rules.name}: expected all classes in {column} of {table.path}, but "
            f"{sorted(others)[0]!r} is not one of {', '.join(order)}; add it."
        )
    unused = [text for text, level in zip(order, levels, strict=True) if level not in known]
    if unused and cells.rules.classes is not None:
        raise ValueError(
            f"classes: {cells.rules.name}: {unused[0]!r} does not occur in {column} in any row of "
            "the training split, so nothing can be learned about it; leave it out."
        )
    return [level for level in levels if level in known]
