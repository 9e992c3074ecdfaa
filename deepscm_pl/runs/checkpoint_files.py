"""Checkpoint files that are complete or not there, and the last one of a training."""

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
    "last_checkpoint",
    "read_last_checkpoint",
    "steps_of",
]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints under another name, and gives them their own once they are on the disk.

    Who is killed while writing leaves the earlier file as it was. Addresses of remote storage are
    left to Lightning.

    Args:
        opened: The content of checkpoints by path, which are not read again the next time.
    """

    def __init__(self, opened: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._folders: set[Path] = set()
        self._opened = dict(opened or {})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If it cannot be written; earlier ones are as they were.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            self._require_folder(path.parent)
            with new_file(path) as temporary:
                _write(checkpoint, temporary)
        except (OSError, RuntimeError) as error:
            if "DataLoader worker" in str(error):  # which died meanwhile
                raise
            # Torch wraps what the disk says.
            wrapped = error.__cause__ if isinstance(error, DiskFullError) else error
            cause = wrapped
            if wrapped is not None and not isinstance(wrapped, OSError):
                cause = wrapped.__context__ or wrapped
            raise OSError(
                f"the checkpoint {path} could not be written ({cause}); the earlier checkpoints "
                "are as they were. Make room, or name another folder (--trainer.default_root_dir), "
                "and go on with --ckpt_path."
            ) from error
        # What an earlier process left behind because it was killed.
        for leftover in path.parent.glob(f".{path.name}.*.partial"):
            leftover.unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, or an exported model, and check it before Lightning acts on it.

        Tensors and plain data are read, whatever ``weights_only`` says.

        Raises:
            ValueError: If the file is truncated, foreign or hostile.
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
        checkpoint.setdefault("callbacks", {})  # without it Lightning calls none of them
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint that lies in a folder to which this object has written one.

        Anything else stays, whatever the state of a callback says: it may come from a file.
        """
        checkpoint = Path(path)
        is_own = checkpoint.resolve().parent in {folder.resolve() for folder in self._folders}
        if "://" in str(path) or (
            is_own and checkpoint.suffix == ".ckpt" and not checkpoint.is_symlink()
        ):
            super().remove_checkpoint(path)
            return
        rank_zero_warn(f"{path} is no checkpoint of this run and was not removed")

    def _require_folder(self, folder: Path) -> None:
        """Make a folder once; if it is gone later, someone has taken the run away."""
        if folder in self._folders and not folder.is_dir():
            raise FileNotFoundError(f"the folder {folder} has vanished")
        folder.mkdir(parents=True, exist_ok=True)
        self._folders.add(folder)


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def last_checkpoint(folders: Iterable[Path]) -> Path | None:
    """Find the checkpoint that :func:`read_last_checkpoint` reads."""
    found = read_last_checkpoint(folders)
    return None if found is None else found[0]


def read_last_checkpoint(folders: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Find and read the checkpoint that is furthest in training, in the last folder that holds any.

    How far a checkpoint is follows from its content, not from the time of the file, which a copy
    changes. Of checkpoints of the same point, ``last.ckpt`` is taken, then the first by name.

    Args:
        folders: Folders of runs, the newest run last; those that do not exist are left out.

    Returns:
        None if there is no checkpoint.

    Raises:
        ValueError: If there are some, and none can be read.
    """
    broken: list[str] = []
    for folder in reversed(list(folders)):
        found = [path for path in folder.glob("*.ckpt") if path.is_file()]
        for path in _furthest_first(sorted(found), broken):
            try:
                content = read_checkpoint(path, settings=())
            except ValueError as error:  # broken in what was not looked at so far
                broken.append(str(error))
                continue
            if broken:
                problem = f"others, which may be newer, are broken: {broken[0]}"
                rank_zero_warn(for_terminal(f"going on with {path}; {problem}"))
            return path, content
    if broken:
        raise ValueError(f"ckpt_path: no checkpoint can be read: {broken[0]}")
    return None


def furthest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """Find the checkpoint of a folder that is furthest in training, and its number of steps.

    Weights are not read: they may still turn out to be broken.
    """
    paths = _furthest_first(sorted(folder.glob("*.ckpt")), [])
    return (paths[0], steps_of(paths[0])) if paths else None


def steps_of(path: Path) -> int:
    """The number of training steps that led to a checkpoint; no weights are read.

    Raises:
        ValueError: If the file cannot be read, or holds no progress of a training.
    """
    return _progress_of(path)[0]


def _furthest_first(paths: Iterable[Path], broken: list[str]) -> list[Path]:
    """Sort those that can be read; messages of the others go to ``broken``."""
    known: list[tuple[tuple[int, ...], Path]] = []
    for path in paths:
        try:
            known.append((_progress_of(path), path))
        except ValueError as error:
            broken.append(str(error))
    by_name = sorted(known, key=lambda each: not each[1].name.startswith("last"))
    return [path for _, path in sorted(by_name, key=lambda each: each[0], reverse=True)]


def _progress_of(path: Path) -> tuple[int, ...]:
    """The number of steps, and how far the checkpoint is within the last of them."""
    try:
        check_archive(path)
        # The content of tensors stays on the disk.
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
