"""Rows of several tables that belong together, and the choice of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deepscm_pl.data.tables.table import Table

__all__ = ["joined", "selected"]

_SHOWN = 10
"""Number of texts that a message lists."""


def joined(table: Table, other: Table, keys: Sequence[str]) -> Table:
    """Add the columns of another table.

    Cells are empty in rows that the other table lacks. A column whose name both tables have is
    named after the file of the other one, as in ``visits.age``.

    Args:
        table: The table, whose rows are kept.
        other: The other table, with at most one row for each combination of the keys.
        keys: Columns in which the rows that belong together agree.

    Raises:
        ValueError: If a key is missing, no row agrees, or the other table has two that agree.

    Example:
        >>> from pathlib import Path
        >>> def table(name, **columns):
        ...     return Table(Path(name), {n: np.array(c, dtype=object) for n, c in columns.items()})
        >>> scans = table("scans.csv", id=["a", "b", "a"])
        >>> people = table("people.csv", id=["a"], age=["50"])
        >>> joined(scans, people, ["id"])["age"].tolist()
        ['50', '', '50']
    """
    for each in (table, other):
        each.require("join", keys)
    twice = other.first_twice(keys)
    if twice is not None:
        earlier, row = twice
        raise ValueError(
            f"join: {other.where(row)} has the same {' and '.join(keys)} as {other.counted} "
            f"{other.number(earlier)}; remove one of them, or name more columns in which rows that "
            "belong together agree."
        )
    place = {key: row for row, key in enumerate(_keys(other, keys))}
    rows = np.array([place.get(key, -1) for key in _keys(table, keys)])
    if (rows < 0).all():
        raise ValueError(
            f"join: expected rows of {table.path} and {other.path} that agree in "
            f"{' and '.join(keys)}, but there are none, as in {_keys(table, keys)[0]} and "
            f"{_keys(other, keys)[0]}; write both alike."
        )
    added = {}
    for name in (name for name in other.columns if name not in keys):
        new = f"{other.path.name.partition('.')[0]}.{name}" if name in table.columns else name
        added[new] = np.where(rows < 0, "", other[name][rows]).astype(object)
    note = f"{int((rows >= 0).sum())} of {len(table)} rows with one of {other.path.name}"
    floats = table.floats | (other.floats & added.keys())
    columns = {**table.columns, **added}
    return replace(table, columns=columns, floats=floats, notes=(*table.notes, note))


def _keys(table: Table, keys: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(*(table[key].tolist() for key in keys), strict=True))


def selected(table: Table, where: Mapping[str, Sequence[str]]) -> Table:
    """Keep the rows whose cells in some columns are among given texts.

    Raises:
        ValueError: If a column is missing, or no row remains.

    Example:
        >>> from pathlib import Path
        >>> views = Table(Path("t.csv"), {"view": np.array(["PA", "AP", "PA"], dtype=object)})
        >>> selected(views, {"view": ["PA"]}).where(1)
        'row 3 of t.csv'
    """
    table.require("where", list(where))
    kept = np.ones(len(table), dtype=np.bool_)
    for column, texts in where.items():
        wanted = [str(text) for text in texts]
        found = np.isin(table[column].astype(str), wanted)
        if not found.any():
            levels = sorted(set(table[column]))
            raise ValueError(
                f"where: expected {column} of {table.path} to be {' or '.join(wanted)} in some "
                f"row, but it contains {', '.join(levels[:_SHOWN])}"
                f"{' and others' if len(levels) > _SHOWN else ''}; choose some of these."
            )
        kept &= found
    if not kept.any():
        raise ValueError(f"where: no row of {table.path} has all of {dict(where)}; ask for less.")
    note = f"{int(kept.sum())} of {len(table)} rows selected"
    return replace(table.rows(np.flatnonzero(kept)), notes=(*table.notes, note))
