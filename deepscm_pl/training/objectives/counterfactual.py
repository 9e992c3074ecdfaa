"""An objective that also explains the model's own counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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

    Rows that rounding puts on the edge of an open domain, where there is no density, are left out.

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
        if not weight > 0:
            raise ValueError(f"weight: expected a positive number, but got {weight:g}.")
        self.variables = [list(names) for names in variables]
        self.weight = weight
        self.objective = (objective or EvidenceLowerBoundObjective)(num_particles)

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective; F of the counterfactuals alone as ``counterfactual_objective``."""
        factual: ObjectiveValue = self.objective(scm, batch, progress)
        if not bool(torch.isfinite(factual.objective)):
            return factual  # whatever is wrong with the batch, its own terms name it
        imagined = self.counterfactuals(scm, batch)
        if len(next(iter(imagined.values()))) == 0:
            return factual
        other: ObjectiveValue = self.objective(scm, imagined, progress)
        logged = {**factual.logged, "counterfactual_objective": other.objective.detach()}
        total = factual.objective + self.weight * other.objective
        return ObjectiveValue(total, factual.elbo, logged)

    @torch.no_grad()
    def counterfactuals(self, scm: StructuralCausalModel, batch: Variables) -> dict[str, Tensor]:
        """Counterfactuals of the rows of ``batch``, ``(B, *event)`` for each variable."""
        observed = {name: batch[name] for name in scm.graph.nodes}
        do = {name: _permuted(observed, name) for name in self._drawn_variables()}
        answers = scm.counterfactual(observed, do)
        values = {name: answer[0] for name, answer in answers.items()}
        possible = _inside(scm, values)
        return {name: value[possible] for name, value in values.items()}

    def _drawn_variables(self) -> list[str]:
        return self.variables[int(torch.randint(len(self.variables), ()))]


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
