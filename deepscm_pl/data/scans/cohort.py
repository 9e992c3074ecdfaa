"""Subjects in the order of their splits, with their attributes and image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.scans.attributes import (
    Attribute,
    AttributeKind,
    read_attribute,
    select_columns,
)
from deepscm_pl.data.scans.sources import Source, find_sources, pattern_columns
from deepscm_pl.data.scans.splits import SPLITS, divide_subjects, recorded_splits
from deepscm_pl.data.scans.table import Table, read_table

__all__ = ["Cohort", "CohortSettings", "MissingValues"]

MissingValues = Literal["refuse", "drop"]
"""What happens to a row in which a variable has no value."""


@dataclass(frozen=True)
class Cohort:
    """The rows of a table in the order training, validation, test, and as in the table in each.

    Attributes:
        identifiers: ``(N,)``, texts.
        visits: What each row is called: the subject, and which visit of theirs, ``(N,)``, texts.
        attributes: The variables, N values each.
        sources: The N image files.
        counts: How many rows each of the three splits has.
        dropped: How many rows of the table were left out, because a value is missing.
    """

    identifiers: NDArray[np.object_]
    visits: Sequence[str]
    attributes: tuple[Attribute, ...]
    sources: tuple[Source, ...]
    counts: tuple[int, int, int]
    dropped: int = 0

    def summary(self) -> str:
        """How many rows there are, and the kind of each variable, a line each."""
        counts = ", ".join(f"{n} {name}" for name, n in zip(SPLITS, self.counts, strict=True))
        subjects = len(set(self.identifiers))
        head = f"{subjects} subjects in {len(self.identifiers)} rows: {counts}"
        if self.dropped:
            rows = "row" if self.dropped == 1 else "rows"
            head += f"; without {self.dropped} {rows} in which a value is missing"
        return "\n".join([head, *(f"  {attribute}" for attribute in self.attributes)])


@dataclass(frozen=True)
class CohortSettings:
    """Where subjects are found; see the arguments of ``BrainMRIDataModule``."""

    root: Path
    table: Path
    images: str
    identifier: str
    visits: Sequence[str]
    columns: Mapping[str, str] | Sequence[str] | None
    kinds: Mapping[str, str]
    split_column: str | None
    fractions: Sequence[float]
    stratify: Sequence[str]
    split_seed: int
    missing: MissingValues

    def read(self) -> Cohort:
        """Reads and checks the table, divides it, and finds the images.

        Raises:
            FileNotFoundError: If the table or an image is missing.
            ValueError: If anything about them is wrong.
        """
        table = read_table(self.table, self.identifier, self.visits)
        rows = len(table)
        others = [self.identifier, *self.visits, *pattern_columns(self.images)]
        others += [] if self.split_column is None else [self.split_column]
        selected = select_columns(table, self.columns, self.kinds, others)
        if self.missing == "drop":
            table = table.complete(list(selected.values()))
        if self.split_column is not None:
            splits = recorded_splits(table, self.split_column)
        else:
            splits = divide_subjects(table, self.fractions, self.split_seed, self.stratify)
        order = np.argsort(splits, kind="stable")
        attributes = []
        for name, column in selected.items():
            kind = cast("AttributeKind | None", self.kinds.get(name))
            attribute = read_attribute(table, name, column, kind, splits == 0)
            attributes.append(attribute.reordered(order))
        sources = find_sources(table, self.root, self.images)
        train, validation, test = np.bincount(splits, minlength=len(SPLITS)).tolist()
        return Cohort(
            identifiers=table[self.identifier][order],
            visits=[self._visit(table, row) for row in order],
            attributes=tuple(attributes),
            sources=tuple(sources[row] for row in order),
            counts=(train, validation, test),
            dropped=rows - len(table),
        )

    def _visit(self, table: Table, row: int) -> str:
        which = [f", {column} {table[column][row]}" for column in self.visits]
        return "".join([table[self.identifier][row], *which])
