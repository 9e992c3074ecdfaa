"""Tables of subjects, read as text so that no identifier loses a digit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MISSING", "Table", "read_table"]

Text = NDArray[np.object_]
"""A column of texts, ``(N,)``."""

MISSING = ("", "na", "nan", "n/a", "null", "none")
"""What a cell without a value says, in small letters."""

_NAMELESS = re.compile(r"(Unnamed: \d+)?")
"""What a column is called that has no name, by pandas too once it was read and written again."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Table:
    """A table of subjects: every cell a text, empty where there is none.

    Attributes:
        path: The file.
        columns: Name to texts ``(N,)``, in the order of the file.
        identifier: The column that names the subjects.
        kept: Which rows of the file these are, counted from 0; None where all are.
    """

    path: Path
    columns: Mapping[str, Text]
    identifier: str
    kept: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """N, the rows."""
        return len(self.columns[self.identifier])

    def __getitem__(self, column: str) -> Text:
        """A column, ``(N,)``."""
        return self.columns[column]

    def where(self, row: int) -> str:
        """A row as messages name it."""
        subject = self.columns[self.identifier][row]
        return f"row {self.number(row)} of {self.path.name} ({self.identifier} {subject})"

    def number(self, row: int) -> int:
        """Which row of the file a row is; the first one below the header is row 1."""
        return 1 + (row if self.kept is None else int(self.kept[row]))

    def complete(self, columns: Sequence[str]) -> Table:
        """The rows that have a value in each of the given columns.

        Args:
            columns: Their names.

        Returns:
            The table without the other rows.

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
        """Raises unless the table has the given columns.

        Args:
            argument: What names them, for the message.
            columns: Their names.

        Raises:
            ValueError: If one is missing.
        """
        for column in columns:
            if column not in self.columns:
                close = difflib.get_close_matches(column, list(self.columns), n=1)
                meant = f"; did you mean {close[0]!r}?" if close else "."
                raise ValueError(
                    f"{argument}: {self.path} has no column {column!r}; it has "
                    f"{', '.join(self.columns)}{meant}"
                )

    def first_twice(self, columns: Sequence[str]) -> tuple[int, int] | None:
        """The first row that says the same in some columns as an earlier one, and that one."""
        seen: dict[tuple[str, ...], int] = {}
        keys = zip(*(self.columns[column] for column in columns), strict=True)
        for row, key in enumerate(keys):
            earlier = seen.setdefault(key, row)
            if earlier != row:
                return earlier, row
        return None


def read_table(path: str | Path, identifier: str, visits: Sequence[str] = ()) -> Table:
    """Reads a table and checks who its rows are of.

    Args:
        path: A CSV, TSV or Parquet file with a row per subject, or per visit of a subject.
        identifier: The column that names the subjects. Leading zeros count.
        visits: Columns that tell several rows of one subject apart.

    Columns without a name, such as the row numbers that pandas writes, are left out.

    Returns:
        The table, of at least one row.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such table or has no row, a column is missing, an identifier is
            missing or a floating-point number, two columns have one name, or two rows are of the
            same visit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"table: {path} is missing, or not a file.")
    frame = _read_frame(path)
    frame = frame.rename(columns=lambda name: str(name).strip())
    frame = frame.loc[:, [_NAMELESS.fullmatch(name) is None for name in frame]]
    _check_names(path, frame)
    if identifier in frame and frame[identifier].dtype.kind == "f":
        raise ValueError(
            f"identifier: the column {identifier} of {path} should hold texts or whole numbers, "
            "but it holds floating-point numbers, which cannot tell long identifiers apart; store "
            "it as text, and without empty cells."
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
    except Exception as error:  # a broken table breaks its reader in many ways
        raise ValueError(
            f"table: {path} cannot be read as a table ({str(error).strip()}); expected a first "
            "line with the names of the columns, and no more cells in any other one."
        ) from None


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    import pandas as pd

    # Read with its header as a row like others: names that occur twice stay as they are, and a row
    # that is longer than the header is refused, instead of shifting all the others.
    lines = pd.read_csv(
        path, sep=separator, header=None, dtype=str, na_filter=False, encoding="utf-8-sig"
    )
    return lines[1:].set_axis(lines.iloc[0], axis="columns")


def _check_names(path: Path, frame: pd.DataFrame) -> None:
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(
            f"table: {path} has several columns {str(twice[0])!r}, of which only one can be meant; "
            "rename or remove the others."
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
            f"{table.number(earlier)}; remove one of them, or name the columns that tell "
            "visits apart in visits."
        )
