"""Where a training stands: read from any checkpoint, and given back to Lightning's loops.

Lightning counts batches in its loops, and a loader may keep its own position. When a checkpoint is
written the position follows from the counts. When one is read the counts follow from the position.
So both agree, even if the checkpoint holds counts that do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops import evaluation_loop, fit_loop, training_epoch_loop
from torch import Tensor

from deepscm_pl.data.loading import ResumableLoader

__all__ = ["Progress", "keep_progress", "leave_resumption"]

_METRICS = "metrics"
_GRADIENTS = "gradients"
_COUNTS = ("ready", "started", "processed", "completed")


@dataclass(frozen=True)
class Progress:
    """The point between two batches at which a training goes on.

    Attributes:
        epoch: Index of the epoch.
        batches: How many of its batches are done, as large as they were then.
        has_all_batches: Whether these are all of the epoch; its end is still to come.
        is_validated: Whether the validation after these batches is done, if one is due.
        has_ended: Whether the callbacks were told of the end of the epoch. Only schedules of the
            learning rate that watch a metric are still to come.
        loader: State of the loader; empty if it keeps none.
        metrics: The latest values that callbacks and schedules watch.
        gradients: By parameter, of batches whose gradients are accumulated.
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
        """Sorts progress of one training by how far it is within a step."""
        return (self.epoch, self.has_all_batches, self.is_validated, self.has_ended)

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Progress:
        """Read the progress from a checkpoint.

        Args:
            checkpoint: The content of the file. Its counts may disagree with one another, as
                those of earlier versions do after several resumptions.

        Raises:
            ValueError: If the checkpoint holds no progress of a training.
        """
        try:
            return _read(cls, checkpoint)
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
        """Set the loops of a trainer, and its loader, to the progress.

        To be called at the start of a training, after Lightning's own attempt.

        Raises:
            ValueError: If accumulated gradients are of other shapes than the parameters.
        """
        watched = {
            name: each.to(trainer.strategy.root_device) for name, each in self.metrics.items()
        }
        trainer._logger_connector._callback_metrics.update(watched)
        self._restore_gradients(trainer)
        if self.has_ended:
            _set_epochs(trainer, self.epoch, begun=True)
            if self.metrics:
                loop = trainer.fit_loop.epoch_loop
                loop._update_learning_rates("epoch", update_plateau_schedulers=True)
        if self.has_ended or not self.batches:
            self._begin_epoch(trainer)
        else:
            self._continue_epoch(trainer)

    def _restore_gradients(self, trainer: pl.Trainer) -> None:
        for name, parameter in trainer.lightning_module.named_parameters():
            gradient = self.gradients.get(name)
            if gradient is not None and gradient.shape != parameter.shape:
                raise ValueError(
                    f"checkpoint: gradients: expected {tuple(parameter.shape)} for {name}, but got "
                    f"{tuple(gradient.shape)}; use another checkpoint of the same run."
                )
            if gradient is not None:
                parameter.grad = gradient.to(parameter, copy=True)

    def _begin_epoch(self, trainer: pl.Trainer) -> None:
        epoch = self.epoch + self.has_ended
        loops, loader = trainer.fit_loop, _loader(trainer)
        if loader is not None and self.loader:
            loader.load_state_dict({**self.loader, "epoch": epoch, "rows": 0})
        _set_epochs(trainer, epoch, begun=False)
        _set_batches(trainer, 0, is_last=False)
        loops._restart_stage = fit_loop.RestartStage.NONE
        loops.epoch_loop._restart_stage = training_epoch_loop.RestartStage.NONE
        leave_resumption(trainer)
        _set_logged_steps(trainer, waiting=0)

    def _continue_epoch(self, trainer: pl.Trainer) -> None:
        loops = trainer.fit_loop
        loop = loops.epoch_loop
        batches = self._position(trainer)
        is_last = self.has_all_batches or batches >= trainer.num_training_batches
        _set_epochs(trainer, self.epoch, begun=True)
        _set_batches(trainer, int(trainer.num_training_batches) if is_last else batches, is_last)
        leave_resumption(trainer)
        loop._restarting = True
        loops._restart_stage = fit_loop.RestartStage.RESTARTED_MID_EPOCH
        # Lightning counts the step of the last batch once more when it has validated or trains on.
        waiting = int(not loop._should_accumulate())
        fetcher: Any = loops._data_fetcher
        # Among batches of another size, the end of the epoch alone is where it was.
        may_wait = not self.is_validated and (is_last or batches == self.batches)
        if may_wait and loop._should_check_val_fx(fetcher):
            loop._restart_stage = training_epoch_loop.RestartStage.RESTARTED_ON_LAST
            loop.val_loop._restart_stage = evaluation_loop.RestartStage.RESTARTED_MID_EVALUATION
        elif is_last:
            loop._restart_stage = training_epoch_loop.RestartStage.RESTARTED_ON_LAST
            loop.val_loop._has_run = True
            waiting = 0
        else:
            loop._restart_stage = training_epoch_loop.RestartStage.NONE
        _set_logged_steps(trainer, waiting)

    def _position(self, trainer: pl.Trainer) -> int:
        """Set the loader to the row that follows; how many batches, as large as now, are done."""
        loader = _loader(trainer)
        if loader is None or not self.loader:
            return self.batches
        loader.load_state_dict(dict(self.loader))
        return loader.batches_done


