"""Checkpoint files that are complete or absent, and the last one of a training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_warn

from deepscm_pl.escaping import for_terminal, one_line
from deepscm_pl.files import DiskFullError, new_file
from deepscm_pl.runs.archives import check_archive
from deepscm_pl.runs.progress import Progress
from deepscm_pl.runs.reading import read_checkpoint
from deepscm_pl.runs.training_state import check_state

__all__ = [
    "AtomicCheckpointIO",
    "RunCheckpoint",
    "furthest_checkpoint",
    "read_last_checkpoint",
    "steps_of",
]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file, which is renamed once it is on the disk.

    If the process is killed while writing, the previous file stays intact. Lightning handles
    addresses of remote storage.

    Args:
        opened: The content of checkpoints that were read before, by path; each is used once.
    """

    def __init__(self, opened: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._folders: set[Path] = set()
        self._opened = dict(opened or {})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; after an OSError earlier checkpoints are intact."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            if path.parent in self._folders and not path.parent.is_dir():
                raise FileNotFoundError(f"the folder {path.parent} has vanished")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
            with new_file(path) as temporary:
                _write_checkpoint(checkpoint, temporary)
        except (OSError, RuntimeError) as error:
            if "DataLoader worker" in str(error):  # the worker died while torch was writing
                raise
            cause = error.__cause__ if isinstance(error, DiskFullError) else error
            if cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__ or cause  # torch wraps errors of the disk
            raise OSError(
                f"the checkpoint {path} could not be written ({cause}); earlier checkpoints are "
                "intact. Make room, or name another folder (--trainer.default_root_dir), and "
                "resume with --ckpt_path."
            ) from error
        # Files of an earlier process that was killed.
        for leftover in path.parent.glob(f".{path.name}.*.partial"):
            leftover.unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; ValueError if it is truncated, foreign or hostile.

        No code in the file is executed, whatever ``weights_only`` is.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        checkpoint = self._opened.pop(str(path), None)
        if checkpoint is None:
            checkpoint = read_checkpoint(path, map_location, settings=())
        try:
            check_state(checkpoint)
        except ValueError as error:
            raise ValueError(f"ckpt_path: {path} is refused: {error}") from None
        checkpoint.setdefault("callbacks", {})  # otherwise Lightning calls no callback
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint if it is in a folder to which this object has written one.

        Other paths are kept, because the state of a callback may come from a hostile file.
        """
        checkpoint = Path(path)
        is_own = checkpoint.resolve().parent in {folder.resolve() for folder in self._folders}
        is_removable = is_own and checkpoint.suffix == ".ckpt" and not checkpoint.is_symlink()
        if is_removable or "://" in str(path):
            super().remove_checkpoint(path)
        else:
            rank_zero_warn(f"{path} is no checkpoint of this run and was not removed")


def _write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def read_last_checkpoint(folders: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Find and read the checkpoint that is furthest in training, in the last folder that has any.

    The content decides, because copies change the times of files. Among checkpoints of the same
    point, ``last.ckpt`` is preferred, then the first by name.

    Args:
        folders: Folders of runs, the newest run last; folders that do not exist are ignored.

    Returns:
        None if there is no checkpoint.

    Raises:
        ValueError: If no checkpoint can be read.
    """
    broken: list[str] = []
    for folder in reversed(list(folders)):
        found = [path for path in folder.glob("*.ckpt") if path.is_file()]
        for _, path in _furthest_first(found, broken):
            try:
                content = read_checkpoint(path, settings=())
            except ValueError as error:  # in a part that was not read before
                broken.append(str(error))
                continue
            if broken:
                problem = f"others, which may be newer, are broken: {broken[0]}"
                rank_zero_warn(for_terminal(f"resuming from {path}; {problem}"))
            return path, content
    if broken:
        raise ValueError(f"ckpt_path: no checkpoint can be read: {broken[0]}")
    return None


def furthest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Find the checkpoint of a folder that is furthest in training, and its number of steps.

    Weights are not read, and may be broken.
    """
    for (steps, *_), path in _furthest_first(folder.glob("*.ckpt"), []):
        return path, steps
    return None


def steps_of(path: Path) -> int:
    """The number of training steps of a checkpoint; ValueError if the file cannot be read."""
    return _progress_of(path)[0]


def _furthest_first(paths: Iterable[Path], broken: list[str]) -> list[tuple[tuple[int, ...], Path]]:
    """Sort the checkpoints that can be read; append the errors of the others to ``broken``."""
    known: list[tuple[tuple[int, ...], Path]] = []
    for path in sorted(paths, key=lambda path: (not path.name.startswith("last"), path)):
        try:
            known.append((_progress_of(path), path))
        except ValueError as error:
            broken.append(str(error))
    return sorted(known, key=lambda each: each[0], reverse=True)


def _progress_of(path: Path) -> tuple[int, ...]:
    """The number of steps of a checkpoint, and its order among those of the same step."""
    try:
        check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        steps = checkpoint["global_step"]
        if not isinstance(steps, int) or "optimizer_states" not in checkpoint:
            raise ValueError("it lacks the number of steps, or the state of the optimiser")
        return (steps, *Progress.of(checkpoint).order)
    except Exception as error:  # a broken file breaks the reader in many ways
        raise ValueError(
            f"checkpoint: {path} cannot be read ({one_line(error)}); it is truncated or no "
            "checkpoint of a training. Use another one of the same run."
        ) from None


class RunCheckpoint(ModelCheckpoint):
    """Saves checkpoints when Lightning does, and at the end of every epoch and of the training.

    Whatever the interval is, ``last.ckpt`` is written at the end of each epoch. Without a quantity
    to monitor, a checkpoint of the last step is kept for the test. A resumed training saves at the
    same steps as one without the interruption.

    The arguments are those of :class:`pytorch_lightning.callbacks.ModelCheckpoint`.
    """

    # The steps and epochs at which the named checkpoint and the last one were saved.
    _named_at = (-1, -1)
    _last_at = (-1, -1)
    _is_trained = False

    @property
    def state_key(self) -> str:
        """The key of Lightning's own class, which can then read the checkpoints."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark the step at which the training resumes as saved."""
        super().on_train_start(trainer, pl_module)
        self._is_trained = True
        # Otherwise the next accumulated batches are saved before their step.
        self._last_global_step_saved = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the chosen checkpoint, and the end of the epoch if that is another one."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        steps, epochs = _done(trainer)
        is_wanted = self.monitor is None and self.save_top_k != 0
        if is_wanted and self._named_at[0] != steps and (_is_over(trainer) or not self.save_last):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if not self.save_last or self._last_at == (steps, epochs):
            return
        candidates = self._monitor_candidates(trainer)
        if self.save_last != "link":
            self._save_last_checkpoint(trainer, candidates)
            return
        # No named file holds this step, so that a link has no target.
        path = self.format_checkpoint_name(candidates, self.CHECKPOINT_NAME_LAST)
        if trainer.is_global_zero and Path(path).is_symlink():
            Path(path).unlink()
        self.last_model_path = path
        self._save_checkpoint(trainer, path)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update ``last.ckpt`` if a process died before it did, and no step is left to train."""
        if self._is_trained or not (
            trainer.ckpt_path and self.save_last and trainer.is_global_zero
        ):
            return
        resumed = Path(trainer.ckpt_path)
        last = Path(self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST))
        if resumed.resolve().parent == last.resolve().parent and resumed.name != last.name:
            with new_file(last) as temporary:
                shutil.copyfile(resumed, temporary)

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
    """Log the step of a checkpoint before it is saved, and not again afterwards.

    A resumed training does not repeat the step: if the process dies while it saves, the step would
    be missing in the curves.
    """
    counts = trainer.fit_loop.epoch_loop.batch_progress.current
    # Lightning has no public way to log a step at another time.
    connector: Any = trainer._logger_connector
    name = "update_train_step_metrics"
    is_logged = counts.completed == counts.processed or name in vars(connector)  # type: ignore[attr-defined]
    if not is_logged:
        getattr(connector, name)()
        vars(connector)[name] = lambda: vars(connector).pop(name)


def _is_over(trainer: pl.Trainer) -> bool:
    """Whether the training ends with the epoch that has just ended."""
    # The public property ``fit_loop.done`` changes the progress that is saved, and prints.
    steps, epochs = _done(trainer)
    max_epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    return (
        0 <= max_epochs <= epochs
        or 0 <= trainer.max_steps <= steps
        or (trainer.should_stop and trainer.fit_loop._can_stop_early)
    )
