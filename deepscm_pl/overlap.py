"""Overlap: the distance of a question from the training data.

A mechanism is learned from the values of the parents that occur in the training data. An
intervention may set others; the answer is then an extrapolation, which no data support.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.checks import real_number
from deepscm_pl.interventions import Where, format_do, is_constant
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training_distribution import TrainingDistribution
from deepscm_pl.variables import Do, Variables, common_shape

__all__ = ["VERDICTS", "Overlap", "OverlapEstimator", "OverlapThresholds", "describe_overlap"]

VERDICTS = ("supported", "edge", "extrapolated")
"""The verdicts on a row of an answer."""

_FEWEST_DRAWS, _MOST_DRAWS = 2_000, 16_384
_TYPICAL_DRAWS = 500
"""Draws from which it is known how many rows are usually near."""
_RARE, _UNUSUAL = 0.01, 0.1
_ROWS_AT_A_TIME = 16


@dataclass(frozen=True)
class OverlapThresholds:
    """Limits of the effective number of training rows near the parents of an answer.

    With many parents, even training rows have few others near them. A limit is therefore never
    higher than the number that all but a few draws of the training distribution have, unless it is
    set to more than its default.

    Attributes:
        extrapolated: An answer with fewer rows is extrapolated, unless 1 % of draws have fewer.
        edge: An answer with fewer rows is at the edge, unless 10 % of draws have fewer; one with
            more is supported.

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

    def counts(self) -> list[int]:
        """Count the rows with each of :data:`VERDICTS`."""
        return torch.bincount(self.verdict.flatten(), minlength=len(VERDICTS)).tolist()

    def worst(self) -> Overlap:
        """Return the overlap of each observation, from that of its particles ``(P, N)``."""
        particle = self.rows.argmin(dim=0, keepdim=True)
        return Overlap(
            self.rows.gather(0, particle)[0],
            {name: each.gather(0, particle)[0] for name, each in self.quantiles.items()},
            self.verdict.amax(dim=0),
        )

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
    model within the limits of the training split, scaled to N rows. Values beyond these limits are
    always extrapolated. Effects of images are left out, because their distribution requires images.

    Args:
        scm: The model.
        thresholds: Limits of the verdicts.
        seed: Seed of the draws.
        distribution: The training distribution; None for that of the model.

    Raises:
        ValueError: If the training distribution is unknown.

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
        distribution: TrainingDistribution | None = None,
    ) -> None:
        self.scm, self.thresholds = scm, thresholds or OverlapThresholds()
        self.kept = scm.training_distribution if distribution is None else distribution
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
        self._known_limits: dict[tuple[str, ...], tuple[float, float]] = {}

    @torch.no_grad()
    def _draw(self, names: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Scores of draws of the model, ``(M,)`` each."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = self.scm.restrict(names).sample(min(max(self.rows, _FEWEST_DRAWS), _MOST_DRAWS))
        # Tails of mechanisms reach beyond the training data, where no training rows are.
        inside = ~torch.stack([self._is_outside(n, drawn[n]) for n in names]).any(dim=0)
        inside |= ~inside.any()
        # In single precision, which is exact for classes, and faster.
        return {name: self.kept.scores(name, drawn[name])[inside].float().cpu() for name in names}

    @torch.no_grad()
    def estimate(self, answer: Variables, done: Iterable[str], quantiles: bool = True) -> Overlap:
        """Estimate the overlap of each row of an answer.

        Args:
            answer: ``(*batch, *event)`` for each variable; images and their effects may be missing.
            done: The variables that the intervention sets or changes.
            quantiles: Whether to compute the quantiles, which takes about as long as the rest.
        """
        names = set(done)
        shape = common_shape(
            *(
                self.scm[name].domain.batch_shape(answer[name])
                for name in self.scm.graph.nodes
                if name in answer
            )
        )
        scores = {
            name: self.kept.scores(name, answer[name]).float().cpu().expand(shape).flatten()
            for name in self._draws
        }
        rows = torch.full((math.prod(shape),), float(self.rows), dtype=torch.float64)
        verdict = torch.zeros(shape, dtype=torch.int64)
        for parents in self._sets_of_parents(names):
            near = self._over_rows(scores, parents, self._sum_near)
            rows = torch.minimum(rows, near)
            extrapolated, edge = self._limits(parents)
            found_verdict = (near < edge).long() + (near < extrapolated).long()
            verdict = torch.maximum(verdict, found_verdict.view(shape))
            for parent in parents:
                outside = self._is_outside(parent, answer[parent]).expand(shape)
                verdict = verdict.masked_fill(outside, 2)
        rows = rows.view(shape)
        found = {}
        for name in sorted(names & self._draws.keys()) if quantiles else ():
            if self.kept.domains[name].categories is None:
                causes = (name, *self._other_causes(name))
                found[name] = self._over_rows(scores, causes, self._quantile).view(shape)
        return Overlap(rows, found, verdict)

    def _limits(self, parents: tuple[str, ...]) -> tuple[float, float]:
        """The limits for values of these parents: extrapolated, edge."""
        if parents not in self._known_limits:
            some = {name: self._draws[name][:_TYPICAL_DRAWS] for name in parents}
            # Without the draw itself.
            near = self._over_rows(some, parents, self._sum_near) - self.rows / len(
                self._draws[parents[0]]
            )
            rare, unusual = near.clamp(min=0).quantile(near.new_tensor([_RARE, _UNUSUAL])).tolist()
            usual, chosen = OverlapThresholds(), self.thresholds
            extrapolated, edge = chosen.extrapolated, chosen.edge
            if extrapolated <= usual.extrapolated:
                extrapolated = min(extrapolated, rare)
            if edge <= usual.edge:
                edge = min(edge, unusual)
            self._known_limits[parents] = extrapolated, edge
        return self._known_limits[parents]

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
        self,
        scores: Variables,
        names: Sequence[str],
        function: Callable[[dict[str, Tensor]], Tensor],
    ) -> Tensor:
        """Apply ``function`` to the scores of ``names``, to a few different rows at a time."""
        columns = torch.stack([scores[name] for name in names], dim=1)
        different, place = columns.unique(dim=0, return_inverse=True)
        parts = different.split(_ROWS_AT_A_TIME)
        found = [function(dict(zip(names, part.unbind(dim=1), strict=True))) for part in parts]
        return torch.cat(found)[place]

    def _is_outside(self, name: str, value: Tensor) -> Tensor:
        """Compare values with the smallest and the largest of the training split."""
        if self.kept.domains[name].categories is not None:
            return torch.zeros(value.shape[:-1], dtype=torch.bool)
        low, high = self.kept.limits(name)
        margin = 1e-6 * (high - low)
        flat = value.double().squeeze(-1).cpu()
        return (flat < low - margin) | (flat > high + margin)

    def _near(self, scores: Variables) -> Tensor:
        """Weights of each draw for each row by the distance in all of ``scores``, ``(rows, M)``.

        They are scaled so that their sum over draws is an effective number of training rows.
        """
        draws = len(next(iter(self._draws.values())))
        continuous = [name for name in scores if self.kept.domains[name].categories is None]
        scale = draws ** (1 / (len(continuous) + 4)) / 2**0.5
        size = len(next(iter(scores.values()))) if scores else 1
        exponent = torch.zeros(size, draws)
        for name in continuous:
            distance = scores[name][:, None] - self._draws[name]
            exponent.addcmul_(distance, distance, value=-(scale**2))
        weights = exponent.exp_().mul_(self.rows / draws)
        for name in scores.keys() - set(continuous):
            weights *= scores[name][:, None] == self._draws[name]
        return weights

    def _sum_near(self, scores: Variables) -> Tensor:
        return self._near(scores).sum(dim=1).double()

    def _other_causes(self, name: str) -> list[str]:
        """The other scalar causes of the effects of a variable."""
        parents = self.scm.graph.parents.values()
        others = {other for causes in parents if name in causes for other in causes} - {name}
        return sorted(others & self._draws.keys())

    def _quantile(self, scores: Variables) -> Tensor:
        """The share of training rows below the first variable where the others are similar."""
        (name, own), *others = scores.items()
        weights = self._near(dict(others))
        draws = self._draws[name]
        below = (draws < own[:, None]).float() + 0.5 * (draws == own[:, None])
        return ((weights * below).sum(dim=1) / weights.sum(dim=1)).double()


