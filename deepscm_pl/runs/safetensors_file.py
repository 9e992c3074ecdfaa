"""Weights with their configuration in one safetensors file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepscm_pl.escaping import one_line
from deepscm_pl.files import DiskFullError, new_file

__all__ = ["SUFFIX", "is_exported", "read_exported", "without_training_state", "write_exported"]

SUFFIX = ".safetensors"

_ENTRY = "deepscm_pl"
_LONGEST = 10_000_000
"""Characters of a description; a thousand times what models have, and read in a moment."""

_NOT_FINITE = "deepscm_pl.number"
"""Marks the numbers that JSON lacks: ``{"deepscm_pl.number": "inf"}``."""

_LACKING = (torch.complex32, torch.complex128)
"""Types of numbers that safetensors has not."""

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
    """Whether the name is that of an exported model.

    Example:
        >>> is_exported("model.safetensors"), is_exported("last.ckpt")
        (True, False)
    """
    return Path(path).suffix == SUFFIX


def write_exported(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights of a checkpoint and what describes them; what only training needs is left.

    The same checkpoint gives the same bytes.

    Args:
        checkpoint: As :func:`~deepscm_pl.training.read_checkpoint` returns it.
        path: The file to write, complete or not at all; one that exists is replaced.

    Raises:
        ValueError: If the file cannot be written, or the checkpoint holds what the format cannot.
    """
    weights = {name: _alone(name, value) for name, value in checkpoint["state_dict"].items()}
    # One entry: safetensors writes several in an order that changes from call to call.
    metadata = {_ENTRY: _as_json(without_training_state(checkpoint))}
    try:
        with new_file(path) as temporary:
            save_file(weights, temporary, metadata=metadata)
    except DiskFullError:
        raise
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"out: {path} cannot be written ({one_line(error)}); name a file in a folder that "
            "exists, that you may write and that has space."
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
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a broken file breaks the reader in many ways
        raise ValueError(
            f"checkpoint: {path} cannot be read ({one_line(error)}); it is truncated or no "
            "safetensors file. Export the model again."
        ) from None
    return {
        **without_training_state(_about(path, metadata)),
        "state_dict": _moved(weights, map_location),
    }


def _check_header(path: Path) -> None:
    """Refuse what safetensors takes: a header of any length, in which names occur twice."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 4 * _LONGEST:
            raise ValueError(f"its header would be {length} bytes long")
        json.loads(file.read(length), object_pairs_hook=_read_object)


def without_training_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What describes a model, without its tensors and what only training needs."""
    return {name: value for name, value in checkpoint.items() if name not in _TRAINING_ONLY}


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(_ENTRY, "")
    try:
        about = json.loads(text, object_pairs_hook=_read_object) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise ValueError(
            f"checkpoint: {path} is no model of this program: its metadata have no readable entry "
            f"{_ENTRY!r}; name a file that 'deepscm export' wrote."
        )
    return about


def _read_object(pairs: list[tuple[str, Any]]) -> Any:
    """A JSON object, in which a name must not occur twice: readers differ in which one they see."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice")
    if content.keys() != {_NOT_FINITE}:
        return content
    if content[_NOT_FINITE] not in ("inf", "-inf", "nan"):
        raise ValueError("a number is unreadable")
    return float(content[_NOT_FINITE])


def _alone(name: str, value: Any) -> Tensor:
    """A tensor that shares no memory, as the format demands."""
    if not isinstance(value, Tensor):
        raise _unwritable(name, type(value).__name__)
    if value.layout != torch.strided or value.is_quantized or value.dtype in _LACKING:
        raise _unwritable(name, f"{value.dtype} ({value.layout})")
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _unwritable(name: str, found: str) -> ValueError:
    return ValueError(
        f"checkpoint: expected dense tensors of numbers as weights, but got {found} for {name}; "
        "such a model cannot be exported."
    )


def _as_json(about: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(_writable(about), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"checkpoint: its description cannot be written as JSON ({one_line(error)}); such a "
            "model cannot be exported."
        ) from None
    if len(text) > _LONGEST:
        raise ValueError(
            f"checkpoint: expected a description of at most {_LONGEST:,} characters, but its has "
            f"{len(text):,}; such a model cannot be exported."
        )
    return text


def _writable(value: Any) -> Any:
    """Plain data in which all numbers are finite, and all names are texts already."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: str(value)}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    odd = [name for name in value if not isinstance(name, str)]
    if odd:
        raise TypeError(f"the name {odd[0]!r} is no text")
    return {name: _writable(item) for name, item in value.items()}


def _moved(weights: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    """Tensors where :func:`torch.load` would have put them."""
    if map_location in ("cpu", None):
        return weights
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    buffer.seek(0)
    moved: dict[str, Tensor] = torch.load(buffer, map_location=map_location, weights_only=True)
    return moved
