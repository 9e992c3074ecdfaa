"""Saving what was trained when the machine is about to be taken away."""

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


class SaveOnTermination(pl.Callback):
    """On SIGTERM, saves ``last.ckpt`` after the batch that is being done, and Lightning stops.

    Batch systems send it some time before they end a job (SLURM: ``--signal=SIGTERM@120``). A
    validation that is interrupted is done again by the training that goes on.

    Several processes save together after a batch of training or validation, even if only one has
    been told. With accumulated gradients they wait for the step of the optimiser. Where they only
    evaluate, there is nothing to save: who is told ends at once, and the others with it.
    """

    def __init__(self) -> None:
        self._told = False
        self._common_batches = 0

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, take the signal over from Lightning."""
        _take_over(trainer, self._note)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, take the signal over from Lightning."""
        _take_over(trainer, self._note)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, take the signal over from Lightning."""
        _take_over(trainer, _leave)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, take the signal over from Lightning."""
        _take_over(trainer, _leave)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Of several processes, save if one is told to end."""
        self._save_if_told(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, save if one was told to end late in validation."""
        self._save_if_told(trainer)

    def _save_if_told(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1 and self._is_any_told(trainer):
            _save(trainer)
            trainer._signal_connector.received_sigterm = True  # on all, so that all stop here

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, agree on how many batches all of them have."""
        if trainer.state.fn != TrainerFn.FITTING:
            _take_over(trainer, _leave)
        elif trainer.world_size > 1 and not trainer.sanity_checking:
            self._common_batches = _fewest_batches(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Of several processes, save and stop if one is told to end.

        After the batches that all have they would wait for each other in vain; who is told then
        waits for the end of the epoch, or the next step.

        Raises:
            SIGTERMException: If one is told to end, on all.
        """
        training = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if trainer.world_size == 1 or not training:
            return
        self._common_batches -= 1
        if self._common_batches >= 0 and self._is_any_told(trainer):
            _save_in_validation(trainer, pl_module)
            # Lightning would stop only those that have more batches.
            raise SIGTERMException

    def _is_any_told(self, trainer: pl.Trainer) -> bool:
        """Whether all processes may stop here, since one is told to; ask it on every process."""
        told = trainer.strategy.reduce_boolean_decision(self._told, all=False)
        return bool(told) and not trainer.fit_loop._should_accumulate()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Of a single process, save if Lightning stops because of the signal."""
        told = isinstance(exception, SIGTERMException) and trainer.world_size == 1
        if not told or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if trainer.validating:
            _save_in_validation(trainer, pl_module)
        else:
            _save(trainer)


def _take_over(trainer: pl.Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Lightning's handler broadcasts at once: where others do not, that waits for ever."""
    if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _fewest_batches(trainer: pl.Trainer) -> int:
    """How many batches of validation every process has; none where one does not know."""
    batches = sum(trainer.num_val_batches)
    number = torch.tensor(
        batches if math.isfinite(batches) else 0, device=trainer.strategy.root_device
    )
    return int(trainer.strategy.reduce(number, reduce_op="min"))


def _save_in_validation(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    _put_weights_back(trainer, pl_module)
    _begin_validation_again(trainer)
    _save(trainer)


def _save(trainer: pl.Trainer) -> None:
    path = checkpoint_folder(trainer) / "last.ckpt"
    trainer.save_checkpoint(path)
    rank_zero_info("told to end: saved %s", path)


def _put_weights_back(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Validation looks at averaged weights, and was not given the time to put the others back."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback.on_validation_epoch_end(trainer, pl_module)


def _begin_validation_again(trainer: pl.Trainer) -> None:
    """What was measured so far is not kept, so that the training that goes on needs all of it."""
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.reset()
    progress.increment_ready()
    progress.increment_started()


_LONGEST = timedelta(days=30)


@contextmanager
def others_wait() -> Iterator[None]:
    """At the end of the block, processes wait for each other, however long one of them works.

    The processes of a training give up after minutes, ten on GPUs, without a word from one; an
    evaluation may take longer. Call it on every process. Where the block raises, it does not wait.

    Example:
        >>> with others_wait():
        ...     pass  # the first process works, the others have nothing to do
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    group: Any = distributed.new_group(timeout=_LONGEST, backend="gloo")
    yield
    distributed.barrier(group)
    distributed.destroy_process_group(group)
