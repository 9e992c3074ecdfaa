"""The first answers, which pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.scm import StructuralCausalModel, summarise

__all__ = ["Shown"]

_ROWS = 16
"""Observations in a picture."""
_COLUMNS = 16
"""Interventions in a picture."""
_CELLS = 96
"""Images in a picture, because drawing takes some megabytes for each."""
_ELEMENTS = 2**26
"""Elements of all images in a picture, of volumes whole, which are kept until it is drawn."""


@dataclass(frozen=True)
class _Moments:
    """Means and standard deviations over some particles, ``(N, *event)`` each."""

    count: int
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Moments:
        """Those of ``(particles, N, *event)``."""
        return cls(len(values), *summarise(values))

    def merge(self, other: _Moments) -> _Moments:
        """Those of the particles of both."""
        count = self.count + other.count
        share = other.count / count
        change = other.mean - self.mean
        inner = (1 - share) * self.deviation.square() + share * other.deviation.square()
        between = share * (1 - share) * change.square()
        return _Moments(count, self.mean + share * change, (inner + between).sqrt())


class Shown:
    """Gathers what pictures show: the first observations under the first interventions.

    Args:
        scm: The model.
        columns: Number of interventions.

    Attributes:
        columns: How many of them are shown.
        rows: The names of the observations that are shown.
        total: Number of observations so far.
    """

    def __init__(self, scm: StructuralCausalModel, columns: int) -> None:
        elements = sum(scm[name].domain.features for name in scm.image_variables) or 1
        self.all_columns = columns
        self.columns = min(columns, _COLUMNS)
        self.rows: list[str] = []
        self.total = 0
        cells = min(_CELLS, _ELEMENTS // elements)
        self._capacity = max(1, min(_ROWS, cells // self.columns))
        self._kept: list[list[dict[str, _Moments]]] = [[] for _ in range(self.columns)]

    def add(self, first: int, rows: Sequence[str], values: Sequence[Mapping[str, Tensor]]) -> None:
        """Take from answers what is shown of them.

        Args:
            first: Number of the first observation.
            rows: A name for each observation.
            values: For each column ``(particles, observations, *event)`` of every variable.
        """
        is_new = first >= self.total
        self.total = max(self.total, first + len(rows))
        count = min(len(rows), self._capacity - first)
        if count <= 0:
            return
        self.rows += rows[:count] if is_new else ()
        for kept, column in zip(self._kept, values, strict=False):
            # Copies, so that a few rows do not hold the memory of all.
            found = {n: _Moments.of(value[:, :count].clone()) for n, value in column.items()}
            if is_new:
                kept.append(found)
            else:
                kept[-1] = {name: kept[-1][name].merge(found[name]) for name in found}

    def means(self) -> list[dict[str, Tensor]]:
        """For each column that is shown the means over particles of every variable."""
        return [_joined(kept, "mean") for kept in self._kept]

    def deviations(self) -> list[dict[str, Tensor]]:
        """For each column that is shown the standard deviations over particles."""
        return [_joined(kept, "deviation") for kept in self._kept]

    def describe(self) -> str:
        """What of all is shown, or nothing if that is all."""
        words = [
            f"the first {shown} of {total} {things}"
            for shown, total, things in (
                (len(self.rows), self.total, "observations"),
                (self.columns, self.all_columns, "columns"),
            )
            if shown < total
        ]
        return " and ".join(words)


def _joined(kept: Sequence[Mapping[str, _Moments]], what: str) -> dict[str, Tensor]:
    return {name: torch.cat([getattr(each[name], what) for each in kept]) for name in kept[0]}
