"""Weights with their configuration in one safetensors file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepscm_pl.files import new_file

__all__ = ["SUFFIX", "is_exported", "read_exported", "write_exported"]

SUFFIX = ".safetensors"

_ENTRY = "deepscm_pl"
_TRAINING_ONLY = {
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "MixedPrecision",
}


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported model.

    Example:
        >>> is_exported("model.safetensors"), is_exported("last.ckpt")
        (True, False)
    """
    return Path(path).suffix == SUFFIX


def write_exported(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights of a checkpoint and what describes them; what only training needs is left.

    Args:
        checkpoint: As :func:`~deepscm_pl.training.read_checkpoint` returns it.
        path: The file to write, complete or not at all; one that exists is replaced.

    Raises:
        ValueError: If the file cannot be written, or the checkpoint holds what the format cannot.
    """
    about = {name: value for name, value in checkpoint.items() if name not in _TRAINING_ONLY}
    weights = {name: _alone(name, value) for name, value in checkpoint["state_dict"].items()}
    metadata = {"format": "pt", _ENTRY: _as_json(about)}
    try:
        with new_file(path) as temporary:
            save_file(weights, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"out: {path} cannot be written ({error}); name a file in a folder that exists and "
            "that you may write."
        ) from None


def read_exported(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The checkpoint in an exported file, less what only training needs.

    Args:
        path: The ``.safetensors`` file.
        map_location: Where the tensors go, as in :func:`torch.load`.

    Raises:
        ValueError: If the file is truncated, or no model of this program.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"checkpoint: {path} cannot be read ({error}); it is truncated or no safetensors "
            "file. Export the model again."
        ) from None
    return {**_about(path, metadata), "state_dict": _moved(weights, map_location)}


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = json.loads(metadata[_ENTRY])
    except (KeyError, ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise ValueError(
            f"checkpoint: {path} is no model of this program: its metadata have no readable entry "
            f"{_ENTRY!r}; name a file that 'deepscm export' wrote."
        )
    return about


def _alone(name: str, value: Any) -> Tensor:
    """A tensor that shares no memory, as the format demands."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"checkpoint: expected tensors as weights, but got {type(value).__name__} for {name}; "
            "such a model cannot be exported."
        )
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _as_json(about: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(about)
    except TypeError as error:
        raise ValueError(
            f"checkpoint: its description cannot be written as JSON ({error}); such a model "
            "cannot be exported."
        ) from None
    return text


def _moved(weights: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    """Tensors where :func:`torch.load` would have put them."""
    if map_location in ("cpu", None):
        return weights
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    buffer.seek(0)
    moved: dict[str, Tensor] = torch.load(buffer, map_location=map_location, weights_only=True)
    return moved
