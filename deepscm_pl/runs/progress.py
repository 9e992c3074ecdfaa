"""The position of a training: read from a checkpoint, and restored in Lightning's loops.

Lightning counts batches in its loops, and a loader may keep its own position. A saved position
follows from the counts, and restored counts follow from the position, so that both agree even if
the counts in a checkpoint do not. Lightning offers no public way to set its loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.evaluation_loop import RestartStage as EvaluationStage
from pytorch_lightning.loops.fit_loop import RestartStage as FitStage
from pytorch_lightning.loops.training_epoch_loop import RestartStage as EpochStage
from torch import Tensor

from deepscm_pl.data.loading import ResumableLoader

__all__ = ["Progress", "keep_progress", "leave_resumption"]

_COUNTS = ("ready", "started", "processed", "completed")


@dataclass(frozen=True)
class Progress:
    """The position between two batches at which a training resumes.

    Attributes:
        epoch: Index of the epoch.
        batches: Number of its batches that are complete, in batches of the size at that time.
        has_all_batches: Whether all batches of the epoch are complete, but not its end.
        is_validated: Whether the validation after these batches is complete, if one is due.
        has_ended: Whether callbacks have seen the end of the epoch, but not schedules of the
            learning rate that monitor a metric.
        loader: State of the loader; empty if it has none.
        metrics: Latest values that callbacks and schedules monitor.
        gradients: Accumulated gradients by the name of the parameter.
    """

    epoch: int
    batches: int
    has_all_batches: bool = False
    is_validated: bool = False
    has_ended: bool = False
    loader: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for count in (self.epoch, self.batches, *self.loader.values()):
            if not isinstance(count, int) or count < 0:
                raise TypeError(f"expected a count, but got {count!r}")
        for each in (*self.metrics.values(), *self.gradients.values()):
            if not isinstance(each, Tensor):
                raise TypeError(f"expected a tensor, but got {type(each).__name__}")

    @property
    def order(self) -> tuple[int, ...]:
        """A key that sorts checkpoints of the same step."""
        return (self.epoch, self.has_all_batches, self.is_validated, self.has_ended)

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Progress:
        """Read the progress from the content of a checkpoint.

        Its counts may disagree with one another, as in checkpoints of earlier versions.

        Raises:
            ValueError: If the checkpoint holds no progress of a training.
        """
        try:
            return _read(checkpoint)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                "checkpoint: loops: expected the progress of a training, but got another form "
                f"({type(error).__name__}: {error}); use another checkpoint of the same run."
            ) from None

    def write(self, checkpoint: Mapping[str, Any]) -> None:
        """Correct the number of epochs in a checkpoint, before Lightning reads it."""
        ended = self.epoch + self.has_ended
        begun = ended + (self.batches > 0 and not self.has_ended)
        counts = {"ready": begun, "started": begun, "processed": ended, "completed": ended}
        loops = checkpoint["loops"]["fit_loop"]
        loops["epoch_progress"] = {"total": {**counts}, "current": {**counts}}

    def resume(self, trainer: pl.Trainer) -> None:
        """Set the loops and the loader of a trainer at the start of a training.

        Raises:
            ValueError: If accumulated gradients have other shapes than the parameters.
        """
        device = trainer.strategy.root_device
        trainer.callback_metrics.update({k: v.to(device) for k, v in self.metrics.items()})
        for name, parameter in trainer.lightning_module.named_parameters():
            gradient = self.gradients.get(name)
            if gradient is None:
                continue
            if gradient.shape != parameter.shape:
                raise ValueError(
                    f"checkpoint: gradients: expected {tuple(parameter.shape)} for {name}, but got "
                    f"{tuple(gradient.shape)}; use another checkpoint of the same run."
                )
            parameter.grad = gradient.to(parameter, copy=True)
        if self.has_ended:
            _set_epochs(trainer, self.epoch, begun=True)
            if self.metrics:
                loop = trainer.fit_loop.epoch_loop
                loop._update_learning_rates("epoch", update_plateau_schedulers=True)
        if self.has_ended or not self.batches:
            self._begin_epoch(trainer)
        else:
            self._continue_epoch(trainer)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        epoch = self.epoch + self.has_ended
        loops, loader = trainer.fit_loop, _loader(trainer)
        if loader is not None and self.loader:
            loader.load_state_dict({**self.loader, "epoch": epoch, "rows": 0})
        _set_epochs(trainer, epoch, begun=False)
        _set_batches(trainer, 0, is_last=False)
        loops._restart_stage = FitStage.NONE
        loops.epoch_loop._restart_stage = EpochStage.NONE
        leave_resumption(trainer)
        _set_logged_steps(trainer, waiting=0)

    def _continue_epoch(self, trainer: pl.Trainer) -> None:
        loops = trainer.fit_loop
        loop = loops.epoch_loop
        batches = self.batches
        loader = _loader(trainer)
        if loader is not None and self.loader:
            loader.load_state_dict(dict(self.loader))
            batches = loader.batches_done  # of the present size
        is_last = self.has_all_batches or batches >= trainer.num_training_batches
        _set_epochs(trainer, self.epoch, begun=True)
        _set_batches(trainer, int(trainer.num_training_batches) if is_last else batches, is_last)
        leave_resumption(trainer)
        loop._restarting = True
        loops._restart_stage = FitStage.RESTARTED_MID_EPOCH
        # Lightning counts the step of the last batch again after validation or further training.
        waiting = int(not loop._should_accumulate())
        fetcher: Any = loops._data_fetcher
        # If the size of batches has changed, only the end of an epoch is at the same position.
        may_wait = not self.is_validated and (is_last or batches == self.batches)
        if may_wait and loop._should_check_val_fx(fetcher):
            loop._restart_stage = EpochStage.RESTARTED_ON_LAST
            loop.val_loop._restart_stage = EvaluationStage.RESTARTED_MID_EVALUATION
        elif is_last:
            loop._restart_stage = EpochStage.RESTARTED_ON_LAST
            loop.val_loop._has_run = True
            waiting = 0
        else:
            loop._restart_stage = EpochStage.NONE
        _set_logged_steps(trainer, waiting)


def keep_progress(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Add the position of the loader, monitored metrics and accumulated gradients."""
    counts = checkpoint["loops"]["fit_loop"]
    loader = _loader(trainer)
    if loader is not None and "combined_loader" in counts["state_dict"]:
        counts["state_dict"]["combined_loader"] = [_loader_state(loader, counts, trainer)]
    metrics = trainer.callback_metrics
    checkpoint["metrics"] = {name: each.detach().cpu().clone() for name, each in metrics.items()}
    loop = trainer.fit_loop.epoch_loop
    current: Any = loop.batch_progress.current
    if loop._should_accumulate() and current.ready == current.processed > 0:
        parameters = trainer.lightning_module.named_parameters()
        checkpoint["gradients"] = {
            name: each.grad.detach().clone() for name, each in parameters if each.grad is not None
        }


