"""The overlap of answers with the training data: in answers, and in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from deepscm_pl.cli.answers import Part
from deepscm_pl.overlap import VERDICTS, Overlap, OverlapEstimator, describe_overlap
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do

__all__ = ["OverlapCount"]


@dataclass
class OverlapCount:
    """The overlap of answers, and the number of answers with each verdict.

    The overlap of an answer is that of its particle with the fewest training rows, among those that
    arrive together; its verdict is the worst one.

    Attributes:
        scm: The model.
        dos: The interventions, one for each of the last columns of the answers.
        refused: Verdicts on answers that are refused.
    """

    scm: StructuralCausalModel
    dos: Sequence[Do]
    refused: Sequence[str] = ()
    _counts: list[torch.Tensor] = field(default_factory=list)

    @property
    def quantiles(self) -> list[str]:
        """The variables with quantiles: numbers that an intervention sets or changes."""
        domains = self.scm.training_distribution.domains
        numbers = [name for name, domain in domains.items() if domain.categories is None]
        return [name for name in numbers if any(name in do for do in self.dos)]

    def watch(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Yield the answers with their overlap, which is that of their first particles.

        Raises:
            ValueError: If answers are to be refused, but the overlap is unknown or all are refused.
        """
        is_known = self.scm.training_distribution.is_known and any(self.dos)
        if self.refused and not is_known:
            raise ValueError(f"refuse: expected a model with a known overlap; {self._unknown()}.")
        estimator: OverlapEstimator | None = None
        self._counts = [torch.zeros(len(VERDICTS), dtype=torch.int64) for _ in self.dos]
        overlaps: list[Overlap | None] = []
        for part in parts:
            if is_known and part.particle == 0:
                # The question has been checked when its first answer arrives.
                estimator = estimator or OverlapEstimator(self.scm)
                overlaps = [None] * len(part.values)
                for k, do in enumerate(self.dos, len(part.values) - len(self.dos)):
                    if do:
                        overlaps[k] = found = estimator.estimate(part.values[k], do).worst()
                        count = torch.bincount(found.verdict, minlength=len(VERDICTS))
                        self._counts[k - len(part.values)] += count
            yield replace(part, overlaps=overlaps)
        refused, total = self._refused()
        if refused and refused == total:
            raise ValueError(
                f"refuse: expected at least one answer that is not {' or '.join(self.refused)}, "
                f"but all {total} are refused ({'; '.join(self._verdicts())}); intervene within "
                "the training data, or leave the option out."
            )

    def sentences(self) -> list[str]:
        """Describe each intervention whose answers are not all supported, and count the refused."""
        if not any(self.dos):
            return []
        if not self.scm.training_distribution.is_known:
            return [f"overlap: unknown, because {self._unknown()}"]
        refused, total = self._refused()
        counted = f"refused: {refused} of {total} answers, which are not written"
        return [*self._verdicts(), *([counted] if refused else [])]

    def _verdicts(self) -> list[str]:
        named = zip(self.dos, self._counts, strict=True)
        return [
            sentence
            for do, count in named
            if (sentence := describe_overlap(self.scm, do, count.tolist()))
        ]

    def _refused(self) -> tuple[int, int]:
        """The number of refused answers, and of all answers."""
        counts = torch.stack(self._counts).sum(dim=0)
        places = [VERDICTS.index(verdict) for verdict in self.refused]
        return int(counts[places].sum()), int(counts.sum())

    def _unknown(self) -> str:
        return (
            "this model of an earlier version contains no training distribution; "
            "--read_training_data computes it from the data of the run"
        )
