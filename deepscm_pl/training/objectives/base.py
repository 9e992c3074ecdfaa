"""The contract of every training objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.scm import EvidenceLowerBound, StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = ["Objective", "ObjectiveValue", "TrainingProgress"]


class TrainingProgress(NamedTuple):
    """How far a training has come.

    Attributes:
        step: Steps of the optimiser so far.
        epoch: Epochs finished so far.
    """

    step: int
    epoch: int


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

    Raises:
        ValueError: If there is no draw.
    """

    def __init__(self, num_particles: int) -> None:
        super().__init__()
        self.num_particles = whole_number("num_particles", num_particles, least=1)

    @abstractmethod
    def forward(
        self, scm: StructuralCausalModel, batch: Variables, progress: TrainingProgress
    ) -> ObjectiveValue:
        """The objective of recorded values ``(B, *event)``, averaged over the batch."""
