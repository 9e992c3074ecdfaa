"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.runs.training_state import make_optimizer, make_scheduler
from deepscm_pl.training.steps import fuse

__all__ = ["OneCycle", "Optimisation"]


@dataclass(frozen=True)
class Optimisation:
    """An optimiser and its schedule, before there are parameters.

    Attributes:
        optimizer: Factory of the optimiser.
        scheduler: Factory of the schedule, stepped after every training step; None for none.
    """

    optimizer: Callable[[Iterable[Any]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None

    def configure(self, trainer: pl.Trainer, parameters: Iterable[Any], monitor: str) -> Any:
        """What Lightning's ``configure_optimizers`` returns.

        Args:
            trainer: The trainer, which knows the number of steps.
            parameters: Parameters, or groups of them.
            monitor: The quantity that ``ReduceLROnPlateau`` watches after every epoch.

        Raises:
            ValueError: If a :class:`OneCycle` cannot know the number of steps, or one of both
                cannot be made or cannot step.
        """
        optimizer = fuse(make_optimizer(self.optimizer, parameters))
        if self.scheduler is None:
            return optimizer
        made = make_scheduler(self.scheduler, optimizer)
        if isinstance(made, ReduceLROnPlateau):
            plateau = {"scheduler": made, "monitor": monitor}
            return {"optimizer": optimizer, "lr_scheduler": plateau}
        if isinstance(made, OneCycle) and made.total_steps is None:
            made.total_steps = _number_of_steps(trainer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": made, "interval": "step"}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimisation:
        """The same: factories of a command line hold on to its trainer, which cannot be copied."""
        return self


def _number_of_steps(trainer: pl.Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise ValueError(
            "scheduler: OneCycle has to know the number of training steps; give "
            "--trainer.max_epochs or --trainer.max_steps."
        )
    return int(steps)


class OneCycle(LambdaLR):
    """Rise to the learning rate of each group along a half cosine, then fall to nearly zero.

    The shape of Smith and Topin (2018, arXiv:1708.07120), as a factor of every group's own learning
    rate, stepped once per training step. Unlike :class:`torch.optim.lr_scheduler.OneCycleLR` it
    needs no number of steps: the model fills in those of the run.

    Args:
        optimizer: Its groups' learning rates are the peaks.
        total_steps: Number of steps; ``None`` until known.
        warmup: Fraction of the steps in which the rate rises.
        start: Factor at the first step.
        end: Factor at the last step.

    Raises:
        ValueError: If a fraction is not between 0 and 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 0.25,
        start: float = 0.04,
        end: float = 1e-3,
    ) -> None:
        for name, value in (("warmup", warmup), ("start", start), ("end", end)):
            real_number(name, value, least=0, most=1)
        if total_steps is not None:
            whole_number("total_steps", total_steps, least=1)
        self.total_steps = total_steps
        self.warmup, self.start, self.end = warmup, start, end
        super().__init__(optimizer, self.factor)

    def state_dict(self) -> dict[str, Any]:
        """The state, without the number of steps, which is that of the run that goes on."""
        return {name: v for name, v in super().state_dict().items() if name != "total_steps"}

    def factor(self, step: int) -> float:
        """The factor at ``step``."""
        if not self.total_steps:
            return self.start
        rising = max(self.warmup * self.total_steps, 1.0)
        falling = max(self.total_steps - rising, 1.0)
        if step < rising:
            return _half_cosine(self.start, 1.0, step / rising)
        return _half_cosine(1.0, self.end, min((step - rising) / falling, 1.0))


def _half_cosine(begin: float, end: float, fraction: float) -> float:
    return begin + (end - begin) * (1 - math.cos(math.pi * fraction)) / 2
