"""Tables with texts as cells: the one way to read them, with places for messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.checks import nearest, whole_number
from deepscm_pl.data.tables.delimited import decoded, decompressed, parsed
from deepscm_pl.data.tables.numbers import Decimal, NumberForms, is_number, read_numbers
from deepscm_pl.data.tables.raw import RawTable, checked_rows
from deepscm_pl.data.tables.typed import is_excel, is_parquet, read_excel, read_parquet

__all__ = ["MISSING_WORDS", "Table", "TableFormat", "Text", "read_table"]

Text = NDArray[np.object_]
"""A column of texts, ``(N,)``."""

MISSING_WORDS = ("NA", "N/A", "#N/A", "<NA>", "NaN", "null")
"""The words that mean a missing value by default."""

_MOST_NAMES = 20
"""Number of column names that a message lists."""


@dataclass(frozen=True, kw_only=True)
class TableFormat:
    """The format of a table.

    The content of a file decides whether it is text, Parquet or Excel; text may be compressed by
    gzip. What is None is found out from the content.

    Args:
        separator: Character between cells; ``" "`` for runs of blanks.
        decimal: ``.`` or ``,`` before the fraction of a number; the other one, blanks and
            apostrophes may separate groups of digits. None to decide for each column: numbers such
            as ``1,234``, which may be either, are refused unless other numbers of the table decide.
        encoding: Encoding of the text, such as ``utf-8`` or ``latin-1``. None for that of a byte
            order mark, UTF-8, UTF-16, or else Windows-1252, which includes Latin-1.
        sheet: Sheet of an Excel workbook; None for the only one.
        header_line: Line of the names of the columns, from 1; lines above it are ignored.
        row_names: Name for a first column that has none in the header, as R writes tables.
        missing_words: Words that mean a missing value in every column, in upper or lower case;
            empty cells always do. ``None`` and ``-`` do not by default, because they may be the
            name of a class.

    Raises:
        ValueError: If an argument is invalid.
    """

    separator: str | None = None
    decimal: Decimal | None = None
    encoding: str | None = None
    sheet: str | None = None
    header_line: int = 1
    row_names: str | None = None
    missing_words: Sequence[str] = MISSING_WORDS

    def __post_init__(self) -> None:
        if self.separator is not None and len(self.separator) != 1:
            raise ValueError(f"separator: expected one character, but got {self.separator!r}.")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal: expected '.' or ',', but got {self.decimal!r}.")
        if isinstance(self.missing_words, str):
            raise ValueError(
                f"missing_words: expected a list of words, but got {self.missing_words!r}; write "
                f"[{self.missing_words!r}]."
            )
        whole_number("header_line", self.header_line, least=1)
        object.__setattr__(self, "missing_words", tuple(map(str, self.missing_words)))

    @property
    def missing_texts(self) -> frozenset[str]:
        """The texts of missing values, in lower case."""
        return frozenset(["", *(word.strip().lower() for word in self.missing_words)])


@dataclass(frozen=True)
class Table:
    """A table with texts as cells, without blanks around them.

    Attributes:
        path: The file.
        columns: Name to texts ``(N,)``, in the order of the file.
        identifier: The column with the identifiers of the units; None for numbers of rows.
        lines: The number of each row in the file, ``(N,)``; None to count from 1.
        counted: What the numbers count.
        format: The format.
        floats: Columns that the file stores as floating-point numbers.
        notes: Decisions of the reader, for people.
    """

    path: Path
    columns: Mapping[str, Text]
    identifier: str | None = None
    lines: NDArray[np.int64] | None = None
    counted: Literal["line", "row"] = "row"
    format: TableFormat = field(default_factory=TableFormat)
    floats: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, column: str) -> Text:
        """A column, ``(N,)``."""
        return self.columns[column]

    def number(self, row: int) -> int:
        """The number of a row in the file, as an editor or a spreadsheet shows it."""
        return 1 + row if self.lines is None else int(self.lines[row])

    def where(self, row: int) -> str:
        """Describe a row for messages: its number, the file and the unit."""
        unit = "" if self.identifier is None else f" ({self.identifier} {self.unit(row)})"
        return f"{self.counted} {self.number(row)} of {self.path.name}{unit}"

    def unit(self, row: int) -> str:
        """The identifier of a row; its number from 1 if the table has no identifiers."""
        return str(self.units[row])

    @property
    def listed(self) -> str:
        """The names of the columns, for messages; only the first of many."""
        names = list(self.columns)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return ", ".join(names[:_MOST_NAMES]) + more

    @cached_property
    def units(self) -> Text:
        """The identifiers of all rows, ``(N,)``."""
        if self.identifier is None:
            return np.array([str(row + 1) for row in range(len(self))], dtype=object)
        return self.columns[self.identifier]

    def is_missing(self, column: str) -> NDArray[np.bool_]:
        """Which rows have no value in a column, ``(N,)``.

        Example:
            >>> table = Table(Path("t.csv"), {"sex": np.array(["none", "n/a", ""], dtype=object)})
            >>> table.is_missing("sex").tolist()
            [False, True, True]
        """
        words = self.format.missing_texts
        return np.array([text.lower() in words for text in self.columns[column]], dtype=np.bool_)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """The numbers of a column, ``(N,)``; NaN where a cell is missing or no number.

        Example:
            >>> table = Table(Path("t.csv"), {"age": np.array(["70,5", "", "45"], dtype=object)})
            >>> table.numbers("age").tolist()
            [70.5, nan, 45.0]
        """
        texts = self.columns[column]
        if self.format.decimal is not None:
            numbers = read_numbers(texts, self.format.decimal, is_grouped=True)
        else:
            forms = NumberForms.of(texts)
            decimal = self.decimal(column)
            grouped = forms.groups_by_point if decimal == "," else forms.groups_by_comma
            # Where points are decimal, a comma between digits can only group them.
            only_groups = decimal == "." and forms.point == 0 and forms.either > 0
            numbers = read_numbers(texts, decimal or ".", grouped > 0 or only_groups)
        numbers[self.is_missing(column)] = np.nan
        return numbers

    def decimal(self, column: str) -> Decimal | None:
        """The character before fractions in a column; None if it has none, or it is not certain."""
        if self.format.decimal is not None:
            return self.format.decimal
        forms = NumberForms.of(self.columns[column])
        if forms.decimal is None and forms.either and not self._forms.is_mixed:
            return self._forms.decimal
        return forms.decimal

    def uncertain(self, column: str) -> str | None:
        """A number in a column whose comma may be decimal or group digits; None if there is none.

        Example:
            >>> table = Table(Path("t.csv"), {"volume": np.array(["1,234", "900"], dtype=object)})
            >>> table.uncertain("volume")
            '1,234'
        """
        forms = NumberForms.of(self.columns[column])
        return forms.example if forms.either and self.decimal(column) is None else None

    @cached_property
    def _forms(self) -> NumberForms:
        return sum(map(NumberForms.of, self.columns.values()), NumberForms())

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
            has_all &= ~self.is_missing(column)
        if not has_all.any():
            raise ValueError(
                f"missing: no row of {self.path} has a value in each of {', '.join(columns)}; name "
                "the columns that are needed in columns."
            )
        return self.rows(np.flatnonzero(has_all))

    def rows(self, rows: NDArray[np.int64]) -> Table:
        """Select rows; their numbers in the file stay."""
        kept = {name: texts[rows] for name, texts in self.columns.items()}
        lines = np.arange(1, len(self) + 1) if self.lines is None else self.lines
        return replace(self, columns=kept, lines=lines[rows])

    def require(self, argument: str, columns: Sequence[str]) -> None:
        """Raise ValueError, naming ``argument``, unless the table has the given columns."""
        for column in columns:
            if column not in self.columns:
                meant = nearest(column, self.columns, otherwise=".")
                raise ValueError(
                    f"{argument}: {self.path} has no column {column!r}; it has {self.listed}{meant}"
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

    def identified(self, identifier: str | None, visits: Sequence[str] = ()) -> Table:
        """Return the table with checked identifiers of its rows.

        Args:
            identifier: Column with the identifiers of the units; None for numbers of rows.
            visits: Columns that distinguish the rows of a unit.

        Raises:
            ValueError: If a column or an identifier is missing, identifiers are floating-point
                numbers, or two rows belong to the same visit.
        """
        if identifier is None:
            return self
        table = replace(self, identifier=identifier)
        table.require("identifier", [identifier])
        table.require("visits", visits)
        if identifier in self.floats:
            raise ValueError(
                f"identifier: the column {identifier} of {self.path} should contain texts or whole "
                "numbers, but it contains floating-point numbers, which cannot represent long "
                "identifiers exactly; store it as text, and without empty cells."
            )
        for row in np.flatnonzero(table.columns[identifier] == "").tolist():
            raise ValueError(
                f"identifier: {table.where(row)}: expected an identifier, but the cell is empty."
            )
        twice = table.first_twice([identifier, *visits])
        if twice is not None:
            earlier, row = twice
            raise ValueError(
                f"identifier: {table.where(row)} has the same {' and '.join([identifier, *visits])}"
                f" as {self.counted} {table.number(earlier)}; remove one of them, or list the "
                "columns that distinguish visits in visits."
            )
        return table


def read_table(
    path: str | Path,
    format: TableFormat = TableFormat(),
    setting: str = "table",
    expected: Sequence[str] = (),
) -> Table:
    r"""Read a table with the rules for training data, observations and attributes alike.

    Names are stripped of blanks. Columns without a name, such as row numbers written by pandas, and
    empty lines are ignored. A first line that looks like data is refused, unless it has the
    expected names.

    Args:
        path: CSV, TSV or another text with separated cells, Parquet or Excel.
        format: Its format.
        setting: The setting that names the file, for messages.
        expected: Names of columns that are needed.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If an Excel workbook is read without openpyxl.
        ValueError: If the file is not a table, is broken, has no row, a row is longer or shorter
            than the header, two columns have the same name, or there are no names.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "subjects.csv"
        >>> _ = path.write_text("id ; age\n0001;70,5\n0002;45,7\n")
        >>> table = read_table(path)
        >>> table.numbers("age").tolist(), table.where(1)
        ([70.5, 45.7], 'line 3 of subjects.csv')
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{setting}: {path} is missing, or not a file.")
    where = f"{setting}: {path}"
    raw = _read(where, path, format)
    _check_header(where, raw, expected)
    named = [(position, name) for position, name in enumerate(raw.header) if name]
    names = [name for _, name in named]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{where} has several columns {twice!r}; rename or remove all but one.")
    if not len(raw.rows):
        raise ValueError(
            f"{where} should have a row for each observation, but has none below the names "
            f"{', '.join(names[:_MOST_NAMES])}."
        )
    cells = np.array(raw.rows, dtype=object)
    columns = {name: cells[:, position] for position, name in named}
    lines = np.asarray(raw.lines, dtype=np.int64)
    return Table(path, columns, None, lines, raw.counted, format, raw.floats, raw.notes)


