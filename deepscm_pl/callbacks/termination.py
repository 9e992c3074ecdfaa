"""Saving what was trained when the machine is about to be taken away."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepscm_pl.callbacks.run_folder import checkpoint_folder

__all__ = ["SaveOnTermination"]


class SaveOnTermination(pl.Callback):
    """On SIGTERM, saves ``last.ckpt`` after the step that is being done, and Lightning stops.

    Batch systems send it some time before they end a job (SLURM: ``--signal=SIGTERM@120``). A
    validation that is interrupted is done again by the training that goes on.

    Several processes save together, even if only one has been told. With accumulated gradients they
    wait for the step of the optimiser; one that is told in validation waits for the next step.
    """

    def __init__(self) -> None:
        self._told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Of several processes, take the signal over from Lightning.

        Its handler broadcasts at once: in the middle of a step, that waits for ever.
        """
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Of several processes, save if one is told to end."""
        if trainer.world_size == 1:
            return
        told = trainer.strategy.reduce_boolean_decision(self._told, all=False)
        if told and not trainer.fit_loop._should_accumulate():
            _save(trainer)
            trainer._signal_connector.received_sigterm = True  # on all, so that all stop here

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Of a single process, save if Lightning stops because of the signal."""
        told = isinstance(exception, SIGTERMException) and trainer.world_size == 1
        if not told or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if trainer.validating:
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
