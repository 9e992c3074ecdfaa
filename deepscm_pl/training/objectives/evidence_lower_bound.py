"""The evidence lower bound, with warm-up of its divergences and free bits."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.mechanisms import Evidence
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.objectives.base import Objective, ObjectiveValue, TrainingProgress
from deepscm_pl.types import Variables

__all__ = ["EvidenceLowerBoundObjective"]


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

    Args:
        num_particles: Draws of the latents.
        warmup_steps: Steps until β has its final value.
        warmup_epochs: Epochs until β has its final value, instead of steps.
        free_bits: λ, in nats.
        divergence_weight: The final value of β.

    Raises:
        ValueError: If a number is negative, β is not positive, or both steps and epochs are given.

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

    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective, and β as ``kl_weight``."""
        elbo = scm.elbo(batch, self.num_particles)
        weight = self.divergence_weight_at(progress)
        terms = [
            each.log_prob.mean() - weight * self._divergence(each)
            for each in elbo.evidence.values()
        ]
        return ObjectiveValue(torch.stack(terms).sum(), elbo, {"kl_weight": weight})

    def divergence_weight_at(self, progress: TrainingProgress) -> float:
        """β."""
        return self.divergence_weight * self._warmed_up(progress)

    def _warmed_up(self, progress: TrainingProgress) -> float:
        """How much of the warm-up is done, from 0 to 1."""
        if self.warmup_steps:
            return min(progress.step / self.warmup_steps, 1.0)
        if self.warmup_epochs:
            return min(progress.epoch / self.warmup_epochs, 1.0)
        return 1.0

    def _divergence(self, evidence: Evidence) -> Tensor:
        """D, a scalar."""
        if evidence.latent is None or self.free_bits == 0:
            return evidence.divergence.mean()
        dimensions = evidence.latent.divergences
        return dimensions.flatten(0, -2).mean(dim=0).clamp(min=self.free_bits).sum()