def _read(where: str, path: Path, format: TableFormat) -> RawTable:
    content = path.read_bytes()
    if is_parquet(content):
        return checked_rows(where, read_parquet(where, path), format.row_names)
    if is_excel(content):
        raw = read_excel(where, content, format.sheet, format.header_line)
        return checked_rows(where, raw, format.row_names)
    if format.sheet is not None:
        raise ValueError(f"sheet: expected an Excel workbook, but {path} is none; leave it out.")
    text, encoding = decoded(where, decompressed(where, content), format.encoding)
    raw = parsed(where, text, format.separator, format.header_line, format.row_names is not None)
    checked = checked_rows(where, raw, format.row_names)
    return replace(checked, notes=(encoding, *checked.notes))


def _check_header(where: str, raw: RawTable, expected: Sequence[str]) -> None:
    """Refuse a first line of numbers, or one that looks like those below it."""
    names = [name for name in raw.header if name]
    if not names:
        raise ValueError(f"{where}: expected names of columns in the first line, but it has none.")
    if expected and set(expected) <= set(names):
        return
    sample = raw.rows[:200]
    columns = [[row[k] for row in sample if row[k]] for k, name in enumerate(raw.header) if name]
    evidence = [_looks_like(name, cells) for name, cells in zip(names, columns, strict=True)]
    if all(map(is_number, names)) or (True in evidence and False not in evidence):
        raise ValueError(
            f"{where}: expected names of columns in the first line, but {', '.join(names[:5])} "
            "looks like a row of data; add a line with names, or set header_line. If these are "
            "the names, list those that you need in columns."
        )


def _looks_like(name: str, cells: Sequence[str]) -> bool | None:
    """Whether a name looks like the cells below it; None if this is not certain."""
    if not cells:
        return None
    decimal = NumberForms.of(cells).decimal or "."
    numbers = read_numbers(np.array([name, *cells], dtype=object), decimal, is_grouped=False)
    if np.isfinite(numbers[1:]).all():
        low, high = numbers[1:].min(), numbers[1:].max()
        near = max(high - low, abs(low) / 2, abs(high) / 2, 1.0)
        return bool(low - near <= numbers[0] <= high + near)  # False for NaN
    if np.isfinite(numbers[0]):
        return None
    shapes = {_shape(cell) for cell in cells}
    is_alike = len(shapes) == 1 and _shape(name) in shapes and bool(re.search(r"\d", name))
    return True if name in cells or is_alike else None


def _shape(text: str) -> str:
    return re.sub(r"\d+", "0", text)
