"""Tables of subjects: reading, checking and writing, and their columns as variables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.files import new_file
from deepscm_pl.numerals import format_number

__all__ = [
    "Attribute",
    "AttributeKind",
    "Table",
    "read_attribute",
    "read_table",
    "select_columns",
    "write_table",
]

AttributeKind = Literal["continuous", "positive", "binary", "categorical"]
"""Kinds of attributes: numbers, positive numbers, two classes, or more."""

Numbers = NDArray[np.float64]

_RESERVED = ("image", "label", "index")
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""The range of absolute values that single precision represents with all its digits."""

_FEW_LEVELS = 20
"""The largest number of different texts in an inferred category, and of values to be counted."""


@dataclass(frozen=True)
class Attribute:
    """A variable from a column of a table.

    Attributes:
        name: Name of the variable.
        column: Name of the column.
        kind: Kind of its values.
        declared: Whether the kind was declared, not inferred.
        levels: Names of the class indices 0, 1, …; empty for numbers.
        values: ``(N,)`` float32, in the unit of the column, or class indices.
    """

    name: str
    column: str
    kind: AttributeKind
    declared: bool
    levels: tuple[str, ...]
    values: NDArray[np.float32]

    def reordered(self, rows: NDArray[np.int64]) -> Attribute:
        """Reorder the values."""
        return replace(self, values=self.values[rows])

    def __str__(self) -> str:
        if self.levels:
            shown = ", ".join(f"{number} = {level}" for number, level in enumerate(self.levels))
        else:
            low, high = self.values.min(), self.values.max()
            shown = f"from {format_number(low)} to {format_number(high)}"
            if (count := len(np.unique(self.values))) <= _FEW_LEVELS:
                shown += f", {count} different values"
        source = "declared" if self.declared else "inferred"
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


def read_attribute(
    table: Table, name: str, column: str, kind: AttributeKind | None, training: NDArray[np.bool_]
) -> Attribute:
    """Read and check a column.

    Args:
        table: The table.
        name: Name of the variable.
        column: Name of the column.
        kind: Kind of its values; None to infer it.
        training: ``(N,)``, which rows are for training. Class indices count the levels in these
            rows, in numerical or alphabetical order.

    Raises:
        ValueError: If a cell is empty, is not a number where one is required, exceeds single
            precision, or does not fit the kind; if a level does not occur in training rows, or all
            their values are equal.
    """
    texts = table[column]
    for row, text in enumerate(texts):
        if text.lower() in MISSING:
            raise ValueError(
                f"columns: {table.where(row)}: expected a value in {column}, but got {text!r}; "
                "fill it in, or leave such rows out with missing: drop."
            )
    numbers = _as_numbers(texts)
    found = kind or _infer(table, column, texts, numbers)
    if found in ("binary", "categorical"):
        levels, values = _classes(table, column, texts, numbers, training, found)
    else:
        levels, values = (), _check_column_numbers(table, column, texts, numbers, found)
    single = values.astype(np.float32)
    if len(set(single[training].tolist())) == 1:
        verb = "is" if len(set(values[training].tolist())) == 1 else "is, in single precision,"
        raise ValueError(
            f"columns: {column} of {table.path} {verb} {texts[training.argmax()]} in every row "
            f"of the training split, and a constant carries no information; leave {name} out, or "
            "subtract the common part of all values."
        )
    return Attribute(name, column, found, kind is not None, levels, single)


def _as_numbers(texts: Text) -> Numbers:
    """Texts as numbers ``(N,)``, NaN where a text is not a number."""
    # Imported here, because it is slow to import.
    import pandas as pd

    return np.asarray(pd.to_numeric(pd.Series(texts), errors="coerce"), dtype=np.float64)


def _infer(table: Table, column: str, texts: Text, numbers: Numbers) -> AttributeKind:
    levels = len(set(texts)) if np.isnan(numbers).any() else len(set(numbers.tolist()))
    if levels <= 2:
        return "binary"
    share = np.isfinite(numbers).mean()
    if share > 0.5:  # a text among numbers is a mistake, not a category
        return "positive" if (numbers[np.isfinite(numbers)] > 0).all() else "continuous"
    if levels > _FEW_LEVELS:
        raise ValueError(
            f"columns: {column} of {table.path} contains {levels} different texts, such as "
            f"{texts[0]!r}; declare it categorical in kinds, or list in columns only those to "
            "read."
        )
    return "categorical"


