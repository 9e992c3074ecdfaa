"""Splits by subject: no one is trained on and tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.scans.table import Table

__all__ = ["SPLITS", "divide_subjects", "recorded_splits"]

SPLITS = ("train", "validation", "test")
"""The names of the splits."""

Splits = NDArray[np.int64]
"""For each row its split, as a position in :data:`SPLITS`."""


def recorded_splits(table: Table, column: str) -> Splits:
    """The splits that a column of a table names.

    Args:
        table: The table.
        column: A column of ``train``, ``validation`` and ``test``.

    Returns:
        ``(N,)``.

    Raises:
        ValueError: If there is no such column, it says anything else, a subject is in two splits,
            or a split has no subject.
    """
    table.require("split_column", [column])
    for row, name in enumerate(table[column]):
        if name not in SPLITS:
            raise ValueError(
                f"split_column: {table.where(row)}: expected one of {', '.join(SPLITS)} in "
                f"{column}, but got {name!r}."
            )
    splits = np.array([SPLITS.index(name) for name in table[column]])
    _check_disjoint(table, splits)
    _check_none_is_empty(splits, f"split_column: the column {column} of {table.path}")
    return splits


def divide_subjects(
    table: Table, fractions: Sequence[float], seed: int, stratify: Sequence[str] = ()
) -> Splits:
    """Divides subjects at random, always alike for one seed and one set of subjects.

    Subjects are shuffled within strata, and dealt out stratum after stratum to the split that lacks
    most of its share; so shares are right overall and in each stratum, but for a subject or two.

    Args:
        table: The table; all rows of a subject go into one split.
        fractions: Shares of training, validation and test.
        seed: Of the shuffling.
        stratify: Columns that should be distributed alike in all splits, as the first row of a
            subject has them. Columns of many numbers are taken by their quarters.

    Returns:
        ``(N,)``.

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
    # The last key of lexsort counts first, and rows of equal keys stay in their order.
    order = shuffled[np.lexsort(groups[::-1])] if groups else shuffled
    splits = np.empty(len(first), dtype=np.int64)
    splits[order] = _deal(len(first), np.asarray(fractions, dtype=np.float64))
    _check_none_is_empty(splits, f"fractions: {len(first)} subjects in shares of {list(fractions)}")
    return splits[subject_of_row]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises unless there are three positive fractions that sum to one.

    Raises:
        ValueError: If not.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions: expected three positive shares of training, validation and test that sum "
            f"to 1, but got {list(fractions)}."
        )


def _groups(texts: NDArray[np.object_]) -> NDArray[np.int64]:
    """For each text a number, equal for those that are to be distributed alike."""
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
    """A split for each of ``size`` subjects: at each step the one that lacks most of its share."""
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
                f"split_column: {table.where(row)} is in {SPLITS[splits[row]]}, but an earlier row "
                f"of this subject is in {SPLITS[earlier]}; put all rows of a subject into one "
                "split."
            )


def _check_none_is_empty(splits: Splits, subject: str) -> None:
    missing = [name for number, name in enumerate(SPLITS) if number not in splits]
    if missing:
        raise ValueError(
            f"{subject} should give every split a subject, but {' and '.join(missing)} would have "
            "none; give them some."
        )
