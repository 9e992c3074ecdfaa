"""Reading of checkpoints: their format, content and weights, checked before anything uses them."""

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
"""Number of the format, raised whenever older versions of the program would misread a checkpoint.

Format 2 counts the rows of an epoch that were trained on; format 1 counted batches. Both are read.
"""

_STAMP = "deepscm_pl"
_DESCRIPTION_VALUES = 20_000
"""Largest number of values in the settings of a model, or in any other description."""


def stamp(checkpoint: dict[str, Any]) -> None:
    """Add the version of the package and the number of the format to a checkpoint."""
    try:
        found = version("deepscm_pl")
    except PackageNotFoundError:
        found = "unknown"
    checkpoint[_STAMP] = {"version": found, "format": FORMAT}


def check_format(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError if the format of a checkpoint is newer, or no number.

    Checkpoints without a number are older than formats.
    """
    if _STAMP not in checkpoint:
        return
    found = checkpoint[_STAMP]
    number = found.get("format") if isinstance(found, Mapping) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(
            f"checkpoint: {path} has no valid format: expected a whole number from 1 as "
            f"{_STAMP}.format, but got {one_line(repr(number), 40)}; use another checkpoint of the "
            "same run."
        )
    if number > FORMAT:
        writer = one_line(found.get("version"), 40)
        is_version = re.fullmatch(r"\d[\w.!+-]*", writer)
        wanted = f"at least version {writer}" if is_version else "a newer version"
        raise ValueError(
            f"checkpoint: {path} was written by deepscm_pl {writer} in format "
            f"{one_line(number, 40)}, and this program reads formats up to {FORMAT}; install "
            f"{wanted} of deepscm_pl."
        )


def load_weights(model: nn.Module, weights: Any) -> None:
    """Load weights into a model: all of them, and no others.

    In addition to torch's checks, a tensor must be of the same kind (floating, whole or complex)
    and of exactly the same shape: torch takes the first of several numbers for a single one.

    Args:
        model: The model, whose weights are undefined after an error. On the device ``"meta"``,
            weights are only compared.
        weights: Tensors by the names of ``model.state_dict()``.

    Raises:
        ValueError: If a tensor is missing, unexpected, of another shape or kind, or not finite.

    Example:
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
    except Exception as error:  # unexpected weights raise many kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        names = _different_names(model, weights)
        problems = [*names, *_different_tensors(model, weights)] or [one_line(reason)]
    else:
        problems = [*_different_tensors(model, weights)]
    if problems:
        raise ValueError(
            f"the weights do not fit the model ({'; '.join(problems)}); take those of a model "
            "with the same settings."
        )
    broken = [*_names_not_finite(model)]
    if broken:
        raise ValueError(
            f"the weights are not finite ({_abridged(broken)}): the training that saved them had "
            "diverged; take an earlier checkpoint of the same run."
        )


def _names_not_finite(model: nn.Module) -> Iterator[str]:
    """Names of parameters with infinity or NaN, and of buffers with NaN."""
    checks = (
        (model.named_parameters(), lambda values: ~torch.isfinite(values)),
        (model.named_buffers(), torch.isnan),
    )
    for tensors, is_broken in checks:
        for name, values in tensors:
            if not (is_lazy(values) or values.is_meta) and bool(is_broken(values).any()):
                yield name


def _different_names(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    if missing:
        yield f"missing: {_abridged(missing)}"
    if unexpected:
        yield f"unexpected: {_abridged(unexpected)}"


def _different_tensors(model: nn.Module, weights: Mapping[Any, Any]) -> Iterator[str]:
    """The first tensor that differs from that of the model, and the number of others."""
    expected = model.state_dict()
    found = [
        f"{name} is {difference}"
        for name, value in expected.items()
        if name in weights and isinstance(value, Tensor) and not is_lazy(value)
        if (difference := _difference(weights[name], value))
    ]
    if found:
        yield _abridged(found)


def _difference(value: Any, expected: Tensor) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__} instead of a tensor"
    if value.shape != expected.shape:
        return f"of shape {tuple(value.shape)} instead of {tuple(expected.shape)}"
    kinds = [
        (each.is_floating_point(), each.is_complex(), each.is_quantized, each.layout)
        for each in (value, expected)
    ]
    if kinds[0] != kinds[1]:
        return f"of {value.dtype} ({value.layout}) instead of {expected.dtype} ({expected.layout})"
    return ""


def _abridged(texts: list[Any]) -> str:
    first = one_line(texts[0])
    return first if len(texts) == 1 else f"{first} and {len(texts) - 1} more"


def read_checkpoint(
    path: str | Path,
    map_location: Any = "cpu",
    settings: Sequence[str] = ("graph", "mechanisms"),
) -> dict[str, Any]:
    """Read a checkpoint or an exported model: tensors and plain data only.

    No code in the file is executed; objects of other types are refused.

    Args:
        path: A ``.ckpt`` file, or a ``.safetensors`` file of
            :func:`~deepscm_pl.checkpoints.export_model`, which lacks the state of the training.
        map_location: Device of the tensors, as in :func:`torch.load`.
        settings: Hyper-parameters that the expected kind of model has; those of
            :class:`~deepscm_pl.training.DeepSCM` by default.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is truncated, holds other objects, is of another kind, or has a
            format that is newer than this program.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint: there is no file {path}; a run keeps its checkpoints in the folder "
            "'checkpoints' inside its log folder."
        )
    loaded = read_exported(path, map_location) if is_exported(path) else _load(path, map_location)
    _check_content(path, loaded)
    require_settings(path, loaded, settings)
    return dict(loaded)


def require_settings(
    path: str | Path, checkpoint: Mapping[str, Any], settings: Sequence[str]
) -> None:
    """Raise ValueError unless a checkpoint has hyper-parameters of these names."""
    found = checkpoint["hyper_parameters"]
    if not isinstance(found, dict) or not set(settings) <= found.keys():
        raise ValueError(
            f"checkpoint: {path} belongs to another kind of model: its settings have no "
            f"{' and no '.join(settings)}."
        )


def _load(path: Path, map_location: Any) -> Any:
    try:
        check_archive(path)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise ValueError(
            f"checkpoint: {path} is refused: {one_line(error)}; load only files of this program."
        ) from None
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # broken files raise many kinds of errors
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"checkpoint: {path} cannot be read ({one_line(error)}); it is truncated or no "
        "checkpoint. Use another one of the same run."
    )


def _check_content(path: Path, checkpoint: Any) -> None:
    keys = ("state_dict", "hyper_parameters")
    if isinstance(checkpoint, dict):
        check_format(path, checkpoint)
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in keys):
        raise ValueError(
            f"checkpoint: {path} is no checkpoint of a model: expected the entries "
            f"{' and '.join(keys)}."
        )
    for name in ("hyper_parameters", "data", "reports", "descriptions", "variables", "calibration"):
        if count_values(checkpoint.get(name), _DESCRIPTION_VALUES) > _DESCRIPTION_VALUES:
            raise ValueError(
                f"checkpoint: {path} is refused: expected at most {_DESCRIPTION_VALUES:,} values "
                f"in its entry {name!r}, but it holds more; load only files of this program."
            )
    for name in ("epoch", "global_step"):
        number = checkpoint.get(name, 0)
        if type(number) is not int or not 0 <= number < 2**63:
            raise ValueError(
                f"checkpoint: {path} is refused: expected a whole number of at least 0 as its "
                f"entry {name!r}, but got {one_line(repr(number), 40)}."
            )
