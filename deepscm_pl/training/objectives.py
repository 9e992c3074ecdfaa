"""Training objectives: bounds of the log-probability, and additional terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepscm_pl.checks import real_number, shown, whole_number
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
    "answered_values",
    "counterfactual_values",
    "make_objective",
    "permuted",
]

_REFIT = 0.15  # of all steps


class TrainingProgress(NamedTuple):
    """The progress of a training.

    Attributes:
        step: Number of completed optimiser steps.
        epoch: Number of completed epochs.
        total_steps: Number of steps of the whole training; None if unknown.
    """

    step: int
    epoch: int
    total_steps: int | None = None


@dataclass(frozen=True)
class ObjectiveValue:
    """The value of an objective for a batch.

    Attributes:
        objective: The scalar to maximise, in nats per image.
        elbo: The evidence lower bound of the same draws.
        logged: Further quantities to log, by name.
    """

    objective: Tensor
    elbo: EvidenceLowerBound
    logged: Mapping[str, float | Tensor] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """A scalar to maximise, computed from the model, a batch and ``num_particles`` draws.

    Attributes:
        refit: Fraction of the steps, at the end of the training, in which only the parameters of
            the posteriors q are trained.
        is_weighted: Whether the objective differs from the evidence lower bound, so that the best q
            is not the posterior.
        needs_trained: Whether the training starts from a trained model.
    """

    refit: float = 0.0
    is_weighted = False
    needs_trained = False

    def __init__(self, num_particles: int) -> None:
        super().__init__()
        self.num_particles = whole_number("num_particles", num_particles, least=1)

    @abstractmethod
    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective of recorded values ``(B, *event)``, averaged over the batch."""

    def freeze(self, scm: StructuralCausalModel) -> None:
        """Freeze what the training does not change; it is called before optimisers are made."""

    def start(self, scm: StructuralCausalModel, data: Any) -> None:
        """Prepare the training with its data module, on every process before the first step."""

    @property
    def provenance(self) -> dict[str, str]:
        """What else determined the weights, by name: plain text for the checkpoint."""
        return {}

    def is_refitting(self, progress: TrainingProgress) -> bool:
        """Whether the last phase of the training has begun, in which posteriors are refitted."""
        total = progress.total_steps
        return total is not None and progress.step >= refit_start(total, self.refit)


