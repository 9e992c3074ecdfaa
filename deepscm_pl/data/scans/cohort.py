"""The subjects of a table: their image files, their variables and their division into splits."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.checks import seed_number
from deepscm_pl.data.tables import (
    Attribute,
    AttributeKind,
    Table,
    read_attribute,
    read_table,
    select_columns,
)

__all__ = [
    "SPLITS",
    "Cohort",
    "Division",
    "MissingValues",
    "Source",
    "Subjects",
    "divide_subjects",
    "find_sources",
    "pattern_columns",
    "read_cohort",
    "recorded_splits",
]

_FIELD = re.compile(r"\{([^{}]+)\}")


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
        >>> pattern_columns("sub-{id}/{visit}/anat/*.nii.gz")
        ['id', 'visit']
    """
    return _FIELD.findall(pattern)


def find_sources(table: Table, root: Path, pattern: str) -> list[Source]:
    """Find the image file of each row.

    Args:
        table: The table.
        root: Folder of the pattern.
        pattern: Path in which ``{column}`` stands for the cell of the row; a glob must match one
            file.

    Raises:
        FileNotFoundError: If the root or an image is missing.
        ValueError: If the pattern contains no column or an unknown one, several files match it for
            a row, or two rows have the same file.
    """
    names = pattern_columns(pattern)
    if not names:
        raise ValueError(
            f"images: expected a pattern that names a column of {table.path}, such as "
            f"'{{{table.identifier}}}.png', but got {pattern!r}."
        )
    table.require("images", names)
    if not root.is_dir():
        raise FileNotFoundError(f"root: {root} is missing, or not a folder.")
    matches = [_matches(root, _filled_in(pattern, table, row)) for row in range(len(table))]
    _check_found(table, root, pattern, matches)
    paths = [found[0] for found in matches]
    _check_distinct(table, paths)
    return [_source(path, root) for path in paths]


def _filled_in(pattern: str, table: Table, row: int) -> str:
    """The pattern of a row, in which cells are matched literally."""
    return _FIELD.sub(lambda field: glob.escape(table[field[1]][row]), pattern)


def _matches(root: Path, pattern: str) -> list[Path]:
    # Most patterns are plain paths, for which this is faster than a search.
    plain = root / re.sub(r"\[([*?[])\]", r"\1", pattern)
    if plain.is_file():
        return [plain]
    found = glob.glob(pattern, root_dir=root, recursive=True)
    return sorted(root / name for name in found if (root / name).is_file())


def _check_found(table: Table, root: Path, pattern: str, matches: list[list[Path]]) -> None:
    missing = [row for row, found in enumerate(matches) if not found]
    if missing:
        others = f", and {len(missing) - 1} more are missing" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"images: {table.where(missing[0])}: there is no file "
            f"{root / _filled_in(pattern, table, missing[0])}{others}; correct root or images, or "
            "remove the rows."
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
                f"images: {table.where(row)} has the same file {path} as row "
                f"{table.number(earlier)}; name a column in the pattern that distinguishes them."
            )


def _source(path: Path, root: Path) -> Source:
    status = path.stat()
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return Source(path, name.as_posix(), status.st_size, status.st_mtime_ns)


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
        table[table.identifier].astype(str), return_index=True, return_inverse=True
    )
    shuffled = np.random.default_rng(seed).permutation(len(first))
    groups = [_groups(table[column][first])[shuffled] for column in stratify]
    # lexsort sorts by its last key first, and is stable.
    order = shuffled[np.lexsort(groups[::-1])] if groups else shuffled
    splits = np.empty(len(first), dtype=np.int64)
    splits[order] = _deal(len(first), np.asarray(fractions, dtype=np.float64))
    _check_none_is_empty(splits, f"fractions: {len(first)} subjects in shares of {list(fractions)}")
    return splits[subject_of_row]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless there are three positive fractions that sum to one."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions: expected three positive shares of training, validation and test that sum "
            f"to 1, but got {list(fractions)}."
        )


def _groups(texts: NDArray[np.object_]) -> NDArray[np.int64]:
    """The stratum of each text, as a number."""
    levels, groups = np.unique(texts.astype(str), return_inverse=True)
    try:
        numbers = levels.astype(np.float64)
    except ValueError:
        return groups
    if len(levels) <= 4:
        return groups
    values = numbers[groups]
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
    for row, subject in enumerate(table[table.identifier]):
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


MissingValues = Literal["refuse", "drop"]
"""The treatment of rows in which a variable has no value."""