def _check_column_numbers(
    table: Table, column: str, texts: Text, numbers: Numbers, kind: AttributeKind
) -> Numbers:
    valid = np.isfinite(numbers) & ((numbers > 0) if kind == "positive" else True)
    if not valid.all():
        row = int(valid.argmin())
        expected = "a positive number" if np.isfinite(numbers[row]) else "a number"
        raise ValueError(
            f"columns: {table.where(row)}: expected {expected} in {column}, but got "
            f"{texts[row]!r}; correct it, or declare {column} of another kind in kinds."
        )
    size = np.abs(numbers)
    fits = ((size >= _SMALLEST) | (size == 0)) & (size <= _LARGEST)
    if not fits.all():
        row = int(fits.argmin())
        raise ValueError(
            f"columns: {table.where(row)}: {texts[row]!r} in {column} is outside the range of "
            f"single precision, absolute values from {_SMALLEST:.0e} to {_LARGEST:.0e}; correct "
            "it, or convert the column to another unit."
        )
    return numbers


def _level_name(level: str | float) -> str:
    """The name of a class: the text of the table, whole numbers without a point."""
    if isinstance(level, str):
        return level
    return str(int(level)) if level.is_integer() else repr(level)


def _classes(
    table: Table,
    column: str,
    texts: Text,
    numbers: Numbers,
    training: NDArray[np.bool_],
    kind: AttributeKind,
) -> tuple[tuple[str, ...], Numbers]:
    """The levels, and the index of the level of each row."""
    cells = texts.astype(str) if np.isnan(numbers).any() else numbers
    levels = np.unique(cells[training])
    if kind == "binary" and len(levels) > 2:
        raise ValueError(
            f"kinds: {column} of {table.path} should be binary, but it contains {len(levels)} "
            f"different values, {levels[0]}, {levels[1]} and {levels[2]} among them; declare it "
            "categorical."
        )
    seen = np.isin(cells, levels)
    if not seen.all():
        row = int(seen.argmin())
        raise ValueError(
            f"columns: {table.where(row)}: {texts[row]!r} in {column} does not occur in any row "
            "of the training split, so nothing can be learned about it; remove the row, or "
            "stratify the split by this column."
        )
    shown = tuple(_level_name(each) for each in levels.tolist())
    return shown, np.searchsorted(levels, cells).astype(np.float64)


if TYPE_CHECKING:
    import pandas as pd


Text = NDArray[np.object_]
"""A column of texts, ``(N,)``."""

MISSING = ("", "na", "nan", "n/a", "null", "none")
"""Texts of cells without a value, in lower case."""

_NAMELESS = re.compile(r"(Unnamed: \d+)?")
"""Names of columns without a name, also after pandas has rewritten them."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Table:
    """A table of subjects, with texts as cells; empty cells are empty texts.

    Attributes:
        path: The file.
        columns: Name to texts ``(N,)``, in the order of the file.
        identifier: The column with the identifiers of the subjects.
        kept: Row numbers in the file, from 0; None for all rows.
    """

    path: Path
    columns: Mapping[str, Text]
    identifier: str
    kept: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.columns[self.identifier])

    def __getitem__(self, column: str) -> Text:
        """A column, ``(N,)``."""
        return self.columns[column]

    def where(self, row: int) -> str:
        """Describe a row for messages: its number, the file and the subject."""
        subject = self.columns[self.identifier][row]
        return f"row {self.number(row)} of {self.path.name} ({self.identifier} {subject})"

    def number(self, row: int) -> int:
        """The row number in the file, from 1 below the header."""
        return 1 + (row if self.kept is None else int(self.kept[row]))

    def complete(self, columns: Sequence[str]) -> Table:
        """Keep the rows that have a value in each of the given columns.

        Raises:
            ValueError: If a column is missing, or no row is complete.

        Example:
            >>> ages = np.array(["50", "NA", "61"], dtype=object)
            >>> table = Table(Path("subjects.csv"), {"id": ages, "age": ages}, "id")
            >>> table.complete(["age"]).where(1)
            'row 3 of subjects.csv (id 61)'
        """
        self.require("columns", columns)
        has_all = np.ones(len(self), dtype=np.bool_)
        for column in columns:
            has_all &= np.array([text.lower() not in MISSING for text in self.columns[column]])
        if not has_all.any():
            raise ValueError(
                f"missing: no row of {self.path} has a value in each of {', '.join(columns)}; name "
                "the columns that are needed in columns."
            )
        rows = np.flatnonzero(has_all)
        kept = {name: texts[rows] for name, texts in self.columns.items()}
        return replace(self, columns=kept, kept=rows if self.kept is None else self.kept[rows])

    def require(self, argument: str, columns: Sequence[str]) -> None:
        """Raise ValueError, naming ``argument``, unless the table has the given columns."""
        for column in columns:
            if column not in self.columns:
                close = difflib.get_close_matches(column, list(self.columns), n=1)
                meant = f"; did you mean {close[0]!r}?" if close else "."
                raise ValueError(
                    f"{argument}: {self.path} has no column {column!r}; it has "
                    f"{', '.join(self.columns)}{meant}"
                )

    def first_twice(self, columns: Sequence[str]) -> tuple[int, int] | None:
        """The first two rows that agree in the given columns, (earlier, later); None if none do."""
        seen: dict[tuple[str, ...], int] = {}
        keys = zip(*(self.columns[column] for column in columns), strict=True)
        for row, key in enumerate(keys):
            earlier = seen.setdefault(key, row)
            if earlier != row:
                return earlier, row
        return None


def read_table(path: str | Path, identifier: str, visits: Sequence[str] = ()) -> Table:
    """Read a table and check the identifiers of its rows.

    Columns without a name, such as row numbers written by pandas, are ignored.

    Args:
        path: CSV, TSV or Parquet file with a row per subject, or per visit of a subject.
        identifier: The column with the identifiers of the subjects, read as text with leading
            zeros.
        visits: Columns that distinguish the rows of a subject.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not such a table or has no row, a column or an identifier is
            missing, identifiers are floating-point numbers, two columns have the same name, or two
            rows belong to the same visit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"table: {path} is missing, or not a file.")
    frame = _read_frame(path)
    frame = frame.rename(columns=lambda name: str(name).strip())
    frame = frame.loc[:, [_NAMELESS.fullmatch(name) is None for name in frame]]
    _check_column_names(path, frame)
    if identifier in frame and frame[identifier].dtype.kind == "f":
        raise ValueError(
            f"identifier: the column {identifier} of {path} should contain texts or whole "
            "numbers, but it contains floating-point numbers, which cannot represent long "
            "identifiers exactly; store it as text, and without empty cells."
        )
    table = Table(path, {str(name): _texts(frame[name]) for name in frame}, identifier)
    table.require("identifier", [identifier])
    table.require("visits", visits)
    _check_rows(table, visits)
    return table


