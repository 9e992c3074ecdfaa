"""Tables whose files store types: Parquet and Excel."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepscm_pl.checks import nearest
from deepscm_pl.data.tables.raw import RawTable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["is_excel", "is_parquet", "read_excel", "read_parquet"]


def is_parquet(content: bytes) -> bool:
    """Whether a file begins as Parquet does."""
    return content.startswith(b"PAR1")


def is_excel(content: bytes) -> bool:
    """Whether a file is a workbook of Excel (.xlsx, .xlsm)."""
    if not content.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except zipfile.BadZipFile:
        return True  # openpyxl describes what is broken


def read_parquet(where: str, path: Path) -> RawTable:
    """Read a Parquet file.

    Levels of the index become columns, except numbers of rows without a name; names of several
    levels are joined by underscores.

    Raises:
        ValueError: If the file is broken, or a cell is a list or another structure.
    """
    # Imported here, because it is slow to import.
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # broken files cause many types of error
        raise ValueError(f"{where}: the Parquet file cannot be read ({error}).") from None
    named = [name is not None for name in frame.index.names]
    if any(named) or frame.index.dtype.kind not in "iu":
        frame = frame.reset_index()
    header = [_joined(name) for name in frame.columns]
    columns = [_texts(where, name, frame.iloc[:, position]) for position, name in enumerate(header)]
    floats = {
        name
        for position, name in enumerate(header)
        if getattr(frame.iloc[:, position].dtype, "kind", "") == "f"
    }
    rows = list(zip(*columns, strict=True)) if columns else []
    return RawTable(header, rows, range(1, len(rows) + 1), "row", frozenset(floats))


def _joined(name: Any) -> str:
    parts = [str(part).strip() for part in name] if isinstance(name, tuple) else [str(name)]
    return "_".join(part for part in parts if part)


def _texts(where: str, name: str, column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy(dtype=bool)
    cells = column.to_numpy(dtype=object)
    texts = []
    for row, (cell, gone) in enumerate(zip(cells, missing, strict=True), 1):
        if not gone and (hasattr(cell, "__len__") and not isinstance(cell, str)):
            raise ValueError(
                f"{where}, row {row}: expected a number or a text in {name}, but got a "
                f"{type(cell).__name__}; store one value a cell."
            )
        texts.append("" if gone else str(cell).strip())
    return texts


def read_excel(where: str, content: bytes, sheet: str | None, header_line: int) -> RawTable:
    """Read a sheet of an Excel workbook; empty rows are omitted.

    Args:
        where: The setting and the file, for messages.
        content: The workbook.
        sheet: Name of the sheet; None if only one contains anything.
        header_line: Row of the header, from 1.

    Raises:
        ImportError: If openpyxl is not installed.
        ValueError: If the workbook is broken, the sheet does not exist or is one of several, it is
            empty, or a cell holds an error or a formula without a stored value.
    """
    try:
        # Imported here, because it is an optional dependency.
        import openpyxl  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            f"{where}: reading Excel needs openpyxl; run pip install deepscm_pl[excel], or save "
            "the table as CSV."
        ) from None
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(content))
    except Exception as error:  # broken files cause many types of error
        raise ValueError(
            f"{where}: the Excel workbook cannot be read ({error}); save it again, without a "
            "password."
        ) from None
    sheets = {each.title: each for each in book.worksheets}
    title = _chosen(where, sheets, sheet)
    rows = _cells(where, sheets[title], formulas[title], header_line)
    if not rows:
        raise ValueError(
            f"{where}: expected a row with the names of the columns and a row for each "
            f"observation, but the sheet {title} is empty."
        )
    (_, header), *others = rows
    names = [_excel_text(cell) for cell in header]
    floats = {
        name
        for position, name in enumerate(names)
        if any(isinstance(row[position], float) for _, row in others if position < len(row))
    }
    return RawTable(
        names,
        [[_excel_text(cell) for cell in row] for _, row in others],
        [number for number, _ in others],
        "row",
        frozenset(floats),
        notes=(f"sheet {title}",),
    )


def _chosen(where: str, sheets: dict[str, Any], sheet: str | None) -> str:
    if sheet is None:
        filled = [
            title for title, each in sheets.items() if each.max_row > 1 or each.max_column > 1
        ]
        if len(filled) > 1:
            raise ValueError(
                f"{where}: expected one sheet, but the workbook has {', '.join(filled)}; set sheet "
                "to the one to read."
            )
        return (filled or list(sheets))[0]
    if sheet not in sheets:
        meant = nearest(sheet, sheets, otherwise=".")
        raise ValueError(
            f"sheet: {where} has no sheet {sheet!r}; it has {', '.join(sheets)}{meant}"
        )
    return sheet


def _cells(where: str, values: Any, formulas: Any, header_line: int) -> list[tuple[int, list[Any]]]:
    """The rows that are not empty, padded to the width of the header, with their numbers."""
    found: list[tuple[int, list[Any]]] = []
    pairs = zip(values.iter_rows(), formulas.iter_rows(), strict=True)
    for number, (row, sources) in enumerate(pairs, 1):
        if number < header_line:
            continue
        for cell, source in zip(row, sources, strict=True):
            if cell.value is None and source.value is not None:
                raise ValueError(
                    f"{where}, row {number}: {cell.coordinate} is a formula without a stored "
                    "value; open the workbook in Excel and save it, or store values."
                )
            if cell.data_type == "e":
                raise ValueError(
                    f"{where}, row {number}: expected a value in {cell.coordinate}, but got the "
                    f"error {cell.value}; correct it, or empty the cell."
                )
        cells = [cell.value for cell in row]
        width = max((k for k, cell in enumerate(cells, 1) if cell is not None), default=0)
        if width:
            wanted = width if not found else max(width, len(found[0][1]))
            found.append((number, (cells + [None] * wanted)[:wanted]))
    return found


def _excel_text(cell: Any) -> str:
    if cell is None:
        return ""
    # A date without a time of day is shown as a date.
    return str(cell).strip().removesuffix(" 00:00:00")