def keep_progress(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Complete a checkpoint that is about to be written by what a resumption needs."""
    counts = checkpoint["loops"]["fit_loop"]
    loader = _loader(trainer)
    if loader is not None and "combined_loader" in counts["state_dict"]:
        counts["state_dict"]["combined_loader"] = [_state_of(loader, counts, trainer)]
    watched = trainer._logger_connector._callback_metrics
    checkpoint[_METRICS] = {name: each.detach().cpu().clone() for name, each in watched.items()}
    loop = trainer.fit_loop.epoch_loop
    current: Any = loop.batch_progress.current
    if loop._should_accumulate() and current.ready == current.processed > 0:
        parameters = trainer.lightning_module.named_parameters()
        checkpoint[_GRADIENTS] = {
            name: each.grad.detach().clone() for name, each in parameters if each.grad is not None
        }


def leave_resumption(trainer: pl.Trainer) -> None:
    """Let the loops forget that they go on from a checkpoint, for what follows is as ever.

    Otherwise Lightning leaves out schedules of epochs and plateaus at the end of the first epoch.
    """
    # Not through the setter, which sets all of them wherever the number of steps is limited.
    loops = trainer.fit_loop
    for loop in (loops, loops.epoch_loop, loops.epoch_loop.val_loop):
        loop._restarting = False


def _read(kind: type[Progress], checkpoint: Mapping[str, Any]) -> Progress:
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    progress = loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]["current"]
    current = progress["current"]
    loader = _single(loops["state_dict"].get("combined_loader"))
    common: dict[str, Any] = {
        "is_validated": current["completed"] >= current["processed"]
        and validation["started"] == validation["completed"],
        "loader": loader,
        "metrics": dict(checkpoint.get(_METRICS, {})),
        "gradients": dict(checkpoint.get(_GRADIENTS, {})),
    }
    is_closed = epochs["completed"] >= epochs["processed"]
    ended = epochs["processed"]
    if loader:
        begun = loader["rows"] if "rows" in loader else loader["batches"]
        epoch = loader["epoch"]
        if begun and not progress["is_last_batch"]:
            return kind(epoch, max(1, current["processed"]), **common)
        following = epoch + 1 if begun else epoch
    else:
        if epochs["started"] > ended:
            last = progress["is_last_batch"]
            return kind(ended, current["processed"], has_all_batches=last, **common)
        following = ended
    if ended < following:
        return kind(following - 1, max(1, current["processed"]), has_all_batches=True, **common)
    if not is_closed:
        return kind(following - 1, 1, has_all_batches=True, has_ended=True, **common)
    return kind(following, 0, **common)


def _single(loaders: Any) -> dict[str, int]:
    """The state of the one loader that is a :class:`ResumableLoader`; empty if there is none."""
    if not loaders or len(loaders) > 1 or not {"seed", "epoch"} <= loaders[0].keys():
        return {}
    return dict(loaders[0])


def _state_of(
    loader: ResumableLoader, loops: Mapping[str, Any], trainer: pl.Trainer
) -> dict[str, int]:
    """The position that follows from the counts of the loops."""
    epochs = loops["epoch_progress"]["current"]
    progress = loops["epoch_loop.batch_progress"]
    current = progress["current"]
    epoch, batches = epochs["processed"], current["processed"]
    is_last = progress["is_last_batch"] and current["ready"] == batches
    is_last |= batches >= trainer.num_training_batches
    if epochs["started"] == epoch and (epochs["ready"] > epoch or is_last or not batches):
        return loader.state_after(epoch, 0)
    if epochs["started"] == epoch:  # left before all of its batches were done
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
    """The step at which curves go on, less those that Lightning is going to add."""
    loop = trainer.fit_loop.epoch_loop
    if trainer.lightning_module.automatic_optimization:
        loop._batches_that_stepped = trainer.global_step - waiting
