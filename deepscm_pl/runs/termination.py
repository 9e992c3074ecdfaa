"""Checkpoints of trainings whose process the system is about to end."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import distributed

from deepscm_pl.runs.folders import checkpoint_folder

__all__ = ["SaveOnTermination", "others_wait"]

_WAITING_TIME = timedelta(days=30)


class SaveOnTermination(pl.Callback):
    """Save ``last.ckpt`` after the current batch when the process receives SIGTERM.

    Lightning then stops. Batch systems send the signal some time before they end a job (SLURM:
    ``--signal=SIGTERM@120``). A resumed training repeats a validation that was interrupted.

    Several processes save together after a batch of training or validation, even if only one has
    received the signal; with accumulated gradients, after a step of the optimiser. Processes that
    only evaluate have nothing to save and end at once.
    """

    def __init__(self) -> None:
        self._received = False
        self._common_batches = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handler if there are several processes."""
        _set_handler(trainer, self._note)

    on_sanity_check_start = on_train_start

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handler if there are several processes."""
        _set_handler(trainer, _exit)

    on_predict_start = on_test_start

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Save and stop if one of several processes has received the signal."""
        if trainer.world_size > 1 and self._must_stop(trainer):
            _save(trainer)
            # Lightning has no public setter; raising here would lose the log of the step.
            trainer._signal_connector.received_sigterm = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save and stop if the signal arrived late in validation."""
        self.on_train_batch_end(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the number of batches that all processes have."""
        if trainer.state.fn != TrainerFn.FITTING:
            _set_handler(trainer, _exit)
        elif trainer.world_size > 1 and not trainer.sanity_checking:
            batches = sum(trainer.num_val_batches)
            number = torch.tensor(
                batches if math.isfinite(batches) else 0, device=trainer.strategy.root_device
            )
            self._common_batches = int(trainer.strategy.reduce(number, reduce_op="min"))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Save and stop if one of several processes has received the signal.

        Only batches that all processes have are used, because the processes wait for each other; a
        later signal takes effect at the end of the epoch or after the next step.
        """
        is_training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if trainer.world_size == 1 or not is_training:
            return
        self._common_batches -= 1
        if self._common_batches >= 0 and self._must_stop(trainer):
            _save_in_validation(trainer, pl_module)
            # Lightning would stop only the processes that have more batches.
            raise SIGTERMException

    def _must_stop(self, trainer: pl.Trainer) -> bool:
        """Whether any process has received the signal, and no gradients are being accumulated."""
        received = trainer.strategy.reduce_boolean_decision(self._received, all=False)
        # Lightning has no public property for accumulation.
        return bool(received) and not trainer.fit_loop._should_accumulate()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save the training of a single process that Lightning stops because of the signal."""
        is_training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and is_training:
            if trainer.validating:
                _save_in_validation(trainer, pl_module)
            else:
                _save(trainer)


def _set_handler(trainer: pl.Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Replace Lightning's handler, which deadlocks because it broadcasts on one process only."""
    if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _save_in_validation(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):  # replace averaged weights by those of training
            callback.on_validation_epoch_end(trainer, pl_module)
    # Partial results are discarded, so that the resumed training repeats the validation.
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.reset()
    progress.increment_ready()
    progress.increment_started()
    _save(trainer)


def _save(trainer: pl.Trainer) -> None:
    path = checkpoint_folder(trainer) / "last.ckpt"
    trainer.save_checkpoint(path)
    rank_zero_info("received SIGTERM: saved %s", path)


@contextmanager
def others_wait() -> Iterator[None]:
    """Let all processes wait for each other at the end of the block, for any length of time.

    By default, processes stop waiting after minutes, but an evaluation on the first process may
    take longer. All processes must enter the block. If the block raises, none waits.

    Example:
        >>> with others_wait():
        ...     pass  # the first process works, the others have nothing to do
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    group: Any = distributed.new_group(timeout=_WAITING_TIME, backend="gloo")
    yield
    distributed.barrier(group)
    distributed.destroy_process_group(group)
