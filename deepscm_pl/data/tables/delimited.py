"""Tables of text: encodings, separators, quotation marks and line numbers."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence

from deepscm_pl.data.tables.numbers import is_number
from deepscm_pl.data.tables.raw import RawTable
from deepscm_pl.escaping import from_spreadsheet

__all__ = ["ASSUMED", "decoded", "decompressed", "parsed"]

ASSUMED = "Windows-1252"
"""Encoding of texts that have no byte order mark and are not UTF-8."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins like that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks and their encodings."""

_FOREIGN = {
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as .xlsx or CSV",
    b"PK\x03\x04": "a ZIP archive; extract it, or save a spreadsheet as .xlsx or CSV",
    b"BZh": "compressed by bzip2; decompress it",
    b"\xfd7zXZ": "compressed by xz; decompress it",
    b"(\xb5/\xfd": "compressed by zstd; decompress it",
    b"\x89PNG": "a picture; name the table",
    b"\xff\xd8\xff": "a picture; name the table",
    b"\x89HDF": "an HDF5 file; save the table as CSV or Parquet",
    b"%PDF": "a PDF document; save the table as CSV",
    b"$FL": "an SPSS file; save it as CSV",
    b"<stata_dta>": "a Stata file; save it as CSV",
    b"SQLite": "a database; save the table as CSV",
    b"<!doctype": "a web page, perhaps of a login or an error; get the file again",
    b"<html": "a web page, perhaps of a login or an error; get the file again",
    b"<?xml": "an XML document; save the table as CSV",
    b"{\\rtf": "an RTF document; save it as plain text",
    b"version https://git-lfs": "a pointer of Git LFS; get the file with git lfs pull",
}
"""First bytes of files that are no tables, in lower case, and the remedies."""

_MOST_BYTES = 2**32
"""Size up to which a compressed table is read."""

_SEPARATORS = (",", ";", "\t", "|")

_SAMPLE = 2**16
"""Characters from which a separator is chosen."""

_HINT = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
"""A first line in which Excel notes the separator."""

_CONTROL = re.compile("[\0-\x08\x0e-\x19\x1b-\x1f]")


def decompressed(where: str, content: bytes) -> bytes:
    """The content of a file, decompressed if it is compressed by gzip.

    Raises:
        ValueError: If it is broken, larger than 4 GiB, or of a format without tables.
    """
    if content.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{where}: expected a complete gzip file, but it is broken ({error}); get it again."
            ) from None
        if len(content) > _MOST_BYTES:
            raise ValueError(f"{where}: expected at most 4 GiB of text; split the table.")
    start = content[:32].lstrip().lower()
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic.lower()):
            raise ValueError(f"{where}: expected a table, but it is {kind}.")
    return content


def decoded(where: str, content: bytes, encoding: str | None) -> tuple[str, str]:
    """Decode a text, and return it with its encoding.

    Without a given encoding, a byte order mark or the zeros of UTF-16 decide; other texts are UTF-8
    or, if they are not, Windows-1252, which includes the printable characters of Latin-1.

    Raises:
        ValueError: If the text has another encoding, or is none.
    """
    found = encoding or _guess(content)
    try:
        text = content.decode(found)
    except LookupError:
        raise ValueError(
            f"encoding: expected the name of an encoding, such as utf-8 or latin-1, but got "
            f"{encoding!r}."
        ) from None
    except UnicodeDecodeError as error:
        if encoding is None and found == "utf-8" and not _is_mostly_utf8(content):
            return _western(where, content), ASSUMED
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{where}, line {line}: expected text in {found}, but got the byte "
            f"{content[error.start]:#04x}; set encoding to that of the file."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(
            f"{where}, line {line}: expected text, but got the character 0; it is no table of "
            "text, or of another encoding: set encoding."
        )
    return text.removeprefix("﻿"), found


