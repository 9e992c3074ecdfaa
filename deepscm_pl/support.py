"""How far a question is from the training data: overlap, without which an answer is a guess.

A mechanism learned x = f(u; pa) from the parents that occurred. An intervention may ask for others;
the answer is then an extrapolation of the networks, which no data support.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from deepscm_pl.checks import real_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = ["LEVELS", "Overlap", "SupportJudge", "Thresholds"]

LEVELS = ("supported", "edge", "extrapolated")
"""The verdicts on a row, by their index."""

_FEWEST, _MOST = 2_000, 16_384
_ROWS_AT_A_TIME = 128


@dataclass(frozen=True)
class Thresholds:
    """From which effective number of training rows on an answer counts as supported.

    Attributes:
        extrapolated: Fewer rows than this: no training row is near.
        edge: Fewer rows than this: few are.

    Raises:
        ValueError: Unless 0 < ``extrapolated`` ≤ ``edge``.
    """

    extrapolated: float = 1.0
    edge: float = 10.0

    def __post_init__(self) -> None:
        least = real_number("extrapolated", self.extrapolated, above=0)
        real_number("edge", self.edge, least=least)


@dataclass(frozen=True)
class Overlap:
    """How far the rows of an answer are from the training data.

    Attributes:
        rows: The effective number of training rows near the parents that the answer used, the
            smallest over the mechanisms that were computed, ``(*batch,)``.
        quantiles: For each variable that was set, the quantile of its value among training rows
            whose other parents (of the same effects) are near, ``(*batch,)``.
        level: Index into :data:`LEVELS`, ``(*batch,)``.
    """

    rows: Tensor
    quantiles: Mapping[str, Tensor]
    level: Tensor

    def count(self, level: str) -> int:
        """How many rows have the verdict ``level``, such as ``"extrapolated"``."""
        return int((self.level == LEVELS.index(level)).sum())


class SupportJudge:
    r"""Judges answers by the training rows near the parents that they used.

    For each variable that an intervention changes through its scalar parents pa, the effective
    number of rows is :math:`\sum_n \exp(-\tfrac12 \|s(pa) - s(pa_n)\|^2 / h^2)` over the N training
    rows, where s are normal scores of quantiles (classes must be equal), and h is Scott's bandwidth
    :math:`M^{-1/(d+4)}`. The joint distribution of pa is that of M draws of the model's own
    mechanisms, scaled to N rows; values beyond the training split are extrapolated in any case.

    Args:
        scm: The model.
        thresholds: Of the verdicts.
        seed: Of the draws.

    Raises:
        ValueError: If the model has kept no training distribution.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> scm.fit({"a": torch.randn(500, 1), "b": torch.randn(500, 1)})
        >>> do = {"a": torch.tensor([[0.0], [40.0]])}
        >>> answer = scm.intervene(do, 2)
        >>> [LEVELS[k] for k in SupportJudge(scm).judge(answer, do).level]
        ['supported', 'extrapolated']
    """

    def __init__(
        self,
        scm: StructuralCausalModel,
        thresholds: Thresholds | None = None,
        seed: int = 0,
    ) -> None:
        self.scm, self.thresholds = scm, thresholds or Thresholds()
        self.kept = scm.training_distribution
        if not self.kept.is_known:
            raise ValueError(
                "overlap: the model has kept no training distribution, for it is of an earlier "
                "version; add it with scm.training_distribution.fit(variables) of its training "
                "split."
            )
        self.rows = int(self.kept.rows)
        names = [name for name in scm.graph.nodes if name in self.kept.domains]
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = scm.restrict(names).sample(min(max(self.rows, _FEWEST), _MOST))
        self._draws = {name: self.kept.scores(name, drawn[name]).cpu() for name in names}

    def judge(self, answer: Variables, done: Iterable[str]) -> Overlap:
        """Judge an answer, row by row.

        Args:
            answer: ``(*batch, *event)`` for each variable.
            done: The variables that the intervention sets or changes.
        """
        names = set(done)
        shape = torch.broadcast_shapes(
            *(self.scm[name].domain.batch_shape(answer[name]) for name in self.scm.graph.nodes)
        )
        scores = {
            name: self.kept.scores(name, answer[name]).cpu().expand(shape).flatten()
            for name in self._draws
        }
        rows = torch.full((math.prod(shape),), float(self.rows), dtype=torch.float64)
        outside = torch.zeros(shape, dtype=torch.bool)
        for parents in self._sets_of_parents(names):
            near = self._over_rows(scores, partial(self._near_in_all, parents))
            rows = torch.minimum(rows, near)
            for parent in parents:
                outside = outside | self._is_outside(parent, answer[parent]).expand(shape)
        rows = rows.view(shape)
        level = (rows < self.thresholds.edge).long()
        level = level.masked_fill((rows < self.thresholds.extrapolated) | outside, 2)
        quantiles = {
            name: self._over_rows(scores, partial(self._quantile, name)).view(shape)
            for name in sorted(names & self._draws.keys())
            if self.kept.domains[name].categories is None
        }
        return Overlap(rows, quantiles, level)

    def _sets_of_parents(self, done: set[str]) -> list[tuple[str, ...]]:
        """The scalar parents of each variable that changes, without repetitions."""
        graph = self.scm.graph
        found = (
            tuple(parent for parent in graph.parents[name] if parent in self._draws)
            for name in graph.nodes
            if name in graph.descendants(*done)
        )
        return list(dict.fromkeys(parents for parents in found if parents))

    def _over_rows(
        self, scores: Variables, function: Callable[[dict[str, Tensor]], Tensor]
    ) -> Tensor:
        """``function`` of some rows at a time, so that its memory is bounded."""
        parts = {name: each.split(_ROWS_AT_A_TIME) for name, each in scores.items()}
        count = len(next(iter(parts.values())))
        some = [{name: part[k] for name, part in parts.items()} for k in range(count)]
        return torch.cat(list(map(function, some)))

    def _is_outside(self, name: str, value: Tensor) -> Tensor:
        """Whether values lie beyond the training split, where its quantiles end."""
        if self.kept.domains[name].categories is not None:
            return torch.zeros(value.shape[:-1], dtype=torch.bool)
        low, high = self.kept.limits(name)
        margin = 1e-6 * (high - low)
        flat = value.double().squeeze(-1).cpu()
        return (flat < low - margin) | (flat > high + margin)

    def _near(self, scores: Variables, names: Sequence[str]) -> Tensor:
        """How near each draw is to each row by the variables ``names``, ``(rows, M)``.

        Scaled, so that the sum over draws is an effective number of training rows.
        """
        draws = len(next(iter(self._draws.values())))
        continuous = sum(self.kept.domains[name].categories is None for name in names)
        bandwidth = draws ** (-1 / (continuous + 4))
        size = len(next(iter(scores.values())))
        exponent = torch.zeros(size, draws, dtype=torch.float64)
        for name in names:
            difference = scores[name][:, None] - self._draws[name]
            if self.kept.domains[name].categories is None:
                exponent += difference.square()
            else:
                exponent.masked_fill_(difference != 0, math.inf)
        return (exponent * (-0.5 / bandwidth**2)).exp() * (self.rows / draws)

    def _near_in_all(self, names: Sequence[str], scores: Variables) -> Tensor:
        return self._near(scores, names).sum(-1)

    def _quantile(self, name: str, scores: Variables) -> Tensor:
        """The share of training rows below, among those whose other parents are near."""
        graph = self.scm.graph
        effects = [effect for effect in graph.nodes if name in graph.parents[effect]]
        others = {other for effect in effects for other in graph.parents[effect]} - {name}
        weights = self._near(scores, sorted(others & self._draws.keys()))
        own, draws = scores[name][:, None], self._draws[name]
        below = (draws < own).double() + 0.5 * (draws == own)
        return (weights * below).sum(-1) / weights.sum(-1)
