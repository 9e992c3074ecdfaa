"""Ensembles: answers of several models of one graph, and their disagreement."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count

import torch
from torch import Tensor

from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.variables import Do, Variable, Variables

__all__ = ["Ensemble", "Spread", "stacking_weights"]


@dataclass(frozen=True)
class Spread:
    """The standard deviation of the answers of an ensemble, and its two parts.

    total² = within² + between² (the law of total variance). The variances are estimates without
    bias, as in a random-effects analysis of variance: the noise of the means of few particles is
    not counted as disagreement. An estimate below zero becomes zero.

    Attributes:
        total: Standard deviation of all answers, ``(*batch, *event)``.
        within: Its part within members, due to noise that observations do not determine.
        between: Its part between the means of members, due to different mechanisms.
    """

    total: Tensor
    within: Tensor
    between: Tensor

    @classmethod
    def pooled(cls, members: Sequence[tuple[int, Tensor, Tensor]]) -> Spread:
        """Pool the number, the mean and the standard deviation of the particles of each member.

        Args:
            members: As of :func:`~deepscm_pl.scm.summarise`, with the divisor n − 1. Unless a
                member has several particles, ``within`` and ``between`` are NaN; ``between`` is NaN
                for a single member, too, whose error is unknown.
        """
        total = sum(n for n, _, _ in members)
        squares = [(n - 1) * deviation.square() for n, _, deviation in members]
        within = torch.stack(squares).sum(dim=0) / (total - len(members) or math.nan)
        mean = torch.stack([n * each for n, each, _ in members]).sum(dim=0) / total
        changes = [n * (each - mean).square() for n, each, _ in members]
        raw = torch.stack(changes).sum(dim=0) / total
        between = (raw - within * (len(members) - 1) / total).clamp(min=0)
        if len(members) == 1:
            return cls(within.sqrt(), within.sqrt(), torch.full_like(within, math.nan))
        return cls((within + between).sqrt(), within.sqrt(), between.sqrt())


class Ensemble:
    """A mixture of causal models: each particle of an answer comes from one member.

    Particles of a single model share its error. Members trained with different seeds reveal it
    (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    Args:
        members: Models of the same graph, with the same variables.
        weights: Weights of the members, at least 0; None for equal weights. See
            :func:`stacking_weights`.

    Raises:
        ValueError: If there is no member, graphs or variables differ, or the weights do not fit.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> make = lambda: StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> ensemble = Ensemble([make(), make(), make()])
        >>> ensemble.share(7)
        [3, 2, 2]
        >>> factual = {"a": torch.zeros(5, 1), "b": torch.ones(5, 1)}
        >>> ensemble.counterfactual(factual, {"a": 1.0}, num_particles=7)["b"].shape
        torch.Size([7, 5, 1])
    """

    def __init__(
        self, members: Sequence[StructuralCausalModel], weights: Sequence[float] | None = None
    ) -> None:
        if not members:
            raise ValueError("members: expected at least one model, but got none.")
        for number, member in enumerate(members[1:], 2):
            _check_same(members[0], member, number)
        self.members = tuple(members)
        found = [1.0] * len(members) if weights is None else [float(each) for each in weights]
        if len(found) != len(members) or min(found) < 0 or not 0 < sum(found) < float("inf"):
            raise ValueError(
                f"weights: expected {len(members)} numbers of at least 0, one for each member and "
                f"not all 0, but got {list(weights or ())}."
            )
        self.weights = tuple(each / sum(found) for each in found)

    @property
    def graph(self) -> CausalGraph:
        """The causal graph of every member."""
        return self.members[0].graph

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables of every member."""
        return self.members[0].variables

    @property
    def fitted(self) -> Tensor:
        """Whether every member has been fitted, on the device of the first."""
        fitted = [member.fitted.to(self.members[0].fitted) for member in self.members]
        return torch.stack(fitted).all()

    def __getitem__(self, name: str) -> Mechanism:
        """Return the mechanism of a variable in the first member."""
        return self.members[0][name]

    def share(self, count: int, first: int = 0, some: int | None = None) -> list[int]:
        """Divide ``count`` particles among the members by their weights, by largest remainder.

        With fewer particles than members, members with small weights give none.

        Args:
            count: Number of particles, in the order of the members.
            first: The first of the particles that are divided.
            some: Number of these; all by default.
        """
        exact = [weight * count for weight in self.weights]
        whole = [int(each) for each in exact]
        order = sorted(range(len(exact)), key=lambda k: (whole[k] - exact[k], k))
        for k in order[: count - sum(whole)]:
            whole[k] += 1
        if some is None:
            return whole
        ends = zip(whole, accumulate(whole), strict=True)
        return [max(0, min(end, first + some) - max(end - n, first)) for n, end in ends]

    def member_of(self, count: int) -> Tensor:
        """Return the index of the member of each of ``count`` particles, ``(count,)``."""
        return torch.repeat_interleave(torch.tensor(self.share(count)))

    def turns(self) -> Iterator[int]:
        """Yield the index of the member of each draw, without end.

        Any number of first draws is divided by the weights.
        """
        given = [0] * len(self.members)
        for k in count(1):
            lacking = [weight * k - n for weight, n in zip(self.weights, given, strict=True)]
            member = lacking.index(max(lacking))
            given[member] += 1
            yield member

    def sample(self, size: int) -> dict[str, Tensor]:
        """Draw ``size`` observations, ``(size, *event)`` for each variable."""
        return self._joined([member.sample(n) for member, n in self._shared(size)])

    def intervene(
        self, do: Do | Sequence[Do], size: int, shares: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Draw ``size`` observations under do(...), in the order of the members.

        See :meth:`StructuralCausalModel.intervene`; ``shares`` is that of :meth:`counterfactual`.
        """
        dim = 0 if isinstance(do, Mapping) else 1
        shared = self._shared(size, shares)
        return self._joined([member.intervene(do, n) for member, n in shared], dim)

    def counterfactual(
        self,
        factual: Variables,
        do: Do | Sequence[Do],
        num_particles: int | None = None,
        resample: int | None = None,
        shares: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Compute counterfactuals with particles of all members, in the order of the members.

        See :meth:`StructuralCausalModel.counterfactual`.

        Args:
            factual: As there.
            do: As there.
            num_particles: As there; None for one answer without draws of each member.
            resample: As there.
            shares: Number of particles of each member; :meth:`share` by default.
        """
        shared: Sequence[tuple[StructuralCausalModel, int | None]]
        if num_particles is None:
            shared = [(member, None) for member in self.members]
        else:
            shared = self._shared(num_particles, shares)
        answers = [member.counterfactual(factual, do, n, resample) for member, n in shared]
        return self._joined(answers)

    def spread(self, values: Tensor) -> Spread:
        """Decompose the standard deviation of particles.

        Args:
            values: Particles of a variable, ``(P, *batch, *event)``, in the order of the members.
        """
        parts = values.double().split([n for _, n in self._shared(len(values))])
        found = Spread.pooled([(len(part), *summarise(part)) for part in parts])
        return Spread(*(each.to(values) for each in (found.total, found.within, found.between)))

    def _shared(
        self, size: int, shares: Sequence[int] | None = None
    ) -> list[tuple[StructuralCausalModel, int]]:
        """The members that give some of ``size`` particles, with their numbers."""
        shares = self.share(size) if shares is None else shares
        if sum(shares) != size:
            raise ValueError(f"shares: expected {size} particles, but got {list(shares)}.")
        return [(member, n) for member, n in zip(self.members, shares, strict=True) if n]

    @staticmethod
    def _joined(answers: Sequence[Variables], dim: int = 0) -> dict[str, Tensor]:
        if len(answers) == 1:
            return dict(answers[0])
        return {name: torch.cat([each[name] for each in answers], dim) for name in answers[0]}


def stacking_weights(log_probs: Tensor, steps: int = 1000) -> list[float]:
    """Compute the weights of a mixture of models that maximise the probability of held-out rows.

    argmax_w Σ_n log Σ_m w_m p_m(x_n) over the simplex, by expectation maximisation: stacking of
    predictive densities (Yao et al. 2018, arXiv:1704.02030). Use bounds for models
    without an exact log p.

    Args:
        log_probs: log p_m(x_n) in nats, ``(M, N)``, of rows that no model was trained on.
        steps: Number of iterations.

    Raises:
        ValueError: If there are no rows, or a number is not finite.

    Example:
        >>> stacking_weights(torch.tensor([[-1.0, -1.0], [-9.0, -9.0]]))
        [1.0, 0.0]
    """
    if log_probs.dim() != 2 or 0 in log_probs.shape or not bool(log_probs.isfinite().all()):
        raise ValueError(
            "log_probs: expected finite numbers (members, rows), but got "
            f"{tuple(log_probs.shape)}; evaluate every member on the same rows."
        )
    exact = log_probs.double()
    weights = exact.new_full((len(exact),), 1 / len(exact)).log()
    for _ in range(steps):
        weights = (weights[:, None] + exact).log_softmax(dim=0).logsumexp(dim=1)
        weights = weights - weights.logsumexp(dim=0)
    return [round(each, 12) for each in weights.exp().tolist()]


def _check_same(first: StructuralCausalModel, other: StructuralCausalModel, number: int) -> None:
    if str(first.graph) != str(other.graph):
        raise ValueError(
            f"members: expected models of one graph, but the first has {first.graph}, and number "
            f"{number} has {other.graph}."
        )
    for name, variable in first.variables.items():
        if variable != other.variables[name]:
            raise ValueError(
                f"members: expected models of the same variables, but {name} of number {number} "
                f"differs from that of the first: {_described(other.variables[name])}, not "
                f"{_described(variable)}; train all members on the same data."
            )


def _described(variable: Variable) -> str:
    unit = f" {variable.unit}" if variable.unit else ""
    return f"{variable.domain}{unit}{' '.join(['', *variable.classes])}"
