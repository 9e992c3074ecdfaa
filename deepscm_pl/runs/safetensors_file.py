"""Weights with their configuration in one safetensors file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepscm_pl.escaping import one_line
from deepscm_pl.files import DiskFullError, new_file

__all__ = [
    "SUFFIX",
    "is_exported",
    "read_exported",
    "read_tensors",
    "without_training_state",
    "write_exported",
    "write_tensors",
]

SUFFIX = ".safetensors"

_ENTRY = "deepscm_pl"
_DESCRIPTION_LIMIT = 10_000_000
"""Characters of a description, a thousand times the usual number."""

_NOT_FINITE = "deepscm_pl.number"
"""Key of numbers that JSON lacks: ``{"deepscm_pl.number": "inf"}``."""

_TRAINING_ONLY = {
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "MixedPrecision",
    "metrics",
    "gradients",
}


def is_exported(path: str | Path) -> bool:
    """Whether a path has the suffix of an exported model."""
    return Path(path).suffix == SUFFIX


def without_training_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Select the description of a model, without tensors and the state of its training."""
    return {name: value for name, value in checkpoint.items() if name not in _TRAINING_ONLY}


def write_exported(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights and the description of a checkpoint, without the state of its training.

    The same checkpoint gives the same bytes. The file appears complete or not at all.

    Args:
        checkpoint: The content that :func:`~deepscm_pl.training.read_checkpoint` returns.
        path: The file, which is replaced if it exists.

    Raises:
        ValueError: If the file cannot be written, or the format cannot hold the checkpoint.
    """
    weights = {name: _separate(name, value) for name, value in checkpoint["state_dict"].items()}
    write_tensors(weights, without_training_state(checkpoint), path)


def write_tensors(tensors: dict[str, Tensor], description: Mapping[str, Any], path: Path) -> None:
    """Write tensors, which share no memory, and plain data about them.

    Raises:
        ValueError: If the file cannot be written, or the description is not plain data.
    """
    # A single entry, because safetensors writes several in an order that varies between calls.
    metadata = {_ENTRY: _to_json(description)}
    try:
        with new_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except DiskFullError:
        raise
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"out: {path} cannot be written ({one_line(error)}); name a file in a folder that "
            "exists, that you may write and that has space."
        ) from None


def read_exported(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read an exported model as a checkpoint without the state of its training.

    Args:
        path: The ``.safetensors`` file.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Raises:
        ValueError: If the file is truncated, or not a model of this program.
    """
    weights, description = read_tensors(path)
    return {**without_training_state(description), "state_dict": _moved(weights, map_location)}


def read_tensors(
    path: Path, setting: str = "checkpoint", kind: str = "model"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a file of :func:`write_tensors`, and the plain data about them.

    Args:
        path: The ``.safetensors`` file.
        setting: The setting that names the file, for messages.
        kind: Its content, for messages.

    Raises:
        ValueError: If the file is truncated, or was not written by this program.
    """
    try:
        with path.open("rb") as header:
            length = int.from_bytes(header.read(8), "little")
            # Safetensors accepts any length, and names that occur twice.
            if length > 4 * _DESCRIPTION_LIMIT:
                raise ValueError(f"its header would be {length} bytes long")
            json.loads(header.read(length), object_pairs_hook=_from_json)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a broken file breaks the reader in many ways
        raise ValueError(
            f"{setting}: {path} cannot be read ({one_line(error)}); it is truncated or no "
            "safetensors file. Export the model again."
        ) from None
    return tensors, _parsed_description(path, metadata.get(_ENTRY, ""), setting, kind)


def _parsed_description(path: Path, text: str, setting: str, kind: str) -> dict[str, Any]:
    found = None
    if len(text) <= _DESCRIPTION_LIMIT:
        with suppress(ValueError, RecursionError):
            found = json.loads(text, object_pairs_hook=_from_json)
    if not isinstance(found, dict):
        raise ValueError(
            f"{setting}: {path} is no {kind} of this program: its metadata have no readable entry "
            f"{_ENTRY!r}; name a file that 'deepscm export' wrote."
        )
    return found


def _from_json(pairs: list[tuple[str, Any]]) -> Any:
    """Make a dictionary or a number; names that occur twice are refused as ambiguous."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice")
    if content.keys() != {_NOT_FINITE}:
        return content
    if content[_NOT_FINITE] not in ("inf", "-inf", "nan"):
        raise ValueError("a number is unreadable")
    return float(content[_NOT_FINITE])


def _separate(name: str, value: Any) -> Tensor:
    """Copy a tensor, because tensors in the format must not share memory."""
    is_tensor = isinstance(value, Tensor)
    is_dense = is_tensor and value.layout == torch.strided and not value.is_quantized
    if not is_dense or value.dtype in (torch.complex32, torch.complex128):
        found = f"{value.dtype} ({value.layout})" if is_tensor else type(value).__name__
        raise ValueError(
            f"checkpoint: expected dense tensors of numbers as weights, but got {found} for "
            f"{name}; such a model cannot be exported."
        )
    separate: Tensor = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return separate


def _to_json(description: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(_jsonable(description), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"checkpoint: its description cannot be written as JSON ({one_line(error)}); such a "
            "model cannot be exported."
        ) from None
    if len(text) > _DESCRIPTION_LIMIT:
        raise ValueError(
            f"checkpoint: expected a description of at most {_DESCRIPTION_LIMIT:,} characters, but "
            f"it has {len(text):,}; such a model cannot be exported."
        )
    return text


def _jsonable(value: Any) -> Any:
    """Replace numbers that JSON lacks, and refuse keys that are not texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: str(value)}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} is no text")
    return {name: _jsonable(item) for name, item in value.items()}


def _moved(weights: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    """Move tensors to the devices that :func:`torch.load` would choose."""
    if map_location in ("cpu", None):
        return weights
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    buffer.seek(0)
    moved: dict[str, Tensor] = torch.load(buffer, map_location=map_location, weights_only=True)
    return moved
