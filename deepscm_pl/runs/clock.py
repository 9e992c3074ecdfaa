"""The seconds of a training, kept in its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from deepscm_pl.runs.reading import read_checkpoint

__all__ = ["TrainingClock", "training_seconds"]

_SECONDS = "training_seconds"


class TrainingClock(pl.Callback):
    """Counts the seconds of a training, validations included, over its interruptions.

    A checkpoint has those until it was written, ``training_seconds``, and those of the model that
    the training started from (``initial``), if its file has them. Seconds after the last checkpoint
    of a process that was killed are lost.
    """

    def __init__(self) -> None:
        self._before = 0.0
        self._start: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count."""
        initial = getattr(pl_module, "initial", None)
        if initial is not None and not self._before:
            self._before = training_seconds(read_checkpoint(initial)) or 0.0
        self._start = time.perf_counter()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the seconds."""
        now = 0.0 if self._start is None else time.perf_counter() - self._start
        checkpoint[_SECONDS] = self._before + now

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue from the seconds of a checkpoint."""
        self._before = training_seconds(checkpoint) or 0.0


def training_seconds(content: Mapping[str, Any]) -> float | None:
    """Return the seconds of the training of a checkpoint; None if unknown.

    Example:
        >>> training_seconds({"training_seconds": 12.5}), training_seconds({})
        (12.5, None)
    """
    found = content.get(_SECONDS)
    is_known = isinstance(found, float) and math.isfinite(found) and found > 0
    return found if is_known else None
