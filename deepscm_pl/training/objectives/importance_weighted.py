"""The importance-weighted bound as an objective."""

from __future__ import annotations

import torch

from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.objectives.base import Objective, ObjectiveValue, TrainingProgress
from deepscm_pl.types import Variables

__all__ = ["ImportanceWeightedObjective"]


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
