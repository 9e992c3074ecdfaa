"""Where the results of a run belong."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

__all__ = ["checkpoint_folder", "run_folder"]


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run: of the checkpoint that is tested, or of the training's own log."""
    tested = trainer.ckpt_path
    if tested is not None and Path(tested).is_file():
        folder = Path(tested).resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder
    return Path(trainer.log_dir or trainer.default_root_dir)


def checkpoint_folder(trainer: pl.Trainer) -> Path:
    """The folder in which the run keeps its checkpoints, or the run's own if it keeps none."""
    tested = trainer.ckpt_path
    if tested is not None and Path(tested).is_file():
        return Path(tested).resolve().parent
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return Path(folder) if folder else run_folder(trainer)
