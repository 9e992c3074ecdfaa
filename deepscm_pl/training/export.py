"""Exporting a trained model: weights and configuration, without what only training needs."""

from __future__ import annotations

from pathlib import Path

from deepscm_pl.training.checkpoint import read_checkpoint
from deepscm_pl.training.deep_scm import DeepSCM
from deepscm_pl.training.exported import SUFFIX, is_exported, write_exported

__all__ = ["export_model"]


def export_model(checkpoint_path: str | Path, path: str | Path) -> Path:
    """Write the model in a checkpoint as one safetensors file, which holds no pickle.

    The file answers questions exactly as the checkpoint does, wherever one is expected; the
    averaged weights are exported where the checkpoint holds them. A training cannot go on from it.

    Args:
        checkpoint_path: The ``.ckpt`` file.
        path: The file to write, ending in ``.safetensors``; one that exists is replaced.

    Returns:
        The file that was written.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is truncated, foreign or hostile, or does not fit the model
            that it describes; or if ``path`` has another ending or cannot be written.
    """
    path = Path(path)
    if not is_exported(path):
        raise ValueError(f"out: expected a file ending in {SUFFIX}, but got {path}.")
    DeepSCM.load_from_checkpoint(checkpoint_path)  # whatever is wrong with it is said here
    write_exported(read_checkpoint(checkpoint_path), path)
    return path
