"""Checkpoint files that are complete or not there, and the last one of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from deepscm_pl.files import DiskFullError, new_file
from deepscm_pl.training.checkpoint import read_checkpoint
from deepscm_pl.training.safetensors_file import is_exported

__all__ = ["AtomicCheckpointIO", "last_checkpoint"]


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
        """Read a checkpoint, or an exported model, which Lightning does not know.

        Raises:
            ValueError: If an exported model is truncated or foreign.
        """
        if is_exported(path):
            return read_checkpoint(path, map_location, settings=())
        return super().load_checkpoint(path, map_location, weights_only)

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
    """The newest checkpoint that is complete, of those in some folders.

    Args:
        folders: Where to look; those that do not exist are left out.

    Returns:
        None if there is no checkpoint.

    Raises:
        ValueError: If there are some, and none can be read.
    """
    found = [path for folder in folders for path in folder.glob("*.ckpt") if path.is_file()]
    broken: list[str] = []
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(path, settings=())
        except ValueError as error:
            broken.append(str(error))
            continue
        if broken:
            rank_zero_warn(f"going on with {path}, for newer ones are broken: {broken[0]}")
        return path
    if broken:
        raise ValueError(f"ckpt_path: no checkpoint can be read: {broken[0]}")
    return None
