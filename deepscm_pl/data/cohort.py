"""The rows of a table: their image files, their variables and their division into splits."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.checks import seed_number
from deepscm_pl.data.images import image_stamp, is_image
from deepscm_pl.data.tables.attributes import (
    Attribute,
    AttributeKind,
    ColumnRules,
    MissingValues,
    read_attribute,
    select_columns,
)
from deepscm_pl.data.tables.joining import joined, selected as selected_rows
from deepscm_pl.data.tables.table import Table, TableFormat, read_table

__all__ = [
    "SPLITS",
    "Cohort",
    "Division",
    "MissingValues",
    "RowSettings",
    "Source",
    "TableSettings",
    "divide_subjects",
    "find_sources",
    "pattern_columns",
    "read_cohort",
    "recorded_splits",
]

_FIELD = re.compile(r"\{([^{}]+?)(?::0(\d+))?\}")
"""A column in a pattern, and the width to which zeros pad its cells."""


@dataclass(frozen=True)
class Source:
    """An image file, with the properties by which a change is detected.

    Attributes:
        path: The file.
        name: Path relative to the root folder.
        size: Size in bytes.
        modified: Time of modification, in nanoseconds.
    """

    path: Path
    name: str
    size: int
    modified: int


def pattern_columns(pattern: str) -> list[str]:
    """The columns in a pattern.

    Example:
        >>> pattern_columns("sub-{id:03}/{visit}/anat/*.nii.gz")
        ['id', 'visit']
    """
    return [name for name, _ in _FIELD.findall(pattern)]


def find_sources(table: Table, root: Path, pattern: str) -> list[Source]:
    """Find the image file of each row.

    Args:
        table: The table.
        root: Folder of the pattern.
        pattern: Path in which ``{column}`` stands for the cell of the row, and ``{column:03}`` for
            the cell with zeros before it up to three characters, or only the name of a column; a
            glob must match one file.

    Raises:
        FileNotFoundError: If the root or an image is missing.
        ValueError: If the pattern contains no column or an unknown one, several files match it for
            a row, or two rows have the same file.
    """
    pattern, matches = _find(table, root, pattern)
    _check_found(table, root, pattern, matches)
    paths = [found[0] for found in matches]
    _check_distinct(table, paths)
    return [_source(path, root) for path in paths]


def with_images(table: Table, root: Path, patterns: Sequence[str]) -> Table:
    """Keep the rows with a file for each pattern; all rows if none has any of them."""
    for pattern in patterns:
        rows = [row for row, found in enumerate(_find(table, root, pattern)[1]) if found]
        table = table.rows(np.array(rows)) if rows else table
    return table


def _find(table: Table, root: Path, pattern: str) -> tuple[str, list[list[Path]]]:
    """The complete pattern, and the files that match it for each row."""
    names = pattern_columns(pattern)
    if not names and pattern in table.columns:
        names, pattern = [pattern], f"{{{pattern}}}"
    if not names:
        example = table.identifier or next(iter(table.columns))
        raise ValueError(
            f"images: expected a pattern that names a column of {table.path}, such as "
            f"'{{{example}}}.png', but got {pattern!r}."
        )
    table.require("images", names)
    if not root.is_dir():
        raise FileNotFoundError(f"root: {root} is missing, or not a folder.")
    return pattern, [_matches(root, _filled_in(pattern, table, row)) for row in range(len(table))]


def _filled_in(pattern: str, table: Table, row: int) -> str:
    """The pattern of a row, in which cells are matched literally."""
    return _FIELD.sub(
        lambda field: glob.escape(table[field[1]][row].zfill(int(field[2] or 0))), pattern
    )


def _matches(root: Path, pattern: str) -> list[Path]:
    # Most patterns are plain paths, for which this is faster than a search.
    plain = root / re.sub(r"\[([*?[])\]", r"\1", pattern)
    if is_image(plain):
        return [plain]
    found = glob.glob(pattern, root_dir=root, recursive=True)
    return sorted(root / name for name in found if is_image(root / name))


def _check_found(table: Table, root: Path, pattern: str, matches: list[list[Path]]) -> None:
    missing = [row for row, found in enumerate(matches) if not found]
    if missing:
        others = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"images: {table.where(missing[0])}: there is no file "
            f"{root / _filled_in(pattern, table, missing[0])}{others}; correct root or images, "
            "remove the rows, or leave them out with missing: drop."
        )
    for row, found in enumerate(matches):
        if len(found) > 1:
            raise ValueError(
                f"images: {table.where(row)}: expected one file, but {len(found)} match "
                f"{_filled_in(pattern, table, row)}, {found[0].name} and {found[1].name} among "
                "them; make the pattern narrower."
            )


def _check_distinct(table: Table, paths: list[Path]) -> None:
    seen: dict[Path, int] = {}
    for row, path in enumerate(paths):
        earlier = seen.setdefault(path, row)
        if earlier != row:
            raise ValueError(
                f"images: {table.where(row)} has the same file {path} as "
                f"{table.counted} {table.number(earlier)}; name a column in the pattern that "
                "distinguishes them."
            )


def _source(path: Path, root: Path) -> Source:
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return Source(path, name.as_posix(), *image_stamp(path))


SPLITS = ("train", "validation", "test")
"""The names of the splits."""

Splits = NDArray[np.int64]
"""The split of each row, as an index of :data:`SPLITS`."""


def recorded_splits(table: Table, column: str) -> Splits:
    """The split of each row, ``(N,)``, from a column of ``train``, ``validation`` and ``test``.

    Raises:
        ValueError: If the column is missing or contains anything else, a subject is in two splits,
            or a split is empty.
    """
    table.require("splits.column", [column])
    for row, name in enumerate(table[column]):
        if name not in SPLITS:
            raise ValueError(
                f"splits.column: {table.where(row)}: expected one of {', '.join(SPLITS)} in "
                f"{column}, but got {name!r}."
            )
    splits = np.array([SPLITS.index(name) for name in table[column]])
    _check_disjoint(table, splits)
    _check_none_is_empty(splits, f"splits.column: the column {column} of {table.path}")
    return splits


def divide_subjects(
    table: Table, fractions: Sequence[float], seed: int, stratify: Sequence[str] = ()
) -> Splits:
    """Divide subjects at random; the division depends on the seed and the subjects only.

    Subjects are shuffled within strata and dealt, stratum by stratum, to the split that is furthest
    below its share: shares are right overall and in each stratum, up to a subject or two.

    Args:
        table: The table; all rows of a subject belong to one split.
        fractions: Shares of training, validation and test.
        seed: Seed of the shuffle.
        stratify: Columns to distribute equally, by the first row of each subject; columns of more
            than four numbers are divided at their quartiles.

    Returns:
        The split of each row, ``(N,)``.

    Raises:
        ValueError: If a column is missing, the fractions are not three that sum to one, or there
            are too few subjects.

    Example:
        >>> from pathlib import Path
        >>> subjects = np.array(["a", "a", "b", "c", "d"], dtype=object)
        >>> table = Table(Path("subjects.csv"), {"id": subjects}, "id")
        >>> divide_subjects(table, (0.5, 0.25, 0.25), seed=0).tolist()
        [1, 1, 2, 0, 0]
    """
    check_fractions(fractions)
    table.require("stratify", stratify)
    _, first, subject_of_row = np.unique(
        table.units.astype(str), return_index=True, return_inverse=True
    )
    shuffled = np.random.default_rng(seed).permutation(len(first))
    groups = [_groups(table, column, first)[shuffled] for column in stratify]
    # lexsort sorts by its last key first, and is stable.
    order = shuffled[np.lexsort(groups[::-1])] if groups else shuffled
    splits = np.empty(len(first), dtype=np.int64)
    splits[order] = _deal(len(first), np.asarray(fractions, dtype=np.float64))
    _check_none_is_empty(
        splits, f"fractions: {len(first)} {_units(table)} in shares of {list(fractions)}"
    )
    return splits[subject_of_row]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless there are three positive fractions that sum to one."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions: expected three positive shares of training, validation and test that sum "
            f"to 1, but got {list(fractions)}."
        )


def _units(table: Table) -> str:
    return "rows" if table.identifier is None else "subjects"


def _groups(table: Table, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stratum of each of some rows, as a number."""
    levels, groups = np.unique(table[column][rows].astype(str), return_inverse=True)
    values = table.numbers(column)[rows]
    if len(levels) <= 4 or not np.isfinite(values).all():
        return groups
    return np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values)