def _guess(content: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    sample = content[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if max(even, odd) > len(sample) // 8 and min(even, odd) < max(even, odd) // 4:
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def _is_mostly_utf8(content: bytes) -> bool:
    """Whether most characters outside ASCII are complete in UTF-8, so that others are damaged."""
    text = content.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    return sum(not character.isascii() for character in text) > 2 * damaged


def _western(where: str, content: bytes) -> str:
    """Decode a text of Windows-1252."""
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
    else:
        control = _CONTROL.search(text)
        if control is None:
            return text
        line, byte = text[: control.start()].count("\n") + 1, ord(control[0])
    raise ValueError(
        f"{where}, line {line}: expected text in UTF-8 or Windows-1252, but got the byte "
        f"{byte:#04x}; set encoding to that of the file, or name a table."
    )


def parsed(
    where: str, text: str, separator: str | None, header_line: int, lacks_name: bool = False
) -> RawTable:
    """Parse a text as a header and rows; empty lines are omitted.

    Args:
        where: The setting and the file, for messages.
        text: The content of the file.
        separator: Character between cells, ``" "`` for runs of blanks; None to choose it.
        header_line: Line of the header, from 1.
        lacks_name: Whether the header has no name for the first column.

    Raises:
        ValueError: If a quotation mark is not closed, or there is no header.
    """
    lines = _lines(text)
    hint = _HINT.fullmatch(lines[0].strip("\r\n")) if lines and header_line == 1 else None
    start = header_line - 1 + (hint is not None)
    lines = lines[start:]
    suggested = hint[1] if hint is not None else None
    between = separator or suggested or _choose_separator(lines, int(lacks_name))
    try:
        records = list(_records(where, lines, start, between))
    except ValueError:
        # Blanks may follow a quoted cell, which the csv module does not accept.
        trailing = re.compile(rf'" +(?=[{re.escape(between)}\r\n]|$)')
        trimmed = [trailing.sub('"', line) if line.count('"') % 2 == 0 else line for line in lines]
        records = list(_records(where, trimmed, start, between))
    if not records:
        raise ValueError(
            f"{where}: expected a line with the names of the columns and a row for each "
            "observation, but it is empty."
        )
    (_, header), *others = records
    return RawTable(
        header=[_cell(name) for name in header],
        rows=[[_cell(each) for each in row] for _, row in others],
        lines=[number for number, _ in others],
        counted="line",
        separator=between,
        notes=(f"cells separated by {_NAMES.get(between, between)}",),
    )


_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "blanks"}


def _lines(text: str) -> list[str]:
    # In contrast to str.splitlines, only line feeds and carriage returns end a line.
    return io.StringIO(text.rstrip("\x1a"), newline="").readlines()


def _cell(text: str) -> str:
    return (from_spreadsheet(text) if "'" in text else text).strip()


def _records(
    where: str, lines: Sequence[str], start: int, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """The records that are not empty, each with the number of its first line in the file."""
    if separator == " ":
        for number, line in enumerate(lines, start + 1):
            if cells := line.split():
                yield number, cells
        return
    reader = csv.reader(iter(lines), delimiter=separator, strict=True, skipinitialspace=True)
    while True:
        first = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if '"' not in "".join(lines[first : reader.line_num]) and "limit" in str(error):
                raise ValueError(
                    f"{where}, line {start + reader.line_num} is no table: a cell has more than "
                    f"{csv.field_size_limit():,} characters."
                ) from None
            number = start + first + _opening(lines[first : reader.line_num], separator)
            raise ValueError(
                f"{where}, line {number}: a quotation mark opens a cell, but does not close at "
                "the end of the cell; close it, or write two for one inside a quoted cell."
            ) from None
        if any(map(str.strip, cells)):
            yield start + first + 1, cells


def _opening(lines: Sequence[str], separator: str) -> int:
    """The line of the last quotation mark that opens a cell, from 1."""
    found, quoted, fresh = 1, False, True
    for number, line in enumerate(lines, 1):
        for character in line:
            if quoted:
                quoted = character != '"'
            elif fresh and character == '"':
                quoted, found = True, number
            fresh = not quoted and (character in f"{separator}\r\n" or (fresh and character == " "))
    return found


def _choose_separator(lines: Sequence[str], more: int) -> str:
    """The separator for which most rows are as long as the header, or longer by ``more`` cells."""
    size = 0
    sample: list[str] = []
    for line in lines:
        size += len(line)
        if sample and size > _SAMPLE:
            break
        sample.append(line)
    scores = {each: _fit(sample, each, more) for each in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda each: scores[each])
    if scores[best] > (0.0, 0.0, 0):
        return best
    header, *rows = [len(line.split()) for line in sample if line.strip()] or [0]
    return " " if rows and {*rows} == {header + more} != {1} else ","


def _fit(lines: Sequence[str], separator: str, more: int) -> tuple[float, float, int]:
    """How well a separator fits: rows of equal length, cells without other separators, names."""
    try:
        reader = csv.reader(iter(lines), delimiter=separator, skipinitialspace=True)
        rows = [row for row in reader if any(map(str.strip, row))]
    except csv.Error:  # an open quotation mark
        rows = [line.split(separator) for line in lines]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, 0.0, 0
    cells = [cell for row in rows[1:] for cell in row]
    others = set(_SEPARATORS) - {separator}
    clean = [not others.intersection(cell) or is_number(cell) for cell in cells]
    even = [len(row) == width + more for row in rows[1:]]
    return sum(even) / max(len(even), 1), sum(clean) / max(len(clean), 1), width