@dataclass(frozen=True)
class Cohort:
    """The rows of a table in the order training, validation, test.

    Attributes:
        identifiers: Subjects, ``(N,)``.
        visits: Subjects with their visits, ``(N,)``.
        attributes: The variables, N values each.
        sources: The N image files.
        counts: Number of rows of each split.
        dropped: Number of rows that were left out because of a missing value.
    """

    identifiers: NDArray[np.object_]
    visits: Sequence[str]
    attributes: tuple[Attribute, ...]
    sources: tuple[Source, ...]
    counts: tuple[int, int, int]
    dropped: int = 0

    def summary(self) -> str:
        """Return a line with the number of rows, and a line for each variable with its kind."""
        counts = ", ".join(f"{n} {name}" for name, n in zip(SPLITS, self.counts, strict=True))
        subjects = len(set(self.identifiers))
        head = f"{subjects} subjects in {len(self.identifiers)} rows: {counts}"
        if self.dropped:
            rows = "row" if self.dropped == 1 else "rows"
            head += f"; without {self.dropped} {rows} in which a value is missing"
        return "\n".join([head, *(f"  {attribute}" for attribute in self.attributes)])


@dataclass(frozen=True)
class Subjects:
    """The table of subjects, and the use of its columns.

    Args:
        table: CSV, TSV or Parquet file, relative to ``root``.
        images: Pattern of the image file of a row, relative to ``root``: ``{column}`` stands for
            the cell in that column, as in ``sub-{id}/anat/*T1w.nii.gz``. A glob must match one
            file.
        identifier: Column with the identifiers of the subjects, read as text.
        visits: Columns that distinguish the rows of a subject.
        columns: Variable to column, or a list of columns that keep their name. None for all columns
            that no other setting names.
        kinds: Variable to ``continuous``, ``positive``, ``binary`` or ``categorical``; inferred for
            others.
        units: Variable to unit, such as ``mm³``. None for those of the known world, if there is
            one.
        missing: ``refuse`` stops at a row without a value in one of ``columns``; ``drop`` leaves
            such rows out and logs how many.

    Raises:
        ValueError: If ``missing`` has another value.
    """

    table: str = "subjects.csv"
    images: str = "{eid}_T1_unbiased_brain_rigid_to_mni.png"
    identifier: str = "eid"
    visits: Sequence[str] = ()
    columns: dict[str, str] | list[str] | None = None
    kinds: Mapping[str, AttributeKind] | None = None
    units: Mapping[str, str] | None = None
    missing: MissingValues = "refuse"

    def __post_init__(self) -> None:
        if self.missing not in get_args(MissingValues):
            raise ValueError(f"missing: expected refuse or drop, but got {self.missing!r}.")
        object.__setattr__(self, "visits", tuple(self.visits))
        for name in ("columns", "kinds", "units"):
            object.__setattr__(self, name, copy(getattr(self, name)))


@dataclass(frozen=True)
class Division:
    """The division of subjects into training, validation and test.

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


def read_cohort(root: Path, subjects: Subjects, division: Division) -> Cohort:
    """Read and check a table, divide its subjects, and find the images.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If the table, a column, the division or the choice of images is invalid.
    """
    table = read_table(root / subjects.table, subjects.identifier, subjects.visits)
    rows = len(table)
    others = [subjects.identifier, *subjects.visits, *pattern_columns(subjects.images)]
    others += [] if division.column is None else [division.column]
    kinds = subjects.kinds or {}
    selected = select_columns(table, subjects.columns, kinds, others)
    if subjects.missing == "drop":
        table = table.complete(list(selected.values()))
    splits = division.of(table)
    order = np.argsort(splits, kind="stable")
    attributes = [
        read_attribute(table, name, column, kinds.get(name), splits == 0).reordered(order)
        for name, column in selected.items()
    ]
    sources = find_sources(table, root, subjects.images)
    train, validation, test = np.bincount(splits, minlength=len(SPLITS)).tolist()
    return Cohort(
        identifiers=table[subjects.identifier][order],
        visits=[_visit(table, subjects.visits, row) for row in order],
        attributes=tuple(attributes),
        sources=tuple(sources[row] for row in order),
        counts=(train, validation, test),
        dropped=rows - len(table),
    )


def _visit(table: Table, visits: Sequence[str], row: int) -> str:
    which = [f", {column} {table[column][row]}" for column in visits]
    return "".join([table[table.identifier][row], *which])