def _deal(size: int, fractions: NDArray[np.float64]) -> Splits:
    """A split for each of ``size`` subjects: always the one furthest below its share."""
    splits = np.empty(size, dtype=np.int64)
    lacking = np.zeros(len(fractions))
    for position in range(size):
        lacking += fractions
        splits[position] = lacking.argmax()
        lacking[splits[position]] -= 1
    return splits


def _check_disjoint(table: Table, splits: Splits) -> None:
    found: dict[str, int] = {}
    for row, subject in enumerate(table.units):
        earlier = found.setdefault(subject, splits[row])
        if earlier != splits[row]:
            raise ValueError(
                f"splits.column: {table.where(row)} is in {SPLITS[splits[row]]}, but an earlier "
                f"row of this subject is in {SPLITS[earlier]}; put all rows of a subject into one "
                "split."
            )


def _check_none_is_empty(splits: Splits, origin: str) -> None:
    missing = [name for number, name in enumerate(SPLITS) if number not in splits]
    if missing:
        raise ValueError(
            f"{origin} should give every split a subject, but {' and '.join(missing)} would have "
            "none; assign subjects to every split."
        )


@dataclass(frozen=True)
class Cohort:
    """The rows of a table in the order training, validation, test.

    Attributes:
        identifiers: Units, such as subjects, ``(N,)``.
        visits: Units with their visits, ``(N,)``.
        attributes: The variables, N values each.
        sources: For each image variable its N files.
        counts: Number of rows of each split.
        dropped: Number of rows that were left out because of a missing value.
        without_image: Number of rows that were left out because an image is missing.
        notes: How the table was read, for people.
        has_units: Whether the table has a column of identifiers.
    """

    identifiers: NDArray[np.object_]
    visits: Sequence[str]
    attributes: tuple[Attribute, ...]
    sources: Mapping[str, tuple[Source, ...]]
    counts: tuple[int, int, int]
    dropped: int = 0
    notes: tuple[str, ...] = ()
    has_units: bool = True
    without_image: int = 0

    def summary(self) -> str:
        """Return a line with the number of rows, and a line for each variable with its kind."""
        counts = ", ".join(f"{n} {name}" for name, n in zip(SPLITS, self.counts, strict=True))
        rows = len(self.identifiers)
        units = f"{len(set(self.identifiers))} subjects in " if self.has_units else ""
        head = f"{units}{rows} rows: {counts}"
        if self.dropped:
            rows_word = "row" if self.dropped == 1 else "rows"
            head += f"; without {self.dropped} {rows_word} in which a value is missing"
        if self.without_image:
            rows_word = "row" if self.without_image == 1 else "rows"
            head += f"; without {self.without_image} {rows_word} whose image is missing"
        lines = [f"  read as {', '.join(self.notes)}"] if self.notes else []
        return "\n".join([head, *lines, *(f"  {attribute}" for attribute in self.attributes)])