def leave_resumption(trainer: pl.Trainer) -> None:
    """Mark the loops as not resumed.

    Otherwise Lightning leaves out schedules of epochs and plateaus at the end of the first epoch.
    """
    # The public setter changes all loops where the number of steps is limited.
    loops = trainer.fit_loop
    for loop in (loops, loops.epoch_loop, loops.epoch_loop.val_loop):
        loop._restarting = False


def _read(checkpoint: Mapping[str, Any]) -> Progress:
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    progress = loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]["current"]
    current = progress["current"]
    loaders = loops["state_dict"].get("combined_loader") or [{}]
    is_resumable = len(loaders) == 1 and {"seed", "epoch"} <= loaders[0].keys()
    loader = dict(loaders[0]) if is_resumable else {}
    common: dict[str, Any] = {
        "is_validated": current["completed"] >= current["processed"]
        and validation["started"] == validation["completed"],
        "loader": loader,
        "metrics": dict(checkpoint.get("metrics", {})),
        "gradients": dict(checkpoint.get("gradients", {})),
    }
    is_closed = epochs["completed"] >= epochs["processed"]
    ended = epochs["processed"]
    if loader:
        begun = loader["rows"] if "rows" in loader else loader["batches"]
        if begun and not progress["is_last_batch"]:
            return Progress(loader["epoch"], max(1, current["processed"]), **common)
        following = loader["epoch"] + 1 if begun else loader["epoch"]
    else:
        if epochs["started"] > ended:
            is_last = progress["is_last_batch"]
            return Progress(ended, current["processed"], has_all_batches=is_last, **common)
        following = ended
    if ended < following:
        batches = max(1, current["processed"])
        return Progress(following - 1, batches, has_all_batches=True, **common)
    if not is_closed:
        return Progress(following - 1, 1, has_all_batches=True, has_ended=True, **common)
    return Progress(following, 0, **common)


def _loader_state(
    loader: ResumableLoader, loops: Mapping[str, Any], trainer: pl.Trainer
) -> dict[str, int]:
    """The position that follows from the counts of the loops."""
    epochs = loops["epoch_progress"]["current"]
    progress = loops["epoch_loop.batch_progress"]
    epoch, batches = epochs["processed"], progress["current"]["processed"]
    is_last = progress["is_last_batch"] and progress["current"]["ready"] == batches
    is_last |= batches >= trainer.num_training_batches
    if epochs["started"] == epoch and (epochs["ready"] > epoch or is_last or not batches):
        return loader.state_after(epoch, 0)
    if epochs["started"] == epoch:  # stopped before the last batch
        epoch -= 1
    return loader.state_after(epoch + 1, 0) if is_last else loader.state_after(epoch, batches)


def _loader(trainer: pl.Trainer) -> ResumableLoader | None:
    found: Any = trainer.train_dataloader
    return found if isinstance(found, ResumableLoader) and found.is_resumable else None


def _set_epochs(trainer: pl.Trainer, epoch: int, begun: bool) -> None:
    progress = trainer.fit_loop.epoch_progress
    for counts in (progress.total, progress.current):
        for name in _COUNTS:
            setattr(counts, name, epoch + (begun and name in ("ready", "started")))


def _set_batches(trainer: pl.Trainer, batches: int, is_last: bool) -> None:
    loop = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    done = progress.total.processed  # type: ignore[attr-defined]
    for name in _COUNTS:
        setattr(progress.total, name, done)
        setattr(progress.current, name, batches)
    progress.is_last_batch = is_last
    loop.val_loop.batch_progress.reset()


def _set_logged_steps(trainer: pl.Trainer, waiting: int) -> None:
    """Set the step at which curves resume, less the steps that Lightning will add."""
    if trainer.lightning_module.automatic_optimization:
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = trainer.global_step - waiting
