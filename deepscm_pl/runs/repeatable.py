"""Trainings that do not depend on where they were interrupted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from deepscm_pl.runs.progress import Progress, keep_progress, leave_resumption
from deepscm_pl.runs.reading import stamp
from deepscm_pl.runs.training_state import (
    check_optimizers,
    check_state,
    keep_own_checkpoints,
)

__all__ = ["RepeatableRun", "absent"]

_KEY = "random_seed"


class RepeatableRun(pl.Callback):
    """Makes a training that is resumed do what it would have done without the interruption.

    Before each batch in training, validation and test the generators of torch are seeded with a
    hash of the run's seed, the epoch, the number of the batch and the process. So processes draw
    different noise, what a callback draws in between changes nothing, and a training that is
    resumed draws what it would have drawn. Predictions are the same on any number of processes.
    The seed is that of Lightning's ``seed_everything``, or of the first run from which a checkpoint
    descends.

    The position in the data and accumulated gradients are saved with a checkpoint and restored; its
    state is checked before anything acts on it. A test evaluates averaged weights, where a
    checkpoint holds them.

    :class:`~deepscm_pl.training.DeepSCM` adds this callback itself; add it to the trainer for
    modules of your own.

    Attributes:
        seed: Of the run, once it is known.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self._resumed: Mapping[str, Any] | None = None
        self._progress: Progress | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Agree on a seed, unless a checkpoint has brought one; check the rest of its state.

        Raises:
            ValueError: If the states of optimisers and schedulers are not those of this training.
        """
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            check_optimizers(trainer, resumed)
        if self.seed is None:
            found = os.environ.get("PL_GLOBAL_SEED")
            seed = torch.initial_seed() % 2**63 if found is None else int(found)
            self.seed = int(trainer.strategy.broadcast(seed))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the loops to the position at which the checkpoint was saved."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.resume(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the loops forget a resumption in the epoch before."""
        leave_resumption(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the generators."""
        self._seed_generators(pl_module, 0, batch_idx, trainer.global_rank)
        leave_resumption(trainer)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed the generators."""
        self._seed_generators(pl_module, 1, batch_idx, trainer.global_rank)

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed the generators."""
        self._seed_generators(pl_module, 3, batch_idx, trainer.global_rank)

    def on_predict_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed the generators, by the number that the batch has on a single process."""
        number = batch_idx * trainer.world_size + trainer.global_rank
        self._seed_generators(pl_module, 2, number, 0)

    def _seed_generators(
        self, pl_module: pl.LightningModule, stage: int, batch_idx: int, process: int
    ) -> None:
        where = (self.seed or 0, stage, pl_module.current_epoch, batch_idx, process)
        seed = int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0])
        if pl_module.device.type == "cpu":
            # What follows below looks for other devices each time, which takes long.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the seed, the progress, and the version of the program that writes."""
        stamp(checkpoint)
        checkpoint[_KEY] = self.seed
        keep_progress(trainer, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the seed over, and in training the progress; check what callbacks would act on.

        Raises:
            ValueError: If a training cannot be resumed from the checkpoint.
        """
        seed = checkpoint.get(_KEY)
        if type(seed) not in (int, NoneType) or not 0 <= (seed or 0) < 2**63:
            raise ValueError(
                f"{_KEY}: expected a whole number of at least 0, but got {seed!r:.40}."
            )
        self.seed = seed
        if trainer.state.fn != TrainerFn.FITTING:
            _evaluate_average(trainer, pl_module, checkpoint)
            return
        check_state(checkpoint)
        keep_own_checkpoints(checkpoint, Path(trainer.ckpt_path or ".").parent)
        self._resumed = checkpoint
        self._progress = Progress.of(checkpoint)
        self._progress.write(checkpoint)


def _evaluate_average(
    trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
) -> None:
    """Put averaged weights into a model that is evaluated.

    Lightning's averaging callbacks keep the average as ``state_dict`` and the weights that the
    optimiser moves as ``current_model_state``; right after a training they put the latter into the
    model, before this callback or after it.
    """
    if "current_model_state" in checkpoint:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)


def absent(trainer: pl.Trainer, callbacks: Sequence[pl.Callback]) -> list[pl.Callback]:
    """Those of the callbacks of whose class a trainer has none, for ``configure_callbacks``."""
    present = {type(each) for each in trainer.callbacks}  # type: ignore[attr-defined]
    return [each for each in callbacks if type(each) not in present]
