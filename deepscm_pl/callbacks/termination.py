"""Saving what was trained when the machine is about to be taken away."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from deepscm_pl.callbacks.run_folder import checkpoint_folder

__all__ = ["SaveOnTermination"]


class SaveOnTermination(pl.Callback):
    """On SIGTERM, saves ``last.ckpt`` after the step that is being done; Lightning then stops.

    Batch systems send it some time before they end a job (SLURM: ``--signal=SIGTERM@120``). With
    accumulated gradients it waits for the step of the optimiser. All processes save together, even
    if only one has been told; one that is told in validation waits for the next step.
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
        """Save, if told to end."""
        told = trainer.received_sigterm
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told or self._told, all=False)
        if told and not trainer.fit_loop._should_accumulate():
            path = Path(checkpoint_folder(trainer)) / "last.ckpt"
            trainer.save_checkpoint(path)
            rank_zero_info("told to end: saved %s", path)
            trainer._signal_connector.received_sigterm = True  # on all, so that all stop here
