"""Trainings whose results do not depend on interruptions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage, TrainerFn

from deepscm_pl.runs.progress import Progress, keep_progress, leave_resumption
from deepscm_pl.runs.reading import stamp
from deepscm_pl.runs.training_state import check_optimizers, check_state, keep_own_checkpoints

__all__ = ["RepeatableRun", "absent"]

_SEED = "random_seed"
_STAGES: dict[RunningStage | None, int] = {
    RunningStage.TRAINING: 0,
    RunningStage.SANITY_CHECKING: 1,
    RunningStage.VALIDATING: 1,
    RunningStage.PREDICTING: 2,
    RunningStage.TESTING: 3,
}


class RepeatableRun(pl.Callback):
    """Makes a resumed training equal to one without the interruption.

    Before each batch in training, validation and test, torch's generators are seeded with a hash of
    the run's seed, the stage, the epoch, the index of the batch and the process. Processes
    therefore draw different noise, and draws of callbacks change nothing. Predictions are equal on
    any number of processes. The seed is that of Lightning's ``seed_everything``, or of the first
    run from which a checkpoint descends.

    A checkpoint also keeps the position in the data and accumulated gradients; its state is checked
    before it is used. A test evaluates averaged weights if the checkpoint holds them.

    :class:`~deepscm_pl.training.DeepSCM` adds this callback itself; add it to the trainer for
    modules of your own.

    Attributes:
        seed: The seed of the run; None before it is known.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._progress: Progress | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the states of optimisers and schedulers; agree on a seed if there is none."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            check_optimizers(trainer, resumed)
        if self.seed is None:
            found = os.environ.get("PL_GLOBAL_SEED")
            seed = torch.initial_seed() % 2**63 if found is None else int(found)
            self.seed = int(trainer.strategy.broadcast(seed))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the loops to the position of the checkpoint."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.resume(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a resumption in the previous epoch."""
        leave_resumption(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators."""
        self._seed_generators(trainer, pl_module, batch_idx)
        leave_resumption(trainer)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed the generators; so for test and predict."""
        self._seed_generators(trainer, pl_module, batch_idx)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def _seed_generators(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch_idx: int
    ) -> None:
        stage, process = _STAGES[trainer.state.stage], trainer.global_rank
        if trainer.predicting:  # as on a single process
            batch_idx, process = batch_idx * trainer.world_size + process, 0
        entropy = (self.seed or 0, stage, pl_module.current_epoch, batch_idx, process)
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        if pl_module.device.type == "cpu":
            # The other function searches for devices at each call, which is slow.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the seed, the progress, and the version of the program."""
        stamp(checkpoint)
        checkpoint[_SEED] = self.seed
        keep_progress(trainer, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the seed and, in training, the progress; ValueError if they are malformed."""
        seed = checkpoint.get(_SEED)
        if type(seed) not in (int, NoneType) or not 0 <= (seed or 0) < 2**63:
            raise ValueError(
                f"{_SEED}: expected a whole number of at least 0, but got {seed!r:.40}."
            )
        self.seed = seed
        if trainer.state.fn == TrainerFn.FITTING:
            check_state(checkpoint)
            keep_own_checkpoints(checkpoint, Path(trainer.ckpt_path or ".").parent)
            self._resumed = checkpoint
            self._progress = Progress.of(checkpoint)
            self._progress.write(checkpoint)
        elif "current_model_state" in checkpoint:
            # Averaging callbacks of Lightning keep the average as ``state_dict``. Right after a
            # training they load the other weights, before or after this callback.
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)


def absent(trainer: pl.Trainer, callbacks: Sequence[pl.Callback]) -> list[pl.Callback]:
    """Select the callbacks of whose class a trainer has none, for ``configure_callbacks``."""
    present = {type(each) for each in trainer.callbacks}  # type: ignore[attr-defined]
    return [each for each in callbacks if type(each) not in present]
