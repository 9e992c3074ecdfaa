"""Trainings that stop before what is not finite gets into the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from deepscm_pl.runs.finite import (
    BatchRecord,
    FiniteWatch,
    Problem,
    describe_problem,
    gradient_norm,
)
from deepscm_pl.runs.repeatable import RepeatableModule
from deepscm_pl.variables import Variables

__all__ = ["WatchedModule", "evaluate_average"]


class WatchedModule(RepeatableModule):
    """Base of modules that stop where a loss or a gradient is not finite, and say why.

    A subclass hands what it knows of a training batch to ``self.watch.note``, see :meth:`record`,
    and may say in :meth:`gradient_groups` whose gradients are told apart. A checkpoint is saved
    only if all steps so far were finite.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watch = FiniteWatch()

    def gradient_groups(self) -> Mapping[str, Iterable[Tensor]]:
        """Parameters, by what they are called when their gradient is not finite."""
        return {"the network": self.parameters()}

    def record(
        self, batch: Variables, number: int, loss: Tensor, quantities: Mapping[str, Tensor]
    ) -> BatchRecord:
        """What may have to be told of a batch.

        Args:
            batch: The batch.
            number: In its epoch.
            loss: A scalar.
            quantities: Its terms, a value per image, ``(batch,)``.
        """
        terms = {name: values.detach() for name, values in quantities.items()}
        return BatchRecord(self.current_epoch, number, loss.detach(), terms, batch.get("index"))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop where the loss or a gradient is not finite.

        Raises:
            FloatingPointError: If so; on a GPU a few steps later.
        """
        norms = {name: gradient_norm(group) for name, group in self.gradient_groups().items()}
        found = {name: norm for name, norm in norms.items() if norm is not None}
        if not found:  # a callback has taken the gradients away
            self.watch.skip()
        # A scaled gradient may overflow: then the scaler leaves the step out.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self.stop_at(self.watch.step({} if scaled else found))

    def on_train_end(self) -> None:
        """Wait for what is still on its way to be looked at."""
        self.stop_at(self.watch.finish())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save nothing that is not finite.

        Raises:
            FloatingPointError: If the weights come from a step that was not finite.
        """
        super().on_save_checkpoint(checkpoint)
        self.stop_at(self.watch.finish())

    def stop_at(self, problem: Problem | None) -> None:
        """Raise, if there is a problem.

        Raises:
            FloatingPointError: If so.
        """
        if problem is None:
            return
        finite = all(bool(torch.isfinite(each).all()) for each in self.parameters())
        weights = "" if finite else " The parameters are no longer finite."
        raise FloatingPointError(
            f"{describe_problem(problem, self.trainer)}{weights} Lower the learning rate, clip "
            "gradients (--trainer.gradient_clip_val 1), leave such steps out (the callback "
            "deepscm_pl.callbacks.SkipSteps), or look at these images."
        )


def evaluate_average(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Make ``checkpoint`` load averaged weights unless a training goes on from it.

    Lightning's averaging callbacks keep the average as ``state_dict`` and the weights that the
    optimiser moves as ``current_model_state``; right after a training they would put the latter
    into a model that is tested.
    """
    if trainer.state.fn != TrainerFn.FITTING and "current_model_state" in checkpoint:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