@dataclass(frozen=True, kw_only=True)
class RowSettings(TableFormat):
    """The use of the columns of a table; see :class:`TableSettings`."""

    images: str | Mapping[str, str] | None = None
    identifier: str | None = None
    visits: Sequence[str] = ()
    columns: dict[str, str] | list[str] | None = None
    kinds: Mapping[str, AttributeKind] | None = None
    classes: Mapping[str, Sequence[str]] | None = None
    units: Mapping[str, str] | None = None
    missing: MissingValues = "refuse"
    join: Mapping[str, Sequence[str]] | None = None
    where: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing not in get_args(MissingValues):
            raise ValueError(
                f"missing: expected {' or '.join(get_args(MissingValues))}, but got "
                f"{self.missing!r}."
            )
        if self.visits and self.identifier is None:
            raise ValueError(
                f"visits: expected none without an identifier, but got {list(self.visits)}; name "
                "the column of the units in identifier."
            )
        object.__setattr__(self, "visits", tuple(self.visits))
        for name in ("images", "columns", "kinds", "classes", "units", "join", "where"):
            object.__setattr__(self, name, copy(getattr(self, name)))

    @property
    def file(self) -> str:
        """The file of the table, relative to the folder of the data."""
        raise NotImplementedError

    @property
    def infers_order(self) -> bool:
        """Whether classes whose names have an order are inferred to be ordinal."""
        return True

    @property
    def patterns(self) -> dict[str, str]:
        """The pattern of the files of each image variable."""
        if self.images is None:
            return {}
        return {"image": self.images} if isinstance(self.images, str) else dict(self.images)


