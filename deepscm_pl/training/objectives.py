"""What a training maximises: bounds of the log-probability, and what is added to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.mechanisms import Evidence
from deepscm_pl.scm import EvidenceLowerBound, StructuralCausalModel
from deepscm_pl.training.schedule import refit_start
from deepscm_pl.variables import Variables

__all__ = [
    "CounterfactualObjective",
    "EvidenceLowerBoundObjective",
    "ImportanceWeightedObjective",
    "Objective",
    "ObjectiveValue",
    "TrainingProgress",
]

_REFIT = 0.15  # of all steps


class TrainingProgress(NamedTuple):
    """How far a training has come.

    Attributes:
        step: Steps of the optimiser so far.
        epoch: Epochs finished so far.
        total_steps: Steps of the whole training; None if they are not known.
    """

    step: int
    epoch: int
    total_steps: int | None = None


@dataclass(frozen=True)
class ObjectiveValue:
    """What an objective says of a batch.

    Attributes:
        objective: What is maximised, in nats per image; a scalar.
        elbo: The evidence lower bound by the same draws, whatever the objective makes of it.
        logged: Further numbers worth watching, by name.
    """

    objective: Tensor
    elbo: EvidenceLowerBound
    logged: Mapping[str, float | Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A number to maximise, computed from the model and a batch.

    Args:
        num_particles: Draws of the latents.

    Attributes:
        refit: Fraction of the steps, at the end of the training, in which only the parameters of
            the posteriors q are trained.
        is_weighted: Whether another number than the evidence lower bound is maximised, under which
            the best q is not the posterior.

    Raises:
        ValueError: If there is no draw.
    """

    refit: float = 0.0
    is_weighted = False

    def __init__(self, num_particles: int) -> None:
        super().__init__()
        self.num_particles = whole_number("num_particles", num_particles, least=1)

    @abstractmethod
    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective of recorded values ``(B, *event)``, averaged over the batch."""

    def is_refitting(self, progress: TrainingProgress) -> bool:
        """Whether the last phase of the training has begun, in which posteriors are refitted."""
        total = progress.total_steps
        return total is not None and progress.step >= refit_start(total, self.refit)


class EvidenceLowerBoundObjective(Objective):
    """Σ_variables E_q[log p(x | z, pa)] − β·D, averaged over the images of a batch, in nats.

    D is the divergence KL(q(z | x, pa) ‖ p(z)), averaged over the batch. With free bits λ it is
    Σ_j max(λ, KL_j) over the dimensions j of the latent, each averaged over the batch before it is
    compared: a dimension costs λ nats whether it is used or not, so that none is given up
    early (Kingma et al. 2016, arXiv:1606.04934, appendix C.8). With warm-up, β rises linearly from
    0 to its final value over the first steps or epochs (Bowman et al. 2016, arXiv:1511.06349);
    within an epoch it is constant if epochs are counted. By default β = 1 and λ = 0: the evidence
    lower bound. With β < 1 the latent holds more of the image and the noise of its pixels less
    (Alemi et al. 2018, arXiv:1711.00464), which a counterfactual carries further: noise of pixels
    says nothing of a stroke that moves. What is reported of a model is always the bound itself.

    The best q under such a weight is not the posterior: for β < 1 it is proportional to
    p(z) p(x | z)^(1/β), with about √β of the posterior's deviation. So the training ends with a
    phase in which q alone is refitted by the evidence lower bound, with β = 1 and λ = 0, and
    everything else is frozen.

    Args:
        num_particles: Draws of the latents.
        warmup_steps: Steps until β has its final value.
        warmup_epochs: Epochs until β has its final value, instead of steps.
        free_bits: λ, in nats.
        divergence_weight: The final value of β.
        refit: Fraction of all steps in which q is refitted at the end, 0 for no such phase. None
            for 0.15 if β is not 1 or there are free bits, else 0.

    Raises:
        ValueError: If a number is negative, β is not positive, ``refit`` is not below 1, or both
            steps and epochs are given.

    Example:
        >>> objective = EvidenceLowerBoundObjective(1, warmup_steps=100)
        >>> objective.divergence_weight_at(TrainingProgress(step=25, epoch=0))
        0.25
    """

    def __init__(
        self,
        num_particles: int = 1,
        warmup_steps: int = 0,
        warmup_epochs: int = 0,
        free_bits: float = 0.0,
        divergence_weight: float = 1.0,
        refit: float | None = None,
    ) -> None:
        super().__init__(num_particles)
        whole_number("warmup_steps", warmup_steps, least=0)
        whole_number("warmup_epochs", warmup_epochs, least=0)
        real_number("free_bits", free_bits, least=0)
        real_number("divergence_weight", divergence_weight, above=0)
        if warmup_steps and warmup_epochs:
            raise ValueError(
                f"warmup_steps and warmup_epochs: expected one of them, but got {warmup_steps} and "
                f"{warmup_epochs}."
            )
        self.warmup_steps, self.warmup_epochs = warmup_steps, warmup_epochs
        self.free_bits = free_bits
        self.divergence_weight = divergence_weight
        self.is_weighted = divergence_weight != 1 or free_bits != 0
        if refit is None:
            refit = _REFIT if self.is_weighted else 0.0
        self.refit = real_number("refit", refit, least=0, below=1)

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective, and β as ``kl_weight``."""
        elbo = scm.elbo(batch, self.num_particles)
        weight = self.divergence_weight_at(progress)
        free_bits = 0.0 if self.is_refitting(progress) else self.free_bits
        terms = [
            each.log_prob.mean() - weight * _divergence(each, free_bits)
            for each in elbo.evidence.values()
        ]
        return ObjectiveValue(torch.stack(terms).sum(), elbo, {"kl_weight": weight})

    def divergence_weight_at(self, progress: TrainingProgress) -> float:
        """β."""
        if self.is_refitting(progress):
            return 1.0
        return self.divergence_weight * self._warmed_up(progress)

    def _warmed_up(self, progress: TrainingProgress) -> float:
        """How much of the warm-up is done, from 0 to 1."""
        if self.warmup_steps:
            return min(progress.step / self.warmup_steps, 1.0)
        if self.warmup_epochs:
            return min(progress.epoch / self.warmup_epochs, 1.0)
        return 1.0


