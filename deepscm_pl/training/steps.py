"""Whether all rows of a data set are possible, before any training."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.mechanisms import ConditionalVAE
from deepscm_pl.model_memory import bytes_of, require_memory_for
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

__all__ = ["check_rows", "fuse", "require_evaluation_memory", "require_training_memory"]


def check_rows(scm: StructuralCausalModel, data: CausalDataModule, split: Split) -> None:
    """Raise unless every value in a split is one that the model holds possible.

    Args:
        scm: The model.
        data: The data.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        ValueError: Naming the variable, the row and whose it is, what was expected and what came.
    """
    variables = data.variables(split)
    for name in scm.graph.nodes:
        if name not in variables:
            continue  # the model says what is missing
        domain = scm[name].domain
        try:
            domain.check(name, variables[name])
        except ValueError as error:
            row = _first_row_outside(domain, variables[name])
            if row is None:
                raise
            names = data.row_names(split)
            whose = "" if names is None else f" ({names[row]})"
            raise ValueError(
                f"data: row {row}{whose} of the {split} split: {error} Correct it, leave it out, "
                f"or give {name} a mechanism whose values it is one of."
            ) from None


def _first_row_outside(domain: Domain, values: Tensor) -> int | None:
    for row, value in enumerate(values):
        if not bool(domain.contains(value).all()):
            return row
    return None


_Kind = TypeVar("_Kind", bound=Optimizer)

_DEVICES = ("cpu", "cuda")


def fuse(optimizer: _Kind) -> _Kind:
    """Let each step be one kernel over all parameters, unless something else was asked for.

    A step of Adam takes about a quarter of the time then; what it does is the same up to rounding.

    Args:
        optimizer: The optimiser; others than Adam and AdamW stay as they are.

    Example:
        >>> import torch
        >>> weights = torch.nn.Parameter(torch.ones(3))
        >>> fuse(torch.optim.Adam([weights])).param_groups[0]["fused"]
        True
        >>> fuse(torch.optim.Adam([weights], foreach=True)).param_groups[0]["fused"] is None
        True
    """
    if type(optimizer) not in (Adam, AdamW):
        return optimizer
    for group in optimizer.param_groups:
        is_open = group["fused"] is None and not group.get("foreach")
        needs_more = group.get("differentiable") or group.get("capturable")
        fits = all(
            each.is_floating_point() and each.device.type in _DEVICES for each in group["params"]
        )
        if is_open and fits and not needs_more:
            group["fused"] = True
    return optimizer


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