@dataclass(frozen=True)
class TableSettings(RowSettings):
    """The table, and the use of its columns.

    Args:
        file: The table, relative to the folder of the data: CSV, TSV or another text with separated
            cells, Parquet, or Excel.
        images: Pattern of the image file of a row, relative to the folder: ``{column}`` stands for
            the cell in that column, as in ``sub-{id}/anat/*T1w.nii.gz``; a glob must match one
            file. The images become the variable ``image``. A mapping from variables to patterns for
            several, or others; None for none.
        identifier: Column with the identifiers of the units, such as subjects, read as text. All
            rows of a unit belong to one split. None if each row is a unit.
        visits: Columns that distinguish the rows of a unit.
        columns: Variable to column, or a list of columns that keep their name. None for all columns
            that no other setting names.
        kinds: Variable to ``continuous``, ``positive``, ``bounded``, ``count``, ``ordinal``,
            ``binary`` or ``categorical``; inferred for others, with a reason in the summary.
        classes: Variable to the names of its classes, in their order; the variable is ordinal, or
            binary if there are two, unless ``kinds`` has another kind.
        units: Variable to unit, such as ``mm³``.
        missing: ``refuse`` stops at a row without a value in one of ``columns``, or without its
            image; ``drop`` leaves such rows out and logs how many; ``infer`` keeps rows without a
            value, with NaN instead.
        join: Other tables, relative to the folder, and for each the columns in which its rows agree
            with those of this table, as in ``{people.csv: [id]}``. Their other columns are added.
        where: Columns, and for each the texts of the rows to keep, as in ``{view: [PA, AP]}``.
        separator: Character between cells; see :class:`~deepscm_pl.data.tables.TableFormat` for
            this and the following.
        decimal: Character before fractions.
        encoding: Encoding of the text.
        sheet: Sheet of an Excel workbook.
        header_line: Line of the names of the columns.
        row_names: Name for a first column without one.
        missing_words: Words that mean a missing value.

    Raises:
        ValueError: If a setting has an invalid value.

    Example:
        >>> TableSettings("scans.csv", images={"t1": "{id}_t1.png", "t2": "{id}_t2.png"}).patterns
        {'t1': '{id}_t1.png', 't2': '{id}_t2.png'}
    """

    file: str = "table.csv"