def _divergence(evidence: Evidence, free_bits: float) -> Tensor:
    """D, a scalar."""
    if evidence.latent is None or free_bits == 0:
        return evidence.divergence.mean()
    dimensions = evidence.latent.divergences
    return dimensions.flatten(0, -2).mean(dim=0).clamp(min=free_bits).sum()


class ImportanceWeightedObjective(Objective):
    """Σ_variables log (1/K) Σ_k p(x, z_k | pa) / q(z_k | x, pa), averaged over a batch, in nats.

    z_k are K draws from q(z | x, pa) (Burda et al. 2016, arXiv:1509.00519, equation 8), through
    which the gradient passes. A tighter bound than the evidence lower bound, and one that asks less
    of q. The gradient that the encoder sees grows noisier with K (Rainforth et al. 2018,
    arXiv:1802.04537); 5 to 50 draws are usual.

    Args:
        num_particles: K.

    Raises:
        ValueError: If K is less than 2: one draw is the evidence lower bound, with a divergence by
            chance instead of the exact one.
    """

    def __init__(self, num_particles: int) -> None:
        super().__init__(num_particles)
        if num_particles < 2:
            raise ValueError(
                "num_particles: expected at least 2 for the importance-weighted bound, but got "
                f"{num_particles}; set the model's num_particles, such as 8."
            )

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective."""
        elbo = scm.elbo(batch, self.num_particles)
        terms = [each.importance_weighted_bound.mean() for each in elbo.evidence.values()]
        return ObjectiveValue(torch.stack(terms).sum(), elbo)


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
        self.refit, self.is_weighted = self.objective.refit, self.objective.is_weighted

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
