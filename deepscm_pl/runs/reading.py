"""Which version of the program wrote a checkpoint, and whether this one can read it."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from deepscm_pl.configuration import count_values
from deepscm_pl.escaping import one_line
from deepscm_pl.runs.archives import check_archive
from deepscm_pl.runs.safetensors_file import is_exported, read_exported

__all__ = ["FORMAT", "check_format", "load_weights", "read_checkpoint", "require_settings", "stamp"]

FORMAT = 2
"""Raised whenever older versions of the program would misread a checkpoint.

2 counts the rows of an epoch that were trained on; 1 counted batches. All are read.
"""

_KEY = "deepscm_pl"
_VERSION = re.compile(r"\d[\w.!+-]*")


def stamp(checkpoint: dict[str, Any]) -> None:
    """Note in ``checkpoint`` the version of the package and the number of the format.

    Example:
        >>> checkpoint = {}
        >>> stamp(checkpoint)
        >>> sorted(checkpoint["deepscm_pl"])
        ['format', 'version']
    """
    try:
        found = version("deepscm_pl")
    except PackageNotFoundError:
        found = "unknown"
    checkpoint[_KEY] = {"version": found, "format": FORMAT}


def check_format(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse what a newer program wrote; a checkpoint without a number is an old one.

    Raises:
        ValueError: If the format is newer than this program knows, or is no number.
    """
    if _KEY not in checkpoint:
        return
    found = checkpoint[_KEY]
    number = found.get("format") if isinstance(found, Mapping) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(
            f"checkpoint: {path} does not say its format: expected a whole number from 1 as "
            f"{_KEY}.format, but got {_shown(repr(number))}; use another checkpoint of the same "
            "run."
        )
    if number > FORMAT:
        writer = _shown(found.get("version"))
        wanted = f"at least version {writer}" if _VERSION.fullmatch(writer) else "a newer version"
        raise ValueError(
            f"checkpoint: {path} was written by deepscm_pl {writer} in format {_shown(number)}, "
            f"and this program reads formats up to {FORMAT}; install {wanted} of deepscm_pl."
        )


def _shown(value: object) -> str:
    return one_line(value, longest=40)


