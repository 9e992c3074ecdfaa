"""The cells of a table file, before their meaning is considered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["RawTable", "checked_rows"]

_NAMELESS = re.compile(r"(Unnamed: \d+)?")
"""Names of columns without a name, also after pandas has rewritten them."""


@dataclass(frozen=True)
class RawTable:
    """The texts of a file.

    Attributes:
        header: C names, without blanks around them; empty for columns without a name.
        rows: N rows of C cells.
        lines: The number of each row in the file, N.
        counted: What the numbers count.
        floats: Columns that the file stores as floating-point numbers.
        separator: The character between cells; None in files that store types.
        notes: Decisions of the reader, for people.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]
    counted: Literal["line", "row"]
    floats: frozenset[str] = frozenset()
    separator: str | None = None
    notes: tuple[str, ...] = ()


def checked_rows(where: str, raw: RawTable, row_names: str | None) -> RawTable:
    """Check that each row has a cell for each name.

    Empty cells beyond the header are removed.

    Args:
        where: The setting and the file, for messages.
        raw: The table.
        row_names: Name of a first column that the header lacks; None if it lacks none.

    Raises:
        ValueError: If a row has more or fewer cells.
    """
    header = [" ".join(name.replace("\ufeff", "").split()) for name in raw.header]
    header = ["" if _NAMELESS.fullmatch(name) else name for name in header]
    if row_names is not None:
        header = [row_names, *header]
    width = len(header)
    rows = [
        row if len(row) <= width or any(map(str.strip, row[width:])) else row[:width]
        for row in raw.rows
    ]
    for number, row in zip(raw.lines, rows, strict=True):
        if len(row) != width:
            shifted = all(len(each) == width + 1 for each in rows)
            raise ValueError(
                f"{where}, {raw.counted} {number}: expected {width} cells, one for each name in "
                f"the header, but got {len(row)}; "
                f"{_remedy(shifted, len(row) > width, raw.separator)}."
            )
    return replace(raw, header=header, rows=rows)


def _remedy(shifted: bool, long: bool, separator: str | None) -> str:
    if not long:
        return "complete the row, with empty cells for missing values"
    between = "" if separator is None else f", {separator!r}"
    quote = f"quote cells that contain a separator{between}, such as numbers with a decimal comma"
    if shifted:
        return f"{quote}, or, if the first cells are names of rows, name their column in row_names"
    return f"{quote}, or remove the surplus cells"
