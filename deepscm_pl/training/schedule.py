"""Optimisers and schedules of their learning rates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.runs.training_state import make_optimizer, make_scheduler

__all__ = [
    "OneCycle",
    "Optimisation",
    "check_learning_rates",
    "fuse",
    "number_of_steps",
    "refit_start",
]

_Kind = TypeVar("_Kind", bound=Optimizer)


@dataclass(frozen=True)
class Optimisation:
    """Factories of an optimiser and of its schedule, which steps after every training step."""

    optimizer: Callable[[Iterable[Any]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None

    def configure(
        self, trainer: pl.Trainer, parameters: Iterable[Any], monitor: str, refit: float = 0.0
    ) -> Any:
        """Make the result of Lightning's ``configure_optimizers``.

        Args:
            trainer: The trainer, for the number of steps.
            parameters: Parameters, or groups of them.
            monitor: The quantity that ``ReduceLROnPlateau`` reads after every epoch.
            refit: Fraction of the steps at the end in which a :class:`OneCycle` makes a second
                cycle.

        Raises:
            ValueError: If a :class:`OneCycle` of another length is combined with ``refit``.
        """
        optimizer = fuse(make_optimizer(self.optimizer, parameters))
        if self.scheduler is None:
            return optimizer
        made = make_scheduler(self.scheduler, optimizer)
        if isinstance(made, ReduceLROnPlateau):
            plateau = {"scheduler": made, "monitor": monitor}
            return {"optimizer": optimizer, "lr_scheduler": plateau}
        if isinstance(made, OneCycle) and (made.total_steps is None or refit):
            steps = number_of_steps(trainer, "scheduler: OneCycle")
            if made.total_steps not in (None, steps):
                raise ValueError(
                    f"scheduler: OneCycle: total_steps: expected {steps}, the steps of the "
                    f"training, but got {made.total_steps}: the posterior is refitted in a cycle "
                    "of its own in the last of them; omit total_steps, or set the objective's "
                    "refit to 0."
                )
            made.total_steps, made.restart = steps, refit_start(steps, refit)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": made, "interval": "step"}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Optimisation:
        """Return itself: factories of a command line refer to its trainer, which has no copies."""
        return self


_PEAK_OF_REFIT = 0.5


def check_learning_rates(rates: Mapping[str, float], variables: Collection[str]) -> None:
    """Raise ValueError unless learning rates are positive and those of known variables."""
    for name, rate in rates.items():
        if name not in variables:
            raise ValueError(
                f"learning_rates: unknown variable {name!r}; expected some of "
                f"{', '.join(variables)}."
            )
        real_number(f"learning_rates.{name}", rate, above=0)


def number_of_steps(trainer: pl.Trainer, needed_by: str) -> int:
    """Return the number of steps of a training; ValueError, naming ``needed_by``, if unlimited."""
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise ValueError(
            f"{needed_by} needs the number of training steps; give --trainer.max_epochs or "
            "--trainer.max_steps."
        )
    return int(steps)


def fuse(optimizer: _Kind) -> _Kind:
    """Let each step of Adam or AdamW be one kernel over all parameters, unless set otherwise.

    A fused step takes about a quarter of the time and differs by rounding only.

    Example:
        >>> weights = torch.nn.Parameter(torch.ones(3))
        >>> fuse(torch.optim.Adam([weights])).param_groups[0]["fused"]
        True
        >>> fuse(torch.optim.Adam([weights], foreach=True)).param_groups[0]["fused"] is None
        True
    """
    if type(optimizer) not in (Adam, AdamW):
        return optimizer
    for group in optimizer.param_groups:
        is_set = group["fused"] is not None or group.get("foreach")
        is_special = group.get("differentiable") or group.get("capturable")
        has_kernel = all(
            each.is_floating_point() and each.device.type in ("cpu", "cuda")
            for each in group["params"]
        )
        if has_kernel and not is_set and not is_special:
            group["fused"] = True
    return optimizer


def refit_start(total_steps: int, refit: float) -> int:
    """Return the first of the last steps that are a fraction ``refit`` of all.

    Example:
        >>> refit_start(1000, 0.15), refit_start(1000, 0.0)
        (850, 1000)
    """
    return total_steps - int(refit * total_steps)


class OneCycle(LambdaLR):
    """A rise to the learning rate of each group along a half cosine, then a fall to nearly zero.

    The schedule of :class:`torch.optim.lr_scheduler.OneCycleLR` (Smith and Topin 2018,
    arXiv:1708.07120) for each group's own learning rate, stepped once per training step. The number
    of steps need not be given: :class:`Optimisation` sets that of the run. If the posterior is
    refitted at the end, that phase has a cycle of its own with half of the rates, at which trained
    encoders stay stable, and the number has to be that of the run.

    Args:
        optimizer: An optimiser, the learning rates of whose groups are the peaks.
        total_steps: Number of steps; ``None`` for that of the run.
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
        """The state without the numbers of steps, which a resumed run sets anew."""
        own = ("total_steps", "restart")
        return {name: v for name, v in super().state_dict().items() if name not in own}

    def factor(self, step: int) -> float:
        """The factor of the learning rates at ``step``; that of the last step after the end."""
        if not self.total_steps:
            return self.start
        length = restart = self.total_steps if self.restart is None else self.restart
        peak = 1.0
        if restart < self.total_steps and step >= restart:
            length, step, peak = self.total_steps - restart, step - restart, _PEAK_OF_REFIT
        cycle = _cycle(length, self.warmup, self.start, self.end)
        cycle.last_epoch = min(step, length) - 1
        cycle.step()
        return peak * float(cycle.get_last_lr()[0])


@functools.lru_cache(maxsize=4)
def _cycle(steps: int, warmup: float, start: float, end: float) -> OneCycleLR:
    """A schedule of a learning rate of 1 whose peak is at step warmup·steps, at least step 1."""
    optimizer = SGD([torch.zeros(1)], lr=1.0)
    peak = (max(warmup * steps, 1.0) + 1) / (steps + 1)
    cycle = OneCycleLR(optimizer, 1.0, steps + 1, pct_start=peak, cycle_momentum=False)
    optimizer.param_groups[0].update(initial_lr=start, min_lr=end)
    optimizer.step()  # torch warns where a schedule steps first
    return cycle
