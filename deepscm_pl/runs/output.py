"""Output of a run: one line for the model, and progress for a terminal or a file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, TQDMProgressBar

__all__ = ["OneLineProgress", "ParameterCount", "TenthsProgress", "progress_for", "without_noise"]

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
_NOISE = (
    "💡",
    "GPU available: False",
    "TPU available: False",
    "Loading `",
    "`Trainer.fit` stopped: `max_",  # on the line of the progress bar
)
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


class TenthsProgress(ProgressBar):
    """Prints a line after each tenth of a training; for output that goes to a file."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._printed = 0

    def enable(self) -> None:
        """Print on this process."""
        self._enabled = True

    def disable(self) -> None:
        """Print nothing on this process."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the position at which the training starts or resumes."""
        super().on_train_start(trainer, pl_module)
        self._printed = int(10 * _fraction(trainer, 0))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print a line if another tenth is complete."""
        tenths = int(10 * _fraction(trainer, batch_idx + 1))
        if tenths > self._printed and self._enabled:
            self._printed = tenths
            epoch, step = trainer.current_epoch + 1, trainer.global_step
            phase = f", {_REFITTING}" if _is_refitting(pl_module) else ""
            print(f"trained {10 * tenths} %: epoch {epoch}, step {step}{phase}", flush=True)


def _is_refitting(pl_module: pl.LightningModule) -> bool:
    return bool(getattr(pl_module, "is_refitting", False))


def progress_for(stream: TextIO) -> ProgressBar:
    """Make the progress bar that suits a terminal or a file."""
    return OneLineProgress() if stream.isatty() else TenthsProgress()


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


@contextmanager
def without_noise() -> Iterator[None]:
    """Suppress advertisements of Lightning, and deprecation warnings of other packages."""
    handlers = [h for name in _LOGGERS for h in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(_is_useful)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=r"(?!deepscm_pl\b)")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NOISE)
