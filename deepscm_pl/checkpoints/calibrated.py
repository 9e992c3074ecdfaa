"""Calibrations of intervals that are stored in checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.files import new_file
from deepscm_pl.runs.reading import read_checkpoint
from deepscm_pl.runs.safetensors_file import is_exported, write_exported

__all__ = ["store_calibration"]


def store_calibration(path: str | Path, calibration: Calibration) -> None:
    """Store a calibration in a checkpoint or an exported model, and keep everything else.

    The file is replaced once the new one is complete.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is no checkpoint.
        OSError: If it cannot be written.
    """
    content = read_checkpoint(path, settings=())
    content["calibration"] = calibration.as_plain_data()
    if is_exported(path):
        write_exported(content, Path(path))
        return
    with new_file(Path(path)) as temporary:
        torch.save(content, temporary)