def _read_frame(path: Path) -> pd.DataFrame:
    # Imported here, because it is slow to import.
    import pandas as pd

    suffix = path.suffix.lower()
    if suffix not in (*_SEPARATORS, ".parquet"):
        raise ValueError(f"table: expected a .csv, .tsv or .parquet file, but got {path}.")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        return _read_text(path, _SEPARATORS[suffix])
    except Exception as error:  # broken tables cause many types of error
        raise ValueError(
            f"table: {path} cannot be read as a table ({str(error).strip()}); expected a first "
            "line with the names of the columns, and no more cells in any other one."
        ) from None


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    import pandas as pd

    # The header is read as a row, so that duplicate names stay unchanged, and a row that is longer
    # than the header raises an error instead of shifting the columns.
    lines = pd.read_csv(
        path, sep=separator, header=None, dtype=str, na_filter=False, encoding="utf-8-sig"
    )
    return lines[1:].set_axis(lines.iloc[0], axis="columns")


def _check_column_names(path: Path, frame: pd.DataFrame) -> None:
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(
            f"table: {path} has several columns {str(twice[0])!r}; rename or remove all but one."
        )


def _texts(column: pd.Series) -> Text:
    missing = column.isna().to_numpy(dtype=bool)
    cells = column.to_numpy(dtype=object)
    texts = ["" if gone else str(cell).strip() for cell, gone in zip(cells, missing, strict=True)]
    return np.array(texts, dtype=object)


def _check_rows(table: Table, visits: Sequence[str]) -> None:
    if not len(table):
        raise ValueError(f"table: {table.path} should have a row for each subject, but has none.")
    for row, subject in enumerate(table[table.identifier]):
        if not subject:
            raise ValueError(
                f"identifier: {table.where(row)}: expected an identifier, but the cell is empty."
            )
    twice = table.first_twice([table.identifier, *visits])
    if twice is not None:
        earlier, row = twice
        columns = " and ".join([table.identifier, *visits])
        raise ValueError(
            f"identifier: {table.where(row)} has the same {columns} as row "
            f"{table.number(earlier)}; remove one of them, or list the columns that "
            "distinguish visits in visits."
        )


def write_table(
    path: Path, columns: Mapping[str, Any], trim: Literal["-", "0"] = "-", index: str | None = None
) -> None:
    """Write a CSV file, in which float32 numbers have their shortest decimals.

    Args:
        path: The file, in an existing folder; it appears when it is complete.
        columns: ``(N,)`` each.
        trim: ``"0"`` writes whole numbers with a decimal point and a zero.
        index: Name of a first column of row numbers; None for none.
    """
    import pandas as pd

    texts = {
        name: [
            np.format_float_positional(each, trim=trim) if isinstance(each, np.float32) else each
            for each in values
        ]
        for name, values in columns.items()
    }
    frame = pd.DataFrame(texts)
    with new_file(path) as temporary:
        frame.to_csv(temporary, index=index is not None, index_label=index, lineterminator="\n")
