"""An objective that also explains the model's own counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deepscm_pl.checks import real_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.objectives.base import Objective, ObjectiveValue, TrainingProgress
from deepscm_pl.training.objectives.evidence_lower_bound import EvidenceLowerBoundObjective
from deepscm_pl.types import Variables

__all__ = ["CounterfactualObjective"]


class CounterfactualObjective(Objective):
    """F(batch) + w·F(counterfactuals of the batch), for another objective F.

    For every batch one of the sets of variables is drawn, each with the same probability. The
    counterfactuals are those under do(variables := their values in the batch, permuted), one
    permutation for each variable, with one draw of the latents of each image; the variables keep
    the values that the data have, while their combinations may be new. They are constants: no
    gradient passes through how they were made, only through F's bound of them. The choice of
    permuted thickness, intensity or both is that of the guide that Pawlowski et al. (2020) publish
    with their code; there, the counterfactual is seen by q(z | ·) alone, and the bound is that of
    the factual image.

    Rows that rounding puts on the edge of an open domain, where there is no density, stay factual.
    Values are not checked, for which a step would have to wait for the device; what is NaN stays
    so. Only mixtures over grey levels wait, whose levels are found by a search.

    Args:
        num_particles: Draws of the latents in F.
        variables: Sets of variables to intervene on, such as ``[[thickness], [intensity],
            [thickness, intensity]]``.
        weight: w.
        objective: Factory of F, called with the number of draws. None for
            :class:`EvidenceLowerBoundObjective`.

    Raises:
        ValueError: If there is no set, a set is empty, or the weight is not positive; in training,
            if a variable is unknown.
    """

    def __init__(
        self,
        num_particles: int,
        variables: Sequence[Sequence[str]],
        weight: float = 1.0,
        objective: Callable[[int], Objective] | None = None,
    ) -> None:
        super().__init__(num_particles)
        if not variables or not all(variables):
            raise ValueError(
                "variables: expected lists of variables to intervene on, such as "
                f"[[thickness], [intensity]], but got {variables!r}."
            )
        self.variables = [list(names) for names in variables]
        self.weight = real_number("weight", weight, above=0)
        self.objective = (objective or EvidenceLowerBoundObjective)(num_particles)

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective; F of the counterfactuals alone as ``counterfactual_objective``."""
        factual: ObjectiveValue = self.objective(scm, batch, progress)
        other: ObjectiveValue = self.objective(scm, self.counterfactuals(scm, batch), progress)
        logged = {**factual.logged, "counterfactual_objective": other.objective.detach()}
        total = factual.objective + self.weight * other.objective
        return ObjectiveValue(total, factual.elbo, logged)

    @torch.no_grad()
    def counterfactuals(self, scm: StructuralCausalModel, batch: Variables) -> dict[str, Tensor]:
        """Counterfactuals of the rows of ``batch``, ``(B, *event)`` for each variable."""
        observed = {name: batch[name] for name in scm.graph.nodes}
        values = {name: _permuted(observed, name) for name in self._drawn_variables()}
        changed = scm.graph.descendants(*values)
        for name in scm.graph.nodes:
            if name not in values:
                values[name] = _answer(scm, name, observed, values) if name in changed else (
                    observed[name]
                )  # fmt: skip
        possible = _inside(scm, values)
        return {name: _where(possible, values[name], observed[name]) for name in scm.graph.nodes}

    def _drawn_variables(self) -> list[str]:
        return self.variables[int(torch.randint(len(self.variables), ()))]


def _answer(
    scm: StructuralCausalModel, name: str, observed: Variables, values: Variables
) -> Tensor:
    """What a variable would have been with other values of its parents, and its own noise."""
    mechanism, parents = scm[name], scm.graph.parents[name]
    noise = mechanism.abduct_recorded(observed[name], {each: observed[each] for each in parents})
    return mechanism.quantise(mechanism(noise, {each: values[each] for each in parents}))


def _where(rows: Tensor, value: Tensor, other: Tensor) -> Tensor:
    """``value`` in some rows ``(B,)``, and the other in the others."""
    return torch.where(rows.view(-1, *[1] * (value.dim() - 1)), value, other)


def _permuted(observed: Variables, name: str) -> Tensor:
    if name not in observed:
        raise ValueError(
            f"variables: unknown variable {name!r}; expected some of {', '.join(observed)}."
        )
    value = observed[name]
    return value[torch.randperm(len(value), device=value.device)]


def _inside(scm: StructuralCausalModel, values: Variables) -> Tensor:
    """Whether each row is inside of every open domain, ``(B,)``."""
    inside = [
        ((value > domain.lower) & (value < domain.upper)).flatten(1).all(dim=1)
        for value, domain in ((values[name], scm[name].domain) for name in scm.graph.nodes)
        if domain.open
    ]
    anywhere = torch.ones_like(next(iter(values.values())).flatten(1)[:, 0], dtype=torch.bool)
    return torch.stack([anywhere, *inside]).all(dim=0)
