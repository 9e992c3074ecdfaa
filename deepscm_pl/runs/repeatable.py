"""Random numbers of a training that do not depend on where it was interrupted."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
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

__all__ = ["RepeatableModule"]

_KEY = "random_seed"
_FACTORIES = ("optimizer", "scheduler")


class RepeatableModule(pl.LightningModule):
    """Base of modules whose random numbers in a training step follow from where the step is.

    Before each batch in training, validation and test the generators of torch are seeded with a
    hash of the run's seed, the epoch, the number of the batch and the process. So processes draw
    different noise, what a callback draws in between changes nothing, and a training that goes on
    from a checkpoint draws what it would have drawn. Predictions are the same on any number of
    processes.
    The seed is that of Lightning's ``seed_everything``, or of the first run from which a checkpoint
    descends.
    """

    _random_seed: int | None = None
    _resumed: Mapping[str, Any] | None = None
    _progress: Progress | None = None

    def on_fit_start(self) -> None:
        """Agree on a seed, unless a checkpoint has brought one; check the rest of its state.

        Raises:
            ValueError: If the states of optimisers and schedulers are not those of this training.
        """
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            check_optimizers(self.trainer, resumed)
        if self._random_seed is None:
            found = os.environ.get("PL_GLOBAL_SEED")
            seed = torch.initial_seed() % 2**63 if found is None else int(found)
            self._random_seed = int(self.trainer.strategy.broadcast(seed))

    def on_train_start(self) -> None:
        """Go on where the checkpoint was saved, whatever Lightning makes of it."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.resume(self.trainer)

    def on_train_epoch_start(self) -> None:
        """Train an epoch as ever, after one that went on from a checkpoint."""
        leave_resumption(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the generators."""
        self._seed_generators(0, batch_idx, self.global_rank)
        leave_resumption(self.trainer)

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seed the generators."""
        self._seed_generators(1, batch_idx, self.global_rank)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Seed the generators."""
        self._seed_generators(3, batch_idx, self.global_rank)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Seed the generators, by the number that the batch has on a single process."""
        self._seed_generators(2, batch_idx * self.trainer.world_size + self.global_rank, 0)

    def _seed_generators(self, stage: int, batch_idx: int, process: int) -> None:
        where = (self._random_seed or 0, stage, self.current_epoch, batch_idx, process)
        seed = int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0])
        if self.device.type == "cpu":
            # What follows below looks for other devices each time, which takes long.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the seed and the progress, and say which version of the program writes."""
        stamp(checkpoint)
        checkpoint[_KEY] = self._random_seed
        if self._trainer is not None:
            keep_progress(self.trainer, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the seed over, and in training the progress; check what callbacks would act on.

        Raises:
            ValueError: If a training cannot go on from the checkpoint.
        """
        seed = checkpoint.get(_KEY)
        if type(seed) not in (int, NoneType) or not 0 <= (seed or 0) < 2**63:
            raise ValueError(
                f"{_KEY}: expected a whole number of at least 0, but got {seed!r:.40}."
            )
        self._random_seed = seed
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            check_state(checkpoint)
            keep_own_checkpoints(checkpoint, Path(self.trainer.ckpt_path or ".").parent)
            self._resumed = checkpoint
            self._progress = Progress.of(checkpoint)
            self._progress.write(checkpoint)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy, for averages of weights; it shares the factories of optimiser and schedule.

        Those of a command line hold on to the whole program: its trainer, which cannot be copied
        where it has started processes, and its data.
        """
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        state = self.__getstate__()
        memo.update({id(state[name]): state[name] for name in _FACTORIES if name in state})
        copied.__setstate__(copy.deepcopy(state, memo))
        return copied
