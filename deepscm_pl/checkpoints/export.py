"""Exporting a trained model: weights and configuration, without what only training needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.runs.safetensors_file import SUFFIX, is_exported, write_exported
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

__all__ = ["export_model", "write_model"]


def export_model(
    checkpoint_path: str | Path,
    path: str | Path,
    overwrite: bool = False,
    trust: Sequence[str] = (),
) -> Path:
    """Write the model in a checkpoint as one safetensors file, which holds no pickle.

    The file answers questions exactly as the checkpoint does, wherever one is expected; the
    averaged weights are exported where the checkpoint holds them. A training cannot go on from it.

    Beside what the checkpoint says of its model, the description in the metadata has

    - ``variables``: for each the parents, the unit and the names of the classes (None where the
      data do not tell) and the domain, in words as ``values`` and as the fields of
      :class:`~deepscm_pl.variables.Domain`, with None for a bound that there is not;
    - ``weights``: ``"averaged"`` or ``"raw"``;
    - ``parameters``: how many numbers were learned.

    Args:
        checkpoint_path: The ``.ckpt`` file.
        path: The file to write, ending in ``.safetensors``.
        overwrite: Whether a file of that name is replaced.
        trust: Packages whose classes the checkpoint may name, in addition to this one.

    Returns:
        The file that was written.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is truncated, foreign or hostile, or does not fit the model
            that it describes; or if ``path`` has another ending, exists or cannot be written.
    """
    write_model(checkpoint_path, path, overwrite, trust)
    return Path(path)


def write_model(
    checkpoint_path: str | Path, path: str | Path, overwrite: bool, trust: Sequence[str]
) -> dict[str, Any]:
    """Do what :func:`export_model` does; the description that was added to the file.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: As for :func:`export_model`.
    """
    path = Path(path)
    _check_name(path, overwrite)
    checkpoint = Checkpoint.read(checkpoint_path, trust=trust)
    scm = checkpoint.trained_model().scm
    about = {
        "variables": _about_variables(scm),
        "weights": "averaged" if _is_averaged(checkpoint.content) else "raw",
        "parameters": sum(parameter.numel() for parameter in scm.parameters()),
    }
    write_exported({**checkpoint.content, **about}, path)
    return about


def _check_name(path: Path, overwrite: bool) -> None:
    if not is_exported(path):
        raise ValueError(f"out: expected a file ending in {SUFFIX}, but got {path}.")
    if path.is_dir():
        raise ValueError(f"out: {path} cannot be written, for it is a folder; name a file.")
    if path.exists() and not overwrite:
        raise ValueError(
            f"out: {path} exists; choose another --out, or --overwrite to replace it (in Python "
            "overwrite=True)."
        )


def _is_averaged(checkpoint: Mapping[str, Any]) -> bool:
    """Whether Lightning's averaging has written it, or an export of what that has written."""
    return "current_model_state" in checkpoint or checkpoint.get("weights") == "averaged"


def _about_variables(scm: StructuralCausalModel) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "parents": list(scm.graph.parents[name]),
            **variable.describe(),
            **_about_domain(variable.domain),
        }
        for name, variable in scm.variables.items()
    }


def _about_domain(domain: Domain) -> dict[str, Any]:
    """In words, and as plain data that any reader of JSON understands."""
    fields = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(domain).items()
    }
    return {"values": str(domain), **fields, "shape": list(domain.shape)}