@dataclass(frozen=True)
class Division:
    """The division of units, such as subjects, into training, validation and test.

    Args:
        column: Column of ``train``, ``validation`` and ``test``; None for a random division.
        fractions: Shares of the splits in a random division.
        stratify: Columns that a random division distributes equally.
        seed: Seed of a random division.

    Raises:
        ValueError: If an argument is out of range, or there are both strata and a column.
    """

    column: str | None = None
    fractions: Sequence[float] = (0.8, 0.1, 0.1)
    stratify: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("fractions", "stratify"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.column is not None and self.stratify:
            raise ValueError(
                "stratify: expected none where splits.column assigns subjects to splits, but got "
                f"{list(self.stratify)}; omit one of them."
            )
        seed_number("seed", self.seed)
        check_fractions(self.fractions)

    def of(self, table: Table) -> Splits:
        """The split of each row of a table, ``(N,)``."""
        if self.column is not None:
            return recorded_splits(table, self.column)
        return divide_subjects(table, self.fractions, self.seed, self.stratify)


def read_cohort(root: Path, settings: RowSettings, division: Division) -> Cohort:
    """Read and check a table, divide its units, and find the images.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If the table, a column, the division or the choice of images is invalid.
    """
    kinds = settings.kinds or {}
    table = read_table(root / settings.file, settings, expected=_named_columns(settings))
    for file, keys in (settings.join or {}).items():
        table = joined(table, read_table(root / file, settings, "join", keys), keys)
    if settings.where:
        table = selected_rows(table, settings.where)
    table = table.identified(settings.identifier, settings.visits)
    rows = len(table)
    selected = select_columns(table, settings.columns, kinds, _other_columns(settings, division))
    for name in settings.classes or {}:
        if name not in selected:
            raise ValueError(f"classes: {name!r} is not one of {', '.join(selected)}.")
    _check_image_names(settings.patterns, selected)
    if settings.missing == "drop":
        table = table.complete(list(selected.values()))
    complete = len(table)
    if settings.missing == "drop":
        table = with_images(table, root, list(settings.patterns.values()))
    splits = division.of(table)
    order = np.argsort(splits, kind="stable")
    attributes = [
        read_attribute(table, _column(settings, name, column), splits == 0).reordered(order)
        for name, column in selected.items()
    ]
    sources = {
        name: find_sources(table, root, pattern) for name, pattern in settings.patterns.items()
    }
    train, validation, test = np.bincount(splits, minlength=len(SPLITS)).tolist()
    return Cohort(
        identifiers=table.units[order],
        visits=[_visit(table, settings.visits, row) for row in order],
        attributes=tuple(attributes),
        sources={name: tuple(found[row] for row in order) for name, found in sources.items()},
        counts=(train, validation, test),
        dropped=rows - complete,
        without_image=complete - len(table),
        notes=(*table.notes, *_decimal_notes(table, attributes)),
        has_units=settings.identifier is not None,
    )


def _decimal_notes(table: Table, attributes: Sequence[Attribute]) -> list[str]:
    """A note on the columns of numbers with decimal commas."""
    numbers = [each.column for each in attributes if not each.levels]
    found = [column for column in numbers if table.decimal(column) == ","]
    return [f"decimal commas in {', '.join(found)}"] if found else []


def _column(settings: RowSettings, name: str, column: str) -> ColumnRules:
    kind = (settings.kinds or {}).get(name)
    classes = (settings.classes or {}).get(name)
    return ColumnRules(name, column, kind, classes, settings.missing, settings.infers_order)


def _named_columns(settings: RowSettings) -> list[str]:
    """The columns that are needed, if the settings list those of the variables."""
    if settings.columns is None or settings.join:
        return []
    columns = settings.columns
    named = list(columns.values() if isinstance(columns, Mapping) else columns)
    return [*named, *([] if settings.identifier is None else [settings.identifier])]


def _other_columns(settings: RowSettings, division: Division) -> list[str]:
    """The columns that are not variables unless they are listed."""
    others = [*settings.visits]
    for pattern in settings.patterns.values():
        others += pattern_columns(pattern) or [pattern]
    others += [each for each in (settings.identifier, division.column) if each is not None]
    return others


def _check_image_names(patterns: Mapping[str, str], selected: Mapping[str, str]) -> None:
    for name in patterns:
        if name in ("index", "label"):
            raise ValueError(f"images: the name {name} is reserved; use another for the images.")
        if name in selected:
            raise ValueError(
                f"images: {name} is the name of a column and of images; rename one of them, as in "
                f"columns: {{my_{name}: {selected[name]}}}."
            )


def _visit(table: Table, visits: Sequence[str], row: int) -> str:
    which = [f", {column} {table[column][row]}" for column in visits]
    return "".join([table.unit(row), *which])
