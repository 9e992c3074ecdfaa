"""Missing values of observations: which were inferred, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from deepscm_pl.cli.answers import Part
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["MissingCount"]

_NAMED = 3


@dataclass
class MissingCount:
    """The observations whose values of each variable were missing and are inferred.

    Attributes:
        scm: The model.
    """

    scm: StructuralCausalModel
    _rows: dict[str, list[str]] = field(default_factory=dict)
    _total: int = 0

    def watch(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield the answers, and count the missing values of the observations."""
        for part in parts:
            if part.particle == 0:
                self._total += len(part.rows)
                for name in self.scm.scalar_variables:
                    unknown = part.values[0][name].isnan().flatten(1).any(dim=0)
                    rows = [part.rows[row] for row in unknown.nonzero().flatten().tolist()]
                    if rows:
                        self._rows.setdefault(name, []).extend(rows)
            yield part

    def sentences(self) -> list[str]:
        """Name the inferred values, with the assumption; empty without any."""
        if not self._rows:
            return []
        found = [f"{name} of {self._named(rows)}" for name, rows in self._rows.items()]
        return [
            f"missing values: {', '.join(found)} inferred from the other variables, for each "
            "particle anew, assuming that values are missing at random"
        ]

    def _named(self, rows: list[str]) -> str:
        if len(rows) <= _NAMED:
            return " and ".join(rows)
        return f"{len(rows):,} of {self._total:,} observations"