class EvidenceLowerBoundObjective(Objective):
    """The evidence lower bound with a weighted divergence, in nats per image.

    It is Σ_variables E_q[log p(x | z, pa)] − β·D, averaged over the images of a batch.
    D is the divergence KL(q(z | x, pa) ‖ p(z)), averaged over the batch. With free bits λ it is
    Σ_j max(λ, KL_j) over the dimensions j of the latent, where KL_j is averaged over the batch: a
    dimension costs λ nats even if it is unused, so none is abandoned early (Kingma et al. 2016,
    arXiv:1606.04934, appendix C.8). With warm-up, β rises linearly from 0 to its final value over
    the first steps or epochs (Bowman et al. 2016, arXiv:1511.06349). The default, β = 1 and λ = 0,
    is the evidence lower bound. With β < 1, the latent describes more of the image, and the pixel
    noise less (Alemi et al. 2018, arXiv:1711.00464), which improves counterfactuals: pixel noise
    does not follow a moving stroke. The reported bound of a model is always that of the default.

    With a latent at several scales and a fine weight f, the divergence of scale l = 0, …, L − 1,
    the coarsest first, starts with the weight f·l/(L − 1) instead of 0, and changes linearly to β
    in the warm-up: information enters at the coarsest scale that can express it, and finer ones add
    the rest, as in the progressive training of Li et al. 2020 (arXiv:2002.10549).

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
        fine_weight: f, the weight of the finest scale at the start of the warm-up.

    Raises:
        ValueError: If a number is negative, β is not positive, ``refit`` is not below 1, both steps
            and epochs are given, or there is a fine weight without a warm-up.

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
        fine_weight: float = 0.0,
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
        real_number("fine_weight", fine_weight, least=0)
        if fine_weight and not (warmup_steps or warmup_epochs):
            raise ValueError(
                f"fine_weight: expected a warm-up in which it ends, but got {fine_weight:g} and no "
                "warm-up; set warmup_steps or warmup_epochs."
            )
        self.fine_weight = fine_weight
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
        """Return the objective, and log β as ``kl_weight``."""
        elbo = scm.elbo(batch, self.num_particles, is_training=True)
        weight = self.divergence_weight_at(progress)
        free_bits = 0.0 if self.is_refitting(progress) else self.free_bits
        terms = [
            # The divergence of a missing value is not weighted.
            each.log_prob.mean() - _divergence(each, free_bits, self._weights(each, progress))
            for each in elbo.evidence.values()
        ]
        return ObjectiveValue(torch.stack(terms).sum(), elbo, {"kl_weight": weight})

    def divergence_weight_at(self, progress: TrainingProgress) -> float:
        """Return β at the given progress."""
        if self.is_refitting(progress):
            return 1.0
        return self.divergence_weight * self._warmed(progress)

    def _warmed(self, progress: TrainingProgress) -> float:
        """The completed fraction of the warm-up."""
        if self.warmup_steps:
            return min(progress.step / self.warmup_steps, 1.0)
        return min(progress.epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    def _weights(self, evidence: Evidence, progress: TrainingProgress) -> float | Tensor:
        """The weight of the divergence; of each dimension ``(J,)`` if that differs by scale."""
        # The divergence of a missing value is not weighted.
        if evidence.latent is None:
            return 1.0
        weight, scales = self.divergence_weight_at(progress), evidence.latent.scales
        start = self.fine_weight * (1 - self._warmed(progress))
        if start == 0 or len(scales) < 2 or self.is_refitting(progress):
            return weight
        last = len(scales) - 1
        parts = [torch.full((n,), weight + start * k / last) for k, n in enumerate(scales)]
        return torch.cat(parts).to(evidence.latent.divergences)


def _divergence(evidence: Evidence, free_bits: float, weights: float | Tensor) -> Tensor:
    """The weighted divergence D, a scalar."""
    if evidence.latent is None or (free_bits == 0 and not isinstance(weights, Tensor)):
        return weights * evidence.divergence.mean()
    dimensions = evidence.latent.divergences.flatten(0, -2).mean(dim=0)
    return (weights * dimensions.clamp(min=free_bits)).sum()


class ImportanceWeightedObjective(Objective):
    """The importance-weighted bound of a batch, in nats per image.

    It is Σ_variables log (1/K) Σ_k p(x, z_k | pa) / q(z_k | x, pa), where z_k are K =
    ``num_particles`` reparametrised draws from q(z | x, pa) (Burda et al. 2016, arXiv:1509.00519,
    equation 8). The bound is tighter than the evidence lower bound, and less sensitive to q. The
    gradient of the encoder becomes noisier with K (Rainforth et al. 2018, arXiv:1802.04537); 5 to
    50 draws are usual.

    Raises:
        ValueError: If K is less than 2: the bound of a single draw is a noisier evidence lower
            bound.
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
        """Return the objective."""
        elbo = scm.elbo(batch, self.num_particles, is_training=True)
        terms = [each.importance_weighted_bound.mean() for each in elbo.evidence.values()]
        return ObjectiveValue(torch.stack(terms).sum(), elbo)


