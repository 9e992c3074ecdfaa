"""The image files of a table: found by a pattern over its columns, checked, and stamped."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from deepscm_pl.data.scans.table import Table

__all__ = ["Source", "find_sources", "pattern_columns"]

_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Source:
    """An image file, and by what a change of it is noticed.

    Attributes:
        path: The file.
        name: Relative to the root folder.
        size: In bytes.
        modified: When it was last written, in nanoseconds.
    """

    path: Path
    name: str
    size: int
    modified: int


def pattern_columns(pattern: str) -> list[str]:
    """The columns that a pattern names.

    Example:
        >>> pattern_columns("sub-{id}/{visit}/anat/*.nii.gz")
        ['id', 'visit']
    """
    return _FIELD.findall(pattern)


def find_sources(table: Table, root: Path, pattern: str) -> list[Source]:
    """The image file of every row.

    Args:
        table: The table.
        root: The folder that the pattern is relative to.
        pattern: A path in which ``{column}`` stands for the row's text in a column; it may be a
            glob, which must match one file for each row.

    Returns:
        A source per row.

    Raises:
        FileNotFoundError: If the root or an image is missing.
        ValueError: If the pattern names no column or an unknown one, several files match it for
            one row, or two rows have the same file.
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
    matches = [_matches(root, _fill(pattern, table, row)) for row in range(len(table))]
    _check_found(table, root, pattern, matches)
    paths = [found[0] for found in matches]
    _check_distinct(table, paths)
    return [_stamp(path, root) for path in paths]


def _fill(pattern: str, table: Table, row: int) -> str:
    """The pattern of a row, in which what the table says stands for itself."""
    return _FIELD.sub(lambda field: glob.escape(table[field[1]][row]), pattern)


def _matches(root: Path, pattern: str) -> list[Path]:
    # Most patterns are plain paths, for which looking is quicker than searching.
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
            f"{root / _fill(pattern, table, missing[0])}{others}; correct root or images, or "
            "remove the rows."
        )
    for row, found in enumerate(matches):
        if len(found) > 1:
            raise ValueError(
                f"images: {table.where(row)}: expected one file, but {len(found)} match "
                f"{_fill(pattern, table, row)}, {found[0].name} and {found[1].name} among them; "
                "make the pattern narrower."
            )


def _check_distinct(table: Table, paths: list[Path]) -> None:
    seen: dict[Path, int] = {}
    for row, path in enumerate(paths):
        earlier = seen.setdefault(path, row)
        if earlier != row:
            raise ValueError(
                f"images: {table.where(row)} has the same file {path} as row "
                f"{table.number(earlier)}; name a column in the pattern that tells them apart."
            )


def _stamp(path: Path, root: Path) -> Source:
    status = path.stat()
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return Source(path, name.as_posix(), status.st_size, status.st_mtime_ns)