def load_weights(model: nn.Module, weights: Any) -> None:
    """Put ``weights`` into ``model``; all of them, and no others.

    Beyond what torch refuses, a tensor must be of the same kind (floating, whole or complex) and
    of exactly the same shape: torch takes the first of several numbers for a single one.

    Args:
        model: The model; where this raises, its weights are of no use. On the device ``"meta"``
            weights are compared with it, and nothing else happens.
        weights: Name to tensor, as of ``model.state_dict()``.

    Raises:
        ValueError: If a tensor is missing, unexpected, of another shape or kind, or not finite.

    Example:
        >>> import torch
        >>> load_weights(nn.Linear(2, 1), {"weight": torch.zeros(1, 3)})
        Traceback (most recent call last):
            ...
        ValueError: the weights do not fit the model (missing: bias; weight is of shape (1, 3)
        instead of (1, 2)); take those of a model with the same settings.
    """
    if not isinstance(weights, Mapping):
        raise ValueError(f"expected tensors by name as weights, but got {type(weights).__name__}.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
            model.load_state_dict(weights)
    except Exception as error:  # odd weights break the reader in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        problems = [*_names(model, weights), *_unlike(model, weights)] or [one_line(reason)]
    else:
        problems = [*_unlike(model, weights)]
    if problems:
        raise ValueError(
            f"the weights do not fit the model ({'; '.join(problems)}); take those of a model "
            "with the same settings."
        )
    odd = [*_not_finite(model)]
    if odd:
        raise ValueError(
            f"the weights are not finite ({_first_of(odd)}): the training that saved them had "
            "diverged; take an earlier checkpoint of the same run."
        )


def _not_finite(model: nn.Module) -> Iterator[str]:
    """Names of parameters with infinite or NaN elements, and of buffers with NaN."""
    for name, parameter in model.named_parameters():
        if _has_values(parameter) and not bool(torch.isfinite(parameter).all()):
            yield name
    for name, buffer in model.named_buffers():
        if _has_values(buffer) and bool(torch.isnan(buffer).any()):
            yield name


def _has_values(tensor: Tensor) -> bool:
    return not (is_lazy(tensor) or tensor.is_meta)


def _names(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    """Which tensors are missing, and which are not expected."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    if missing:
        yield f"missing: {_first_of(missing)}"
    if unexpected:
        yield f"unexpected: {_first_of(unexpected)}"


def _unlike(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    """The first tensor that is not like that of the model, and how many more there are."""
    expected = model.state_dict()
    found = {
        name: _difference(weights[name], value)
        for name, value in expected.items()
        if name in weights and isinstance(value, Tensor) and not is_lazy(value)
    }
    unlike = [f"{name} is {difference}" for name, difference in found.items() if difference]
    if unlike:
        yield _first_of(unlike)


def _difference(value: Any, expected: Tensor) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__} instead of a tensor"
    if value.shape != expected.shape:
        return f"of shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
    if _kind(value) != _kind(expected):
        return f"of {_type(value)} instead of {_type(expected)}"
    return ""


def _kind(value: Tensor) -> tuple[object, ...]:
    return value.is_floating_point(), value.is_complex(), value.is_quantized, value.layout


def _type(value: Tensor) -> str:
    return f"{value.dtype} ({value.layout})"


def _first_of(texts: list[Any]) -> str:
    first = one_line(texts[0])
    return first if len(texts) == 1 else f"{first} and {len(texts) - 1} more"


_MOST_VALUES = 20_000
"""Values in the settings of a model, or in any other description, that are read at most."""

_DESCRIPTIONS = ("hyper_parameters", "data", "reports", "descriptions")
_COUNTERS = ("epoch", "global_step")


def read_checkpoint(
    path: str | Path,
    map_location: Any = "cpu",
    settings: Sequence[str] = ("graph", "mechanisms"),
) -> dict[str, Any]:
    """Read a checkpoint, or an exported model, tensors and plain data only.

    Nothing in the file is executed: anything but tensors and plain data is refused.

    Args:
        path: The ``.ckpt`` file, or the ``.safetensors`` file of
            :func:`~deepscm_pl.checkpoints.export_model`, which lacks what only training needs.
        map_location: Where the tensors go, as in :func:`torch.load`.
        settings: Names of hyper-parameters that the expected kind of model has; those of
            :class:`~deepscm_pl.training.DeepSCM` by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, holds anything else, is of another kind, or was
            written in a format that is newer than this program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint: there is no file {path}; a run keeps its checkpoints in the folder "
            "'checkpoints' inside its log folder."
        )
    loaded = read_exported(path, map_location) if is_exported(path) else _load(path, map_location)
    _check_kind(path, loaded)
    require_settings(path, loaded, settings)
    return dict(loaded)


def _load(path: Path, map_location: Any) -> Any:
    """What a file of torch holds, if it is tensors and plain data."""
    try:
        check_archive(path)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise ValueError(
            f"checkpoint: {path} is refused: {one_line(error)}; load only what this program saved."
        ) from None
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a broken file breaks the reader in many ways
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"checkpoint: {path} cannot be read ({one_line(error)}); it is truncated or no "
        "checkpoint. Use another one of the same run."
    )


def require_settings(
    path: str | Path, checkpoint: Mapping[str, Any], settings: Sequence[str]
) -> None:
    """Raise unless a checkpoint has hyper-parameters of these names.

    Raises:
        ValueError: If it belongs to another kind of model.
    """
    found = checkpoint["hyper_parameters"]
    if not isinstance(found, dict) or not set(settings) <= found.keys():
        raise ValueError(
            f"checkpoint: {path} belongs to another kind of model: its settings have no "
            f"{' and no '.join(settings)}."
        )


def _check_kind(path: Path, checkpoint: Any) -> None:
    keys = ("state_dict", "hyper_parameters")
    if isinstance(checkpoint, dict):
        check_format(path, checkpoint)
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in keys):
        raise ValueError(
            f"checkpoint: {path} is no checkpoint of a model: expected the entries "
            f"{' and '.join(keys)}."
        )
    for name in _DESCRIPTIONS:
        if count_values(checkpoint.get(name), _MOST_VALUES) > _MOST_VALUES:
            raise ValueError(
                f"checkpoint: {path} is refused: expected at most {_MOST_VALUES:,} values in its "
                f"entry {name!r}, but it holds more; load only what this program saved."
            )
    for name in _COUNTERS:
        number = checkpoint.get(name, 0)
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError(
                f"checkpoint: {path} is refused: expected a whole number of at least 0 as its "
                f"entry {name!r}, but got {one_line(repr(number), 40)}."
            )