class CounterfactualObjective(Objective):
    """Another objective F of a batch and its counterfactuals, F(batch) + w·F(counterfactuals).

    For every batch one of the sets of variables is drawn uniformly. Each of its variables is set to
    its values in the batch, permuted separately, and each counterfactual uses one draw of the
    latents: the values occur in the data, but their combinations may be new. Counterfactuals are
    constants; gradients pass only through F's bound of them. Pawlowski et al. (2020) intervene on
    the same sets in the guide of their published code, where only q(z | ·) receives the
    counterfactual, and the bound is that of the factual image.

    Rows that rounding moves to the edge of an open domain, where there is no density, stay factual.
    Values are not checked, which would synchronise with the device, and NaN remains NaN. Only
    mixtures over grey levels synchronise, because they search for the level.

    Args:
        num_particles: Draws of the latents in F.
        variables: Sets of variables to intervene on, such as ``[[thickness], [intensity],
            [thickness, intensity]]``.
        weight: The weight w.
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
        """Return the objective; ``counterfactual_objective`` is F of the counterfactuals."""
        factual: ObjectiveValue = self.objective(scm, batch, progress)
        changed: ObjectiveValue = self.objective(scm, self.counterfactuals(scm, batch), progress)
        logged = {**factual.logged, "counterfactual_objective": changed.objective.detach()}
        total = factual.objective + self.weight * changed.objective
        return ObjectiveValue(total, factual.elbo, logged)

    @torch.no_grad()
    def counterfactuals(self, scm: StructuralCausalModel, batch: Variables) -> dict[str, Tensor]:
        """Counterfactuals of the rows of ``batch``, ``(B, *event)`` for each variable."""
        observed = scm.drawn_complete({name: batch[name] for name in scm.graph.nodes})
        return counterfactual_values(scm, observed, self._drawn_variables())

    def _drawn_variables(self) -> list[str]:
        return self.variables[int(torch.randint(len(self.variables), ()))]


def make_objective(factory: Callable[[int], Objective] | None, num_particles: int) -> Objective:
    """Make an objective; None for :class:`EvidenceLowerBoundObjective`.

    Raises:
        ValueError: If ``num_particles`` is not positive, or the factory returns another object.
    """
    whole_number("num_particles", num_particles, least=1)
    made = (factory or EvidenceLowerBoundObjective)(num_particles)
    if not isinstance(made, Objective):
        raise ValueError(f"objective: expected an Objective, but got {shown(made)}.")
    return made


def counterfactual_values(
    scm: StructuralCausalModel, observed: Variables, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return counterfactuals of complete rows under values that are permuted within the batch.

    See :func:`answered_values`.

    Args:
        scm: The causal model.
        observed: Recorded values, ``(B, *event)``.
        names: The variables to intervene on, each of which is permuted separately.
    """
    return answered_values(scm, observed, {name: permuted(observed, name) for name in names})


def answered_values(
    scm: StructuralCausalModel,
    observed: Variables,
    asked: Mapping[str, Tensor],
    is_likeliest: bool = False,
) -> dict[str, Tensor]:
    """Return counterfactuals of complete rows, through which gradients pass.

    Recorded values are returned; where gradients are computed, they pass through the continuous
    values unchanged. Rows at the edge of an open domain stay factual.

    Args:
        scm: The causal model.
        observed: Recorded values, ``(B, *event)``.
        asked: The values of the variables that are intervened on, ``(B, *event)``.
        is_likeliest: Whether the noise is the likeliest one; otherwise it is drawn.
    """
    values = dict(asked)
    changed = scm.graph.descendants(*values)
    for name, parents in scm.graph.parents.items():
        if name in values:
            continue
        values[name] = observed[name]
        if name in changed:
            mechanism = scm[name]
            factual_parents = {parent: observed[parent] for parent in parents}
            infer = mechanism.likeliest if is_likeliest else mechanism.abduct_recorded
            noise = mechanism.coupled(infer(observed[name], factual_parents), factual_parents)
            answer = mechanism(noise, {parent: values[parent] for parent in parents})
            values[name] = mechanism.quantise(answer)
            if answer.requires_grad:
                values[name] = values[name].detach() + (answer - answer.detach())
    possible = _is_inside(scm, values)
    for name, value in values.items():
        rows = possible.view(-1, *[1] * (value.dim() - 1))
        values[name] = torch.where(rows, value, observed[name])
    return {name: values[name] for name in scm.graph.nodes}


def permuted(observed: Variables, name: str) -> Tensor:
    """Return the values of a variable, permuted among the rows."""
    if name not in observed:
        raise ValueError(
            f"variables: unknown variable {name!r}; expected some of {', '.join(observed)}."
        )
    value = observed[name]
    return value[torch.randperm(len(value), device=value.device)]


def _is_inside(scm: StructuralCausalModel, values: Variables) -> Tensor:
    """Whether each row is inside of every open domain, ``(B,)``."""
    first = next(iter(values.values()))
    inside = torch.ones(len(first), dtype=torch.bool, device=first.device)
    for name in scm.graph.nodes:
        value, domain = values[name], scm[name].domain
        if domain.open:
            inside &= ((value > domain.lower) & (value < domain.upper)).flatten(1).all(dim=1)
    return inside
