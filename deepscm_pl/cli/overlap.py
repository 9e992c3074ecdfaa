"""The overlap of answers with the training data, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from deepscm_pl.cli.answers import Part
from deepscm_pl.interventions import format_do
from deepscm_pl.numerals import format_number
from deepscm_pl.overlap import VERDICTS, OverlapEstimator
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do

__all__ = ["OverlapCount"]


@dataclass
class OverlapCount:
    """The number of answers with each verdict, for each intervention.

    Attributes:
        scm: The model.
        dos: The interventions, one for each of the last columns of the answers.
    """

    scm: StructuralCausalModel
    dos: Sequence[Do]
    _counts: list[torch.Tensor] = field(default_factory=list)

    def watch(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield the answers, and count the verdicts on their first particles."""
        is_known = self.scm.training_distribution.is_known and any(self.dos)
        estimator: OverlapEstimator | None = None
        self._counts = [torch.zeros(len(VERDICTS), dtype=torch.int64) for _ in self.dos]
        for part in parts:
            if is_known and part.particle == 0:
                # The question has been checked when its first answer arrives.
                estimator = estimator or OverlapEstimator(self.scm)
                columns = part.values[-len(self.dos) :]
                for count, do, values in zip(self._counts, self.dos, columns, strict=True):
                    if do:
                        verdict = estimator.estimate(values, do).verdict.amax(dim=0).flatten()
                        count += torch.bincount(verdict, minlength=len(VERDICTS))
            yield part

    def sentences(self) -> list[str]:
        """Describe each intervention whose answers are not all supported."""
        if not any(self.dos):
            return []
        if not self.scm.training_distribution.is_known:
            return [
                "overlap: unknown, because this model of an earlier version contains no training "
                "distribution; train it again"
            ]
        named = zip(self.dos, self._counts, strict=True)
        return [sentence for do, count in named if (sentence := self._sentence(do, count))]

    def _sentence(self, do: Do, count: torch.Tensor) -> str:
        _, edge, extrapolated = count.tolist()
        title, total = format_do(do, self.scm.variables), int(count.sum())
        if extrapolated:
            reason = self._beyond(do) or "no training rows are near the values of the parents"
            return f"{title}: {extrapolated} of {total} answers extrapolate; {reason}"
        if edge:
            return f"{title}: {edge} of {total} answers are at the edge of the training data"
        return ""

    def _beyond(self, do: Do) -> str:
        """Describe the first value that is set beyond the training data."""
        kept = self.scm.training_distribution
        for name, value in do.items():
            domain = kept.domains.get(name)
            if domain is None or domain.categories is not None or callable(value):
                continue
            low, high = kept.limits(name)
            asked = torch.as_tensor(value, dtype=torch.float64)
            if bool(((asked < low) | (asked > high)).any()):
                unit = self.scm.variables[name].unit
                limits = f"{format_number(low)} to {format_number(high)}"
                return f"{name} is from {limits}{unit and f' {unit}'} in the training data"
        return ""
