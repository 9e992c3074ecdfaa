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

__all__ = ["OneCycle", "Optimisation", "number_of_steps", "refit_start"]


@dataclass(frozen=True)
class Optimisation:
    """An optimiser and its schedule, before there are parameters.

    Attributes:
        optimizer: Factory of the optimiser.
        scheduler: Factory of the schedule, stepped after every training step; None for none.
    """

    optimizer: Callable[[Iterable[Any]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None

    def configure(
        self,
        trainer: pl.Trainer,
        parameters: Iterable[Any],
        monitor: str,
        refit: float = 0.0,
    ) -> Any:
        """What Lightning's ``configure_optimizers`` returns.

        Args:
            trainer: The trainer, which knows the number of steps.
            parameters: Parameters, or groups of them.
            monitor: The quantity that ``ReduceLROnPlateau`` watches after every epoch.
            refit: Fraction of the steps at the end over which a :class:`OneCycle` makes a second
                cycle.

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
            made.total_steps = number_of_steps(trainer, "scheduler: OneCycle")
            made.restart = refit_start(made.total_steps, refit)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": made, "interval": "step"}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimisation:
        """The same: factories of a command line hold on to its trainer, which cannot be copied."""
        return self


def number_of_steps(trainer: pl.Trainer, needed_by: str) -> int:
    """Return the number of steps of a training.

    Raises:
        ValueError: If it is not limited; the message names ``needed_by``.
    """
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise ValueError(
            f"{needed_by} has to know the number of training steps; give "
            "--trainer.max_epochs or --trainer.max_steps."
        )
    return int(steps)


def refit_start(total_steps: int, refit: float) -> int:
    """Return the first of the last steps that are a fraction ``refit`` of all.

    Example:
        >>> refit_start(1000, 0.15), refit_start(1000, 0.0)
        (850, 1000)
    """
    return total_steps - int(refit * total_steps)


class OneCycle(LambdaLR):
    """Rise to the learning rate of each group along a half cosine, then fall to nearly zero.

    The shape of Smith and Topin (2018, arXiv:1708.07120), as a factor of every group's own learning
    rate, stepped once per training step. Unlike :class:`torch.optim.lr_scheduler.OneCycleLR` it
    needs no number of steps: the model fills in those of the run. If the posterior is refitted at
    the end, that phase has a cycle of its own.

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
        self.restart: int | None = None
        self.warmup, self.start, self.end = warmup, start, end
        super().__init__(optimizer, self.factor)

    def state_dict(self) -> dict[str, Any]:
        """The state, without the numbers of steps, which are those of the run that goes on."""
        own = ("total_steps", "restart")
        return {name: v for name, v in super().state_dict().items() if name not in own}

    def factor(self, step: int) -> float:
        """The factor at ``step``."""
        if not self.total_steps:
            return self.start
        length = restart = self.total_steps if self.restart is None else self.restart
        if restart < self.total_steps and step >= restart:
            length, step = self.total_steps - restart, step - restart
        rising = max(self.warmup * length, 1.0)
        falling = max(length - rising, 1.0)
        if step < rising:
            return _half_cosine(self.start, 1.0, step / rising)
        return _half_cosine(1.0, self.end, min((step - rising) / falling, 1.0))


def _half_cosine(begin: float, end: float, fraction: float) -> float:
    return begin + (end - begin) * (1 - math.cos(math.pi * fraction)) / 2
