"""What a training needs, measured in a few of its steps."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor

from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.memory import format_bytes

__all__ = ["DryRun", "measure_training"]

_STEPS = 6
_WARM_UP = 2  # steps that allocate memory and choose kernels
_CHECKPOINTS = 2
_NEVER = 10**6
_ACCELERATORS = {"cuda": "gpu"}


@dataclass(frozen=True)
class DryRun:
    """The size of a training.

    Attributes:
        rows: Number of rows of each split.
        parameters: Number of parameters of each variable's mechanism, and of other networks.
        checkpoint_bytes: Size of a checkpoint.
        memory_bytes: Largest memory so far, of the GPU if there is one.
        steps: Number of steps of the whole training.
        seconds_per_step: Seconds for a step.
        validations: Number of validations.
        seconds_per_validation: Seconds for one of them.
        device: The device.
    """

    rows: Mapping[str, int]
    parameters: Mapping[str, int]
    checkpoint_bytes: int
    memory_bytes: int
    steps: float
    seconds_per_step: float
    validations: float
    seconds_per_validation: float
    device: str

    @property
    def seconds(self) -> float:
        """Seconds of the training, if it does not stop early; the test comes after them."""
        trained = self.steps * self.seconds_per_step
        return trained + self.validations * self.seconds_per_validation

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} {split}" for split, count in self.rows.items())
        parts = ", ".join(f"{count:,} {name}" for name, count in self.parameters.items())
        return "\n".join(
            [
                f"rows:        {rows}",
                f"parameters:  {sum(self.parameters.values()):,} ({parts})",
                f"checkpoints: {_CHECKPOINTS} of {format_bytes(self.checkpoint_bytes)}",
                f"memory:      {format_bytes(self.memory_bytes)} ({self.device})",
                f"training:    {_duration(self.seconds)} at most: {_count(self.steps)} steps of "
                f"{_seconds(self.seconds_per_step)}, {_count(self.validations)} validations of "
                f"{_seconds(self.seconds_per_validation)}; then the evaluation",
            ]
        )


def _count(number: float) -> str:
    return f"{number:,.0f}" if math.isfinite(number) else "unlimited"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _duration(seconds: float) -> str:
    """A time in the unit that suits it.

    Example:
        >>> [_duration(each) for each in (12.3, 500.0, 9000.0, math.inf)]
        ['13 seconds', '8.3 minutes', '2.5 hours', 'unlimited time']
    """
    if not math.isfinite(seconds):
        return "unlimited time"
    if seconds < 100:
        return f"{math.ceil(seconds)} seconds"
    return f"{seconds / 60:.2g} minutes" if seconds < 6000 else f"{seconds / 3600:.2g} hours"


class _Clock(pl.Callback):
    """Notes when steps and validation batches begin and end."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.batches: list[float] = []
        self._start = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        _synchronise(trainer)
        self.steps.append(time.perf_counter())

    def on_validation_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        _synchronise(trainer)
        self.batches.append(time.perf_counter() - self._start)


def _synchronise(trainer: pl.Trainer) -> None:
    # Without it, only the start of the work is measured.
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)


def measure_training(
    trainer: pl.Trainer, model: pl.LightningModule, datamodule: CausalDataModule
) -> DryRun:
    """Measure a few steps of a training, without writing a file.

    The model is changed by these steps; the trainer is not used.

    Args:
        trainer: The trainer of the whole training, with its device, precision and limits.
        model: The model.
        datamodule: The data, which are read as a whole.

    Raises:
        ValueError: If the data or the model are invalid, as in a training.
    """
    clock = _Clock()
    settings: Any = trainer
    device = trainer.strategy.root_device
    accumulated = settings.accumulate_grad_batches
    short = pl.Trainer(
        accelerator=_ACCELERATORS.get(device.type, device.type),
        devices=1,
        precision=settings.precision,
        gradient_clip_val=settings.gradient_clip_val,
        accumulate_grad_batches=accumulated,
        max_steps=_STEPS,
        max_epochs=-1,
        check_val_every_n_epoch=_NEVER,
        num_sanity_val_steps=2,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    short.fit(model, datamodule=datamodule)
    rows = {each: len(next(iter(datamodule.variables(each).values()))) for each in get_args(Split)}
    epoch = math.ceil(_train_batches(settings, datamodule) / accumulated)
    epochs = math.inf if settings.max_epochs in (None, -1) else settings.max_epochs
    steps = min(epochs * epoch, settings.max_steps if settings.max_steps > 0 else math.inf)
    return DryRun(
        rows=rows,
        parameters=_parameters(model),
        checkpoint_bytes=_checkpoint_bytes(model, short),
        memory_bytes=_peak_memory(device),
        steps=steps,
        seconds_per_step=_seconds_per_step(clock.steps),
        validations=steps / epoch // (settings.check_val_every_n_epoch or 1),
        seconds_per_validation=len(datamodule.val_dataloader()) * min(clock.batches, default=0.0),
        device=str(device),
    )


def _train_batches(settings: Any, datamodule: CausalDataModule) -> int:
    """The number of batches of an epoch."""
    batches, limit = len(datamodule.train_dataloader()), settings.limit_train_batches
    return max(1, min(batches, limit) if isinstance(limit, int) else int(batches * limit))


def _parameters(model: Any) -> dict[str, int]:
    """The number of parameters of each mechanism, and of the rest of the model."""
    scm: Any = getattr(model, "scm", None)
    counts = {} if scm is None else {name: _count_of(scm[name]) for name in scm.graph.nodes}
    others = _count_of(model) - sum(counts.values())
    return counts | ({"others" if counts else "model": others} if others else {})


def _count_of(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _checkpoint_bytes(model: pl.LightningModule, trainer: pl.Trainer) -> int:
    """The size of the weights, and of the state of the optimisers."""
    tensors = list(model.state_dict().values())
    for optimizer in trainer.optimizers:
        for state in optimizer.state.values():
            tensors += [each for each in state.values() if isinstance(each, Tensor)]
    return sum(each.numel() * each.element_size() for each in tensors)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(ImportError):  # not on Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 0


def _seconds_per_step(ends: list[float]) -> float:
    """The median time of a batch after those that allocate memory."""
    times = [after - before for before, after in itertools.pairwise(ends)]
    return statistics.median(times[_WARM_UP:] or times or [0.0])