def describe_overlap(scm: StructuralCausalModel, do: Do, counts: Sequence[int]) -> str:
    """Describe the answers under an intervention that the training data do not support.

    Args:
        scm: The model.
        do: The intervention.
        counts: Number of answers with each of :data:`VERDICTS`.

    Returns:
        A sentence without a full stop; empty if all answers are supported.
    """
    _, edge, extrapolated = counts
    title, total = format_do(do, scm.variables), sum(counts)
    if extrapolated:
        reason = _beyond(scm, do) or "no training rows are near the values of the parents"
        return f"{title}: {extrapolated} of {total} answers extrapolate; {reason}"
    if edge:
        return f"{title}: {edge} of {total} answers are at the edge of the training data"
    return ""


def _beyond(scm: StructuralCausalModel, do: Do) -> str:
    """Describe the first value that is set beyond the training data."""
    kept = scm.training_distribution
    for name, value in do.items():
        value = value.value if isinstance(value, Where) else value
        domain = kept.domains.get(name)
        if domain is None or domain.categories is not None or not is_constant(value):
            continue
        low, high = kept.limits(name)
        asked = torch.as_tensor(value, dtype=torch.float64)
        if bool(((asked < low) | (asked > high)).any()):
            unit = scm.variables[name].unit
            limits = f"{format_number(low)} to {format_number(high)}"
            return f"{name} is from {limits}{unit and f' {unit}'} in the training data"
    return ""
