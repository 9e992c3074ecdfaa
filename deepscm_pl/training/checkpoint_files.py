"""Checkpoint files that are complete or not there, and the last one of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import DiskFullError, new_file
from deepscm_pl.training.archives import check_archive
from deepscm_pl.training.checkpoint import read_checkpoint
from deepscm_pl.training.one_line import one_line
from deepscm_pl.training.progress import Progress
from deepscm_pl.training.training_state import check_state

__all__ = ["AtomicCheckpointIO", "furthest_checkpoint", "last_checkpoint", "steps_of"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints under another name, and gives them their own once they are on the disk.

    Who is killed while writing leaves the earlier file as it was. Addresses of remote storage are
    left to Lightning.
    """

    def __init__(self) -> None:
        self._folders: set[Path] = set()

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
        checkpoint = read_checkpoint(path, map_location, settings=())
        try:
            check_state(checkpoint)
        except ValueError as error:
            raise ValueError(f"ckpt_path: {path} is refused: {error}") from None
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
    """Find the checkpoint that is furthest in training, in the last folder that holds any.

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
                read_checkpoint(path, settings=())
            except ValueError as error:  # broken in what was not looked at so far
                broken.append(str(error))
                continue
            if broken:
                problem = f"others, which may be newer, are broken: {broken[0]}"
                rank_zero_warn(for_terminal(f"going on with {path}; {problem}"))
            return path
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
