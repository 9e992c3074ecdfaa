"""Leaving out the steps of a training whose gradients are not fit to be followed."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from deepscm_pl.checks import real_number, whole_number

__all__ = ["SkipSteps"]


class SkipSteps(pl.Callback):
    """Leaves out a step whose gradient is not finite, or longer than it may be.

    Deep hierarchical models now and then meet a batch with a gradient that would undo hours of
    training; to leave it out is what later work does (Child 2021, arXiv:2011.10650, section 3.2).
    Without gradients the optimiser changes neither weights nor its own state; schedules go on. The
    number of steps left out so far is logged as ``train/skipped_steps``. The norm is that before
    clipping; on a GPU it is waited for in every step.

    Args:
        largest_norm: Of all gradients together, in nats per unit of the weights.
        most_in_a_row: After how many steps left out in a row the training stops, for then
            something is broken.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> SkipSteps(largest_norm=1e4).largest_norm
        10000.0
    """

    def __init__(self, largest_norm: float = math.inf, most_in_a_row: int = 100) -> None:
        if largest_norm != math.inf:
            real_number("largest_norm", largest_norm, above=0)
        self.largest_norm = float(largest_norm)
        self.most_in_a_row = whole_number("most_in_a_row", most_in_a_row, least=1)
        self.skipped = 0
        self._in_a_row = 0

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Take the gradients away, if they are unfit.

        Raises:
            FloatingPointError: If too many steps in a row were left out.
        """
        gradients = [each.grad for each in pl_module.parameters() if each.grad is not None]
        norm = float(get_total_norm(gradients)) if gradients else 0.0
        if norm <= self.largest_norm and math.isfinite(norm):
            self._in_a_row = 0
        else:
            self._skip(norm, pl_module)
        pl_module.log("train/skipped_steps", float(self.skipped))

    def _skip(self, norm: float, pl_module: pl.LightningModule) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > self.most_in_a_row:
            raise FloatingPointError(
                f"stopped: {self._in_a_row} steps in a row had gradients that were not finite or "
                f"longer than {self.largest_norm:g} (the last one {norm:g}); lower the learning "
                "rate or raise largest_norm. The checkpoints saved so far are intact."
            )
        if self.skipped == 1:
            rank_zero_warn(
                f"left out step {pl_module.global_step}, whose gradient has the norm {norm:g}; "
                "train/skipped_steps counts those that follow."
            )
        for parameter in pl_module.parameters():
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The number of steps left out."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = int(state_dict["skipped"])
