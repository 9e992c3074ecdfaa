"""Output of a run: one line for the model, and progress for a terminal or a file."""

from __future__ import annotations

import math
import time
from typing import Any, TextIO

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, TQDMProgressBar

from deepscm_pl.numerals import format_number

__all__ = ["EpochLines", "OneLineProgress", "ParameterCount", "progress_for"]

_REFITTING = "posterior refitted"


class ParameterCount(pl.Callback):
    """Prints the number of parameters and their size when a training starts."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        if trainer.is_global_zero:
            parameters = [each for each in pl_module.parameters() if each.requires_grad]
            size = sum(each.numel() * each.element_size() for each in parameters) / 1e6
            print(f"model: {sum(each.numel() for each in parameters):,} parameters, {size:.3g} MB")


class OneLineProgress(TQDMProgressBar):
    """A bar of one line on a terminal, without the number of the run."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The quantities beside the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        shown = {name: value for name, value in metrics.items() if name != "v_num"}
        return shown | ({"phase": _REFITTING} if _is_refitting(pl_module) else {})

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the line, because reports are printed before Lightning ends it."""
        self.test_progress_bar.close()


class EpochLines(ProgressBar):
    """Prints a line after each epoch of a training; for output that goes to a file.

    A line has the share that is trained, the epoch, the step, the bounds or losses of training and
    validation, and the remaining time. A training of fewer than ten epochs has a line for each
    tenth as well, and one of more than a hundred epochs about a hundred lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._tenths = 0
        self._printed = -1
        self._start = (0.0, 0.0)

    def enable(self) -> None:
        """Print on this process."""
        self._enabled = True

    def disable(self) -> None:
        """Print nothing on this process."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the position at which the training starts or resumes."""
        super().on_train_start(trainer, pl_module)
        fraction = _fraction(trainer, 0)
        self._start = (time.perf_counter(), fraction)
        self._tenths, self._printed = int(10 * fraction), -1

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print a line if another tenth is complete within a long epoch."""
        fraction, batches = _fraction(trainer, batch_idx + 1), trainer.num_training_batches
        tenths = int(10 * fraction)
        if tenths > self._tenths and batch_idx + 1 < batches:
            if (trainer.current_epoch + (batch_idx + 1) / batches) < 10 * fraction:
                self._print(trainer, pl_module, fraction)
            self._tenths = tenths

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line, in a long training after some of the epochs."""
        epoch, batches = trainer.current_epoch + 1, trainer.num_training_batches
        fraction = _fraction(trainer, int(batches) if batches < float("inf") else 0)
        self._tenths = max(self._tenths, int(10 * fraction))
        if fraction >= 1 or trainer.should_stop or epoch % _interval(epoch, fraction) == 0:
            self._print(trainer, pl_module, fraction)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line after the last epoch of a training that was stopped early."""
        self._print(trainer, pl_module, _fraction(trainer, 0), trainer.current_epoch)

    def _print(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        fraction: float,
        finished: int | None = None,
    ) -> None:
        """Print a line, unless one of this step is printed.

        ``finished`` is the number of epochs, after the last of them.
        """
        if not self._enabled or trainer.global_step == self._printed:
            return
        self._printed = trainer.global_step
        epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        epoch = trainer.current_epoch + 1 if finished is None else finished
        parts = [f"epoch {epoch}{epochs}", f"step {trainer.global_step}"]
        parts += _losses(trainer)
        parts += [_REFITTING] if _is_refitting(pl_module) else []
        start, before = self._start
        if finished is None and before < fraction < 1:
            seconds = (time.perf_counter() - start) * (1 - fraction) / (fraction - before)
            parts.append(f"about {spoken_time(seconds)} left")
        print(f"trained {100 * fraction:.0f} %: {', '.join(parts)}", flush=True)


_MOST_LINES = 100
_LOSSES = ("bound", "objective", "accuracy", "cross_entropy", "squared_error")


def _interval(epoch: int, fraction: float) -> int:
    """Print after each multiple of so many epochs."""
    if fraction > 0:
        return max(1, math.ceil(round(epoch / fraction) / _MOST_LINES))
    return 10 ** max(0, len(str(epoch)) - 2)  # the number of epochs is unknown


def _losses(trainer: pl.Trainer) -> list[str]:
    """Such as ``train bound −520.1``, for training and validation, from what is logged."""
    shown = []
    for stage in ("train", "validation"):
        names = [name for name in _LOSSES if f"{stage}/{name}" in trainer.callback_metrics]
        for name in names[:1]:
            value = format_number(float(trainer.callback_metrics[f"{stage}/{name}"]), 4)
            shown.append(f"{stage} {name} {value.replace('-', '−')}")
    return shown


def spoken_time(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    Example:
        >>> [spoken_time(seconds) for seconds in (0.2, 42, 600, 6000, 200_000)]
        ['1 s', '42 s', '10 min', '1.7 h', '2.3 days']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _is_refitting(pl_module: pl.LightningModule) -> bool:
    return bool(getattr(pl_module, "is_refitting", False))


def progress_for(stream: TextIO) -> ProgressBar:
    """Make the progress bar that suits a terminal or a file."""
    return OneLineProgress() if stream.isatty() else EpochLines()


def _fraction(trainer: pl.Trainer, done: int) -> float:
    """The fraction of a training that is complete after ``done`` batches of an epoch."""
    fractions = [0.0]
    batches = trainer.num_training_batches
    if trainer.max_steps > 0:
        fractions.append(trainer.global_step / trainer.max_steps)
    if trainer.max_epochs and trainer.max_epochs > 0 and 0 < batches < float("inf"):
        epochs = trainer.current_epoch + min(done / batches, 1)
        fractions.append(epochs / trainer.max_epochs)
    return min(max(fractions), 1.0)
