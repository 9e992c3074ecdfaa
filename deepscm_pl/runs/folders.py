"""Folders in which the results of a run belong.

All processes must call these functions, because Lightning broadcasts the log folder of the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from deepscm_pl.configuration import describe

__all__ = ["checkpoint_folder", "describe_origin", "run_folder", "trained_steps"]


def _tested_checkpoint(trainer: pl.Trainer) -> Path | None:
    """The checkpoint under evaluation; None in training, which may resume that of another run."""
    path = trainer.ckpt_path
    if path is None or trainer.state.fn == "fit" or not Path(path).is_file():
        return None
    return Path(path).resolve()


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run: that of the tested checkpoint, or of the training's own log."""
    tested = _tested_checkpoint(trainer)
    if tested is not None:
        return tested.parent.parent if tested.parent.name == "checkpoints" else tested.parent
    return Path(trainer.log_dir or trainer.default_root_dir)


def checkpoint_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run's checkpoints, or the run's own if it keeps none."""
    tested = _tested_checkpoint(trainer)
    if tested is not None:
        return tested.parent
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    return Path(folder) if folder else run_folder(trainer)


def trained_steps(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """The number of steps that the present weights were trained for, as far as known."""
    loaded = getattr(pl_module, "loaded_steps", None)
    if trainer.state.fn == "fit" or not isinstance(loaded, int):
        return trainer.global_step
    return loaded


def describe_origin(trainer: pl.Trainer) -> dict[str, Any]:
    """The data and the checkpoint of a test, as plain data."""
    data: Any = getattr(trainer, "datamodule", None)
    return {
        "data": describe(data.configuration()) if hasattr(data, "configuration") else None,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
    }
