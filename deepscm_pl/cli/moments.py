"""Moments of particles that arrive in parts, and the disagreement of several models."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from deepscm_pl.ensemble import Spread
from deepscm_pl.moments import Moments
from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Variable

__all__ = ["MomentsOfMembers"]


class MomentsOfMembers:
    """The moments of the particles of each model of an ensemble, for some observations.

    Args:
        names: The variables.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._members: dict[int, dict[str, Moments]] = {}
        self._squares = dict.fromkeys(names, (0, 0.0, 0.0))

    def add(self, first: int, values: Mapping[str, Tensor], members: Tensor) -> None:
        """Add particles.

        Args:
            first: Number of the first particle; 0 for other observations than before.
            values: ``(particles, N, *event)`` of every variable.
            members: The model of each particle, ``(particles,)``.
        """
        if first == 0:
            self._members = {}
        for member in members.unique().tolist():
            kept = self._members.setdefault(member, {})
            for name in self.names:
                found = Moments.of(values[name][members == member].double())
                kept[name] = kept[name].merge(found) if name in kept else found

    def cells(self, count: int, kept: Collection[int]) -> list[list[str]]:
        """For each of ``count`` observations the spread between and within members, by variable.

        Of images it is the root mean square over pixels. Cells are empty without particles, or if
        no model has several. :meth:`sentence` describes the observations in ``kept``.
        """
        rows: list[list[str]] = [[] for _ in range(count)]
        for name in self.names:
            members = [each[name] for each in self._members.values()]
            deviations = [[math.nan] * count] * 2
            if members:
                spread = Spread.pooled(
                    [(each.count, each.mean, each.deviation) for each in members]
                )
                deviations = [
                    each.square().flatten(1).mean(dim=1).sqrt().tolist()
                    for each in (spread.between, spread.within)
                ]
            for n, (row, *pair) in enumerate(zip(rows, *deviations, strict=True)):
                row += ["" if math.isnan(each) else f"{each:.6g}" for each in pair]
                if n in kept and not any(map(math.isnan, pair)):
                    number, between, within = self._squares[name]
                    self._squares[name] = number + 1, between + pair[0] ** 2, within + pair[1] ** 2
        return rows

    def sentence(self, variables: Mapping[str, Variable]) -> str:
        """Describe the root mean square over these observations; an empty text without any."""
        parts = []
        for name, (number, *squares) in self._squares.items():
            if number:
                between, within = (format_number(math.sqrt(each / number)) for each in squares)
                variable = variables[name]
                unit = variable.unit if variable.domain.shape == (1,) else "grey levels"
                parts.append(
                    f"{variable.spoken} by {between}{unit and f' {unit}'} (noise within a model: "
                    f"{within})"
                )
        return f"models disagree on {', '.join(parts)}" if parts else ""
