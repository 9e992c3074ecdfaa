"""The fingerprint of a data set: what a plan has to know about a table and its images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepscm_pl.data.cohort import find_sources
from deepscm_pl.data.tables import MISSING_WORDS, Table, TableFormat, read_table
from deepscm_pl.data.tables.delimited import ASSUMED
from deepscm_pl.files import new_file
from deepscm_pl.planning.columns import ColumnFingerprint, describe_column, variable_name
from deepscm_pl.planning.pictures import ImageFingerprint, describe_images

__all__ = ["ColumnFingerprint", "Fingerprint", "ImageFingerprint", "read_fingerprint"]

_PACKAGE = "deepscm_pl"
_MOST_COLUMNS = 2_000
_FEWEST_ROWS = 20
_HEAD_BYTES = 2**20


@dataclass(frozen=True)
class Fingerprint:
    """A table, its columns and its images.

    Attributes:
        table: The file.
        size: Its size in bytes.
        modified: Time of its modification, in nanoseconds.
        rows: Number of rows.
        columns: The columns, in the order of the table.
        images: The image files; None without.
        identifier: Column with the identifiers of units, such as persons; None for row numbers.
        units: Number of units, which rows without an identifier are themselves.
        visits: Columns that distinguish the rows of a unit.
        sheet: Sheet of an Excel workbook.
        encoding: Encoding of the text, if it was given.
        assumed_encoding: Encoding that was assumed, because the text is not UTF-8.
        missing_words: Words that mean a missing value.
        training_rows: Number of rows for training, if a column divides the rows into splits.
        version: Version of this package.
    """

    table: str
    size: int
    modified: int
    rows: int
    columns: tuple[ColumnFingerprint, ...]
    images: ImageFingerprint | None = None
    identifier: str | None = None
    units: int = 0
    visits: tuple[str, ...] = ()
    sheet: str | None = None
    encoding: str | None = None
    assumed_encoding: str | None = None
    missing_words: tuple[str, ...] = MISSING_WORDS
    training_rows: int | None = None
    version: str = field(default_factory=lambda: version(_PACKAGE))

    @property
    def variables(self) -> dict[str, ColumnFingerprint]:
        """The columns that can be variables, by the names of the variables."""
        return {each.variable: each for each in self.columns if each.is_variable}

    def summary(self) -> str:
        """Return a line with the number of rows, and a line for each column with its kind."""
        unit = f" of {self.units:,} units ({self.identifier})" if self.identifier else ""
        assumed = f", not UTF-8, read as {self.assumed_encoding}" if self.assumed_encoding else ""
        head = f"{self.table}: {self.rows:,} rows{unit}, {len(self.columns)} columns{assumed}"
        images = [] if self.images is None else [f"  {self.images}"]
        return "\n".join([head, *(f"  {each}" for each in self.columns), *images])

    def write(self, path: Path) -> None:
        """Write the fingerprint as JSON."""
        with new_file(path) as temporary:
            text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
            temporary.write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fingerprint | None:
        """Read a fingerprint; None if the file is missing, broken, or of another version."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            columns = tuple(
                ColumnFingerprint(**each | {"levels": tuple(each["levels"])})
                for each in found["columns"]
            )
            images = found["images"] and ImageFingerprint(**_with_tuples(found["images"]))
            made = cls(**_with_tuples(found) | {"columns": columns, "images": images})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return made if made.version == version(_PACKAGE) else None


def _with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def read_fingerprint(
    table: Path,
    images: str | None = None,
    identifier: str | None = None,
    visits: Sequence[str] = (),
    sheet: str | None = None,
    cache: Path | None = None,
    encoding: str | None = None,
    missing_words: Sequence[str] = MISSING_WORDS,
) -> Fingerprint:
    """Describe a table and its images.

    Args:
        table: The file.
        images: Column with the paths of images, or a pattern such as ``{id}.png``, relative to the
            folder of the table.
        identifier: Column with the identifiers of units; None to find one by its name and values.
        visits: Columns that distinguish the rows of a unit.
        sheet: Sheet of an Excel workbook; None for the only one.
        cache: A JSON file; a fingerprint of the same state of the table with the same options is
            taken from it, and a new one is written to it.
        encoding: Encoding of the text; None to find it out.
        missing_words: Words that mean a missing value, as do empty cells.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If the table has too few rows, too many columns or no usable column, a column is
            unknown, or an image cannot be read.
    """
    if not table.is_file():
        raise FileNotFoundError(f"table: {table} is missing, or not a file.")
    status = table.stat()
    options = [images, identifier, sheet, *visits]
    format = TableFormat(sheet=sheet, encoding=encoding, missing_words=missing_words)
    cached = None if cache is None else Fingerprint.read(cache)
    if (
        cached is not None
        and _is_current(cached, status.st_size, status.st_mtime_ns, options)
        and (cached.encoding, cached.missing_words) == (encoding, format.missing_words)
    ):
        return cached
    read = _read_checked(table, format)
    columns = _describe(read)
    _check_variables(table, columns, images is not None)
    read.require("visits", visits)
    read.require("identifier", [identifier] if identifier else [])
    found, units, visits = _find_units(read, columns, identifier, visits)
    made = Fingerprint(
        table=str(table),
        size=status.st_size,
        modified=status.st_mtime_ns,
        rows=len(read),
        columns=tuple(columns),
        images=None if images is None else _describe_images(read, images),
        identifier=found,
        units=units,
        visits=tuple(visits),
        sheet=sheet,
        encoding=encoding,
        assumed_encoding=ASSUMED if not encoding and ASSUMED in read.notes else None,
        missing_words=tuple(format.missing_words),
        training_rows=_training_rows(read, columns),
    )
    if cache is not None:
        made.write(cache)
    return made


