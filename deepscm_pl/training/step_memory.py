"""The memory of a training or evaluation step, estimated before it is taken."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl

from deepscm_pl.mechanisms import ConditionalVAE
from deepscm_pl.model_memory import bytes_of, require_memory_for
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["require_evaluation_memory", "require_training_memory"]

_SINGLE = 4
"""Bytes of a number in single precision."""


def require_training_memory(
    trainer: pl.Trainer, scm: StructuralCausalModel, num_particles: int
) -> None:
    """Raise where a training cannot fit: weights with their gradients, or the decoder's output.

    Raises:
        ValueError: Naming ``num_particles`` or ``mechanisms`` and both sizes.
    """
    device = trainer.strategy.root_device
    require_memory_for("mechanisms", "the training", 2 * bytes_of(scm), device)
    outputs = sum(each.outputs * math.prod(each.shape[1:]) for each in _with_latent(scm))
    wanted = _SINGLE * num_particles * _rows(trainer) * outputs
    require_memory_for("num_particles", num_particles, wanted, device)


def require_evaluation_memory(
    trainer: pl.Trainer, scm: StructuralCausalModel, num_particles: int
) -> None:
    """Raise where the latents of an evaluation step cannot fit.

    Raises:
        ValueError: Naming ``num_evaluation_particles`` and both sizes.
    """
    latents = sum(each.latent for each in _with_latent(scm))
    wanted = _SINGLE * num_particles * _rows(trainer) * latents
    require_memory_for(
        "num_evaluation_particles", num_particles, wanted, trainer.strategy.root_device
    )


def _with_latent(scm: StructuralCausalModel) -> list[ConditionalVAE]:
    found = (scm[name] for name in scm.image_variables)
    return [each for each in found if isinstance(each, ConditionalVAE)]


def _rows(trainer: pl.Trainer) -> int:
    """The rows of a batch, or 1 where they are not known."""
    data: Any = getattr(trainer, "datamodule", None)
    size = getattr(data, "batch_size", 1)
    if hasattr(data, "variables"):
        size = min(size, len(next(iter(data.variables("train").values()))))
    return int(size)
