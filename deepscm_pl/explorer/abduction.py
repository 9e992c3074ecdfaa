"""The noise of observations, inferred once, for any number of interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.ensemble import Ensemble
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Noise, Variables

__all__ = ["Abduction"]


@dataclass(frozen=True, eq=False)
class _Member:
    """A model with the noise of some rows, without a dimension of particles."""

    scm: StructuralCausalModel
    particles: int
    rows: Mapping[str, Tensor]
    noise: Mapping[str, Noise]


@dataclass(frozen=True, eq=False)
class Abduction:
    """Observations with their noise in each model.

    Actions and predictions follow in a fraction of the time of
    :meth:`~deepscm_pl.checkpoints.TrainedModel.counterfactual`, which infers the noise for each
    question anew. All answers share the noise, that of classes and whole numbers included, which
    observations do not determine.

    Attributes:
        ensemble: The models.
        members: Their noise.
        size: The number of observations.

    Example:
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
        >>> factual = {"a": torch.zeros(5, 1), "b": torch.ones(5, 1)}
        >>> abduction = Abduction.infer(Ensemble([scm]), factual)
        >>> abduction.draws({"a": 2.0})["b"].shape  # particles, observations, event
        torch.Size([1, 5, 1])
    """

    ensemble: Ensemble
    members: Sequence[_Member]
    size: int

    @classmethod
    @torch.no_grad()
    def infer(
        cls,
        ensemble: Ensemble,
        factual: Variables,
        particles: int | None = None,
        seed: int = 0,
    ) -> Abduction:
        """Infer the noise of observations.

        Args:
            ensemble: The models.
            factual: ``(N, *event)`` of every variable; numbers and classes may be missing, NaN.
            particles: P draws of the noise, shared by the models; None for one answer of each.
            seed: Seed of the noise.

        Raises:
            ValueError: If a variable is missing or outside of its domain.
        """
        shares = [None] * len(ensemble.members) if particles is None else ensemble.share(particles)
        size = len(factual[ensemble.graph.nodes[0]])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            members = [
                _infer(scm, factual, count, size)
                for scm, count in zip(ensemble.members, shares, strict=True)
                if count != 0
            ]
        return cls(ensemble, members, size)

    @torch.no_grad()
    def draws(self, do: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        """Answer under an intervention, ``(P, N, *event)`` of every variable.

        Args:
            do: Numbers and indices of classes, or ``(P, N, 1)`` with one for each row.

        Raises:
            ValueError: If the intervention is not valid, or an answer is not finite.
        """
        found, first = [], 0
        for member in self.members:
            some: Do = {
                name: value[first : first + member.particles].flatten(0, 1)
                if isinstance(value, Tensor)
                else value
                for name, value in do.items()
            }
            answer = member.scm.answer(member.rows, member.noise, some)
            found.append(
                {n: v.unflatten(0, (member.particles, self.size)) for n, v in answer.items()}
            )
            first += member.particles
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    def mean(self, do: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        """Average the answers over particles, ``(N, *event)``; a class is the most frequent one."""
        return average(self.ensemble, self.draws(do))


def average(ensemble: Ensemble, draws: Variables) -> dict[str, Tensor]:
    """Average ``(P, N, *event)`` over particles; a class is the most frequent one."""
    found = {}
    for name, value in draws.items():
        is_class = ensemble.variables[name].domain.categories is not None
        found[name] = value.mode(dim=0).values if is_class else value.mean(dim=0)
    return found


def _infer(
    scm: StructuralCausalModel, factual: Variables, particles: int | None, size: int
) -> _Member:
    count = particles or 1
    names = scm.graph.nodes
    rows = {name: factual[name].expand(count, *factual[name].shape) for name in names}
    if scm.is_incomplete(factual):
        # Each particle is an observation with its own inferred values.
        found = scm.infer_missing({name: factual[name] for name in names}, count)
        rows = {name: found[name].expand(rows[name].shape) for name in names}
        noise = scm.abduct(rows, None if particles is None else 1)
        flat = {n: {k: v[0].flatten(0, 1) for k, v in parts.items()} for n, parts in noise.items()}
    else:
        noise = scm.abduct(factual, particles)
        flat = {n: {k: v.flatten(0, 1) for k, v in parts.items()} for n, parts in noise.items()}
    return _Member(scm, count, {n: v.flatten(0, 1) for n, v in rows.items()}, flat)