def _read_checked(table: Path, format: TableFormat) -> Table:
    """Read a table with neither too many columns nor too few rows."""
    _check_width(table)
    read = read_table(table, format)
    _check_number_of_columns(table, len(read.columns))
    if len(read) < _FEWEST_ROWS:
        raise ValueError(
            f"table: {table} has {len(read)} rows, but a training, a validation and a test split "
            f"need at least {_FEWEST_ROWS}; collect more."
        )
    return read


def _is_current(
    cached: Fingerprint, size: int, modified: int, options: Sequence[str | None]
) -> bool:
    images, identifier, sheet, *visits = options
    pattern = None if cached.images is None else cached.images.pattern
    return (
        (cached.size, cached.modified) == (size, modified)
        and pattern in (images, f"{{{images}}}")
        and identifier in (None, cached.identifier)
        and tuple(visits) in ((), cached.visits)
        and sheet == cached.sheet
    )


def _check_width(table: Path) -> None:
    """Raise ValueError if a table of text has too many columns, before it is read as a whole."""
    if table.suffix.lower() in (".parquet", ".xlsx", ".xls"):
        return
    with table.open("rb") as file:
        head = file.read(_HEAD_BYTES).split(b"\n", 1)[0]
    if not head.strip():
        raise ValueError(f"table: {table} is empty; expected names of columns in its first line.")
    separators = max(head.count(each) for each in (b",", b";", b"\t", b"|"))
    _check_number_of_columns(table, separators + 1, at_least=len(head) == _HEAD_BYTES)


def _check_number_of_columns(table: Path, number: int, at_least: bool = False) -> None:
    if number > _MOST_COLUMNS or at_least:
        raise ValueError(
            f"table: {table} has {'more than ' if at_least else ''}{number:,} columns, but "
            f"expected at most {_MOST_COLUMNS:,}; write a table of the columns of your graph."
        )


def _check_variables(table: Path, columns: Sequence[ColumnFingerprint], has_images: bool) -> None:
    """Raise ValueError unless there are two variables, which an image may be."""
    variables = [each.name for each in columns if each.is_variable]
    if len(variables) + has_images >= 2:
        return
    others = [f"{each.name} is {each.kind} ({each.reason})" for each in columns]
    shown = "; ".join([each for each in others if each.split()[0] not in variables][:3])
    raise ValueError(
        f"table: {table}: expected at least two columns that can be variables, one of which may "
        f"cause another, but got {', '.join(variables) or 'none'}"
        f"{f', because {shown}' if shown else ''}; add columns."
    )


def _describe(table: Table) -> list[ColumnFingerprint]:
    taken: list[str] = []
    described = []
    for name in table.columns:
        variable, unit = variable_name(name, taken)
        taken.append(variable)
        described.append(describe_column(table, name, variable, unit))
    return described


def _find_units(
    table: Table,
    columns: Sequence[ColumnFingerprint],
    identifier: str | None,
    visits: Sequence[str],
) -> tuple[str | None, int, Sequence[str]]:
    """The identifier of units, their number, and what distinguishes the rows of one."""
    identifiers = (each.name for each in columns if each.kind == "identifier")
    found = identifier or next(identifiers, None)
    units = len(set(table[found])) if found else len(table)
    if found and units < len(table):
        visits = visits or _find_visits(table, columns, found)
    table.identified(found, visits)
    return found, units, visits


def _training_rows(table: Table, columns: Sequence[ColumnFingerprint]) -> int | None:
    """The number of rows for training, if a column divides the rows into all three splits."""
    for each in columns:
        if each.kind == "splits" and len(each.levels) == 3:
            return int((table[each.name] == "train").sum())
    return None


_VISITS = (
    re.compile(r"(.*[_ ])?(visit|session|ses|scan|wave|timepoint|time|run|round)s?([_ ].*)?"),
    re.compile(r"(.*[_ ])?(date|year|month|day|age)s?([_ ].*)?"),
)


def _find_visits(
    table: Table, columns: Sequence[ColumnFingerprint], identifier: str
) -> tuple[str, ...]:
    """The column that distinguishes the rows of a unit, by its name."""
    for pattern in _VISITS:
        for name in (each.name for each in columns):
            if pattern.fullmatch(name.lower()) and not table.first_twice([identifier, name]):
                return (name,)
    raise ValueError(
        f"visits: several rows of {table.path} have the same {identifier}; name the column that "
        "distinguishes them, such as --visits session, or another --identifier."
    )


def _describe_images(table: Table, images: str) -> ImageFingerprint:
    pattern = f"{{{images}}}" if images in table.columns else images
    sources = find_sources(table, table.path.parent, pattern)
    return describe_images(pattern, [each.path for each in sources])
