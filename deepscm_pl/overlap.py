"""Overlap: the distance of a question from the training data.

A mechanism is learned from the values of the parents that occur in the training data. An
intervention may set others; the answer is then an extrapolation, which no data support.
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

__all__ = ["VERDICTS", "Overlap", "OverlapEstimator", "OverlapThresholds"]

VERDICTS = ("supported", "edge", "extrapolated")
"""The verdicts on a row of an answer."""

_FEWEST_DRAWS, _MOST_DRAWS = 2_000, 16_384
_ROWS_AT_A_TIME = 128


@dataclass(frozen=True)
class OverlapThresholds:
    """Limits of the effective number of training rows near the parents of an answer.

    Attributes:
        extrapolated: An answer with fewer rows is extrapolated.
        edge: An answer with fewer rows is at the edge, one with more is supported.

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
    """The overlap of each row of an answer with the training data.

    Attributes:
        rows: Effective number of training rows near the values of the parents, the smallest over
            the mechanisms that the intervention affects, ``(*batch,)``.
        quantiles: For each variable that was set, the quantile of its value among training rows
            with similar other causes of its effects, ``(*batch,)``; NaN if there are none.
        verdict: Index into :data:`VERDICTS`, ``(*batch,)``.
    """

    rows: Tensor
    quantiles: Mapping[str, Tensor]
    verdict: Tensor

    @property
    def verdicts(self) -> list[str]:
        """The verdict on each row."""
        return [VERDICTS[k] for k in self.verdict.flatten().tolist()]

    def count(self, verdict: str) -> int:
        """Count the rows with a verdict, such as ``"extrapolated"``."""
        return int((self.verdict == VERDICTS.index(verdict)).sum())


class OverlapEstimator:
    r"""Estimator of the overlap of answers with the training data.

    For each variable that an intervention affects through its scalar parents pa, the effective
    number of training rows is
    :math:`\sum_n \exp(-\tfrac12 \|s(pa) - s(pa_n)\|^2 / h^2)` over the N training rows, where s are
    normal scores of quantiles (classes must be equal), and h is Scott's bandwidth
    :math:`M^{-1/(d+4)}`. The joint distribution of pa is that of M draws of the mechanisms of the
    model, scaled to N rows. Values beyond the training split are always extrapolated. Effects of
    images are left out, because their distribution requires images.

    Args:
        scm: The model.
        thresholds: Limits of the verdicts.
        seed: Seed of the draws.

    Raises:
        ValueError: If the model contains no training distribution.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> scm.fit({"a": torch.randn(500, 1), "b": torch.randn(500, 1)})
        >>> do = {"a": torch.tensor([[0.0], [40.0]])}
        >>> answer = scm.intervene(do, 2)
        >>> [VERDICTS[k] for k in OverlapEstimator(scm).estimate(answer, do).verdict]
        ['supported', 'extrapolated']
    """

    def __init__(
        self,
        scm: StructuralCausalModel,
        thresholds: OverlapThresholds | None = None,
        seed: int = 0,
    ) -> None:
        self.scm, self.thresholds = scm, thresholds or OverlapThresholds()
        self.kept = scm.training_distribution
        if not self.kept.is_known:
            raise ValueError(
                "overlap: the model contains no training distribution, because it is of an "
                "earlier version; add it with scm.training_distribution.fit(variables), the "
                "variables of its training split."
            )
        self.rows = int(self.kept.rows)
        images = set(scm.image_variables)
        scalars = [name for name in scm.graph if name in self.kept.domains]
        names = [name for name in scalars if not scm.graph.ancestors(name) & images]
        self._draws = self._draw(names, seed) if names else {}

    @torch.no_grad()
    def _draw(self, names: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Scores of draws of the model, ``(M,)`` each."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = self.scm.restrict(names).sample(min(max(self.rows, _FEWEST_DRAWS), _MOST_DRAWS))
        return {name: self.kept.scores(name, drawn[name]).cpu() for name in names}

    def estimate(self, answer: Variables, done: Iterable[str]) -> Overlap:
        """Estimate the overlap of each row of an answer.

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
        verdict = (rows < self.thresholds.edge).long()
        verdict = verdict.masked_fill((rows < self.thresholds.extrapolated) | outside, 2)
        quantiles = {
            name: self._over_rows(scores, partial(self._quantile, name)).view(shape)
            for name in sorted(names & self._draws.keys())
            if self.kept.domains[name].categories is None
        }
        return Overlap(rows, quantiles, verdict)

    def _sets_of_parents(self, done: set[str]) -> list[tuple[str, ...]]:
        """The scalar parents of each affected variable, without repetitions."""
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
        """Apply ``function`` to different rows, a few at a time, so that its memory is bounded."""
        rows = torch.stack(list(scores.values()), dim=1)
        different, place = rows.unique(dim=0, return_inverse=True)
        parts = different.split(_ROWS_AT_A_TIME)
        some = [dict(zip(scores, part.unbind(dim=1), strict=True)) for part in parts]
        return torch.cat(list(map(function, some)))[place]

    def _is_outside(self, name: str, value: Tensor) -> Tensor:
        """Compare values with the smallest and the largest of the training split."""
        if self.kept.domains[name].categories is not None:
            return torch.zeros(value.shape[:-1], dtype=torch.bool)
        low, high = self.kept.limits(name)
        margin = 1e-6 * (high - low)
        flat = value.double().squeeze(-1).cpu()
        return (flat < low - margin) | (flat > high + margin)

    def _near(self, scores: Variables, names: Sequence[str]) -> Tensor:
        """Weights of each draw for each row by the distance in ``names``, ``(rows, M)``.

        They are scaled so that their sum over draws is an effective number of training rows.
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
        """The share of training rows below, among those with similar other causes."""
        graph = self.scm.graph
        effects = [effect for effect in graph.nodes if name in graph.parents[effect]]
        others = {other for effect in effects for other in graph.parents[effect]} - {name}
        weights = self._near(scores, sorted(others & self._draws.keys()))
        own, draws = scores[name][:, None], self._draws[name]
        below = (draws < own).double() + 0.5 * (draws == own)
        return (weights * below).sum(-1) / weights.sum(-1)
