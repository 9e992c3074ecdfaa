"""Checkpoints of a run, which hold the end of every epoch in any case."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from deepscm_pl.files import new_file

__all__ = ["RunCheckpoint"]

_LOG = "update_train_step_metrics"


class RunCheckpoint(ModelCheckpoint):
    """Save checkpoints when Lightning does, and at the end of every epoch and of the training.

    Whatever the interval is, ``last.ckpt`` is written again when an epoch has ended. Without a
    quantity to choose by, the checkpoint that is tested is one of the last step. A training that is
    resumed saves at the steps at which it would have saved without an interruption.

    The arguments are those of :class:`pytorch_lightning.callbacks.ModelCheckpoint`.

    Example:
        >>> RunCheckpoint(every_n_train_steps=1000, monitor=None, save_last=True).save_last
        True
    """

    # When the named checkpoint and the last one were saved: the steps and the epochs done.
    _named_at = (-1, -1)
    _last_at = (-1, -1)
    _is_trained = False

    @property
    def state_key(self) -> str:
        """As Lightning names its own class, so that a checkpoint serves both."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Regard the step at which the training goes on as saved."""
        super().on_train_start(trainer, pl_module)
        self._is_trained = True
        # Else accumulated batches that follow are saved before their step is done.
        self._last_global_step_saved = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what was chosen, and the end of the epoch if that is something else."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        steps, epochs = _done(trainer)
        is_wanted = self.monitor is None and self.save_top_k != 0
        if is_wanted and self._named_at[0] != steps and (_is_over(trainer) or not self.save_last):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if self.save_last and self._last_at != (steps, epochs):
            self._save_end_of_epoch(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring ``last.ckpt`` up to date where a process died before, and nothing is left to do."""
        done = trainer.ckpt_path
        last = Path(self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST))
        if self._is_trained or done is None or not self.save_last or not trainer.is_global_zero:
            return
        if Path(done).resolve().parent == last.resolve().parent and Path(done).name != last.name:
            with new_file(last) as temporary:
                shutil.copyfile(done, temporary)

    def _save_end_of_epoch(self, trainer: pl.Trainer) -> None:
        if self.save_last != "link":
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
            return
        # No named file holds this step, so there is nothing to link to.
        path = self.format_checkpoint_name(
            self._monitor_candidates(trainer), self.CHECKPOINT_NAME_LAST
        )
        if trainer.is_global_zero and Path(path).is_symlink():
            Path(path).unlink()
        self.last_model_path = path
        self._save_checkpoint(trainer, path)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        _log_step(trainer)
        super()._save_checkpoint(trainer, filepath)
        if filepath == self.last_model_path:
            self._last_at = _done(trainer)
        else:
            self._named_at = _done(trainer)


def _done(trainer: pl.Trainer) -> tuple[int, int]:
    return trainer.global_step, trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]


def _log_step(trainer: pl.Trainer) -> None:
    """Log the step that is being saved before it is saved, and not once more afterwards.

    A training that is resumed does not do the step again: where the process dies while it saves,
    the step would be missing in the curves.
    """
    counts = trainer.fit_loop.epoch_loop.batch_progress.current
    connector: Any = trainer._logger_connector
    is_logged = counts.completed == counts.processed or _LOG in vars(connector)  # type: ignore[attr-defined]
    if not is_logged:
        getattr(connector, _LOG)()
        vars(connector)[_LOG] = lambda: vars(connector).pop(_LOG)


def _is_over(trainer: pl.Trainer) -> bool:
    """Whether the training ends with the epoch that has just ended."""
    steps, epochs = _done(trainer)
    loop = trainer.fit_loop
    return (
        0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) <= epochs
        or 0 <= trainer.max_steps <= steps
        or (trainer.should_stop and loop._can_stop_early)
    )
