"""Export of a trained model: weights and configuration, without the state of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.runs.safetensors_file import SUFFIX, is_exported, write_exported
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["export_model", "write_model"]

_OF_TRAINING = ("initial", "objective")
"""Settings of a model that only its training uses."""


def export_model(
    checkpoint_path: str | Path,
    path: str | Path,
    overwrite: bool = False,
    trust: Sequence[str] = (),
    root: str | None = None,
) -> Path:
    """Write the model in a checkpoint as one safetensors file, which holds no pickle.

    The file can replace the checkpoint wherever a trained model is expected and gives the same
    answers, but a training cannot be resumed from it. Averaged weights are exported if the
    checkpoint holds them. The description in the metadata adds to that of the checkpoint:

    - ``variables``: for each the parents, the unit and the class names (None if the data have
      none) and the domain, in words as ``values`` and as the fields of
      :class:`~deepscm_pl.variables.Domain`, with None for infinite bounds;
    - ``weights``: ``"averaged"`` or ``"raw"``;
    - ``parameters``: the number of parameters.

    Absolute paths of files of the training, such as those of predictors of the objective, are
    reduced to the names of the files.

    Args:
        checkpoint_path: The ``.ckpt`` file.
        path: The file to write, ending in ``.safetensors``.
        overwrite: Whether an existing file is replaced.
        trust: Packages whose classes the checkpoint may name, in addition to this package.
        root: The folder of the data as the file names it, such as ``data/morphomnist``; None for
            the absolute one of the training.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is truncated, foreign or hostile, or does not fit the model
            that it describes; if ``path`` has another ending, exists or cannot be written; or if
            ``root`` is given for data that have none.
    """
    write_model(checkpoint_path, path, overwrite, trust, root)
    return Path(path)


def write_model(
    checkpoint_path: str | Path,
    path: str | Path,
    overwrite: bool,
    trust: Sequence[str],
    root: str | None = None,
) -> tuple[StructuralCausalModel, dict[str, Any]]:
    """Export as :func:`export_model` does.

    Returns:
        The model, and the description that was added.
    """
    path = Path(path)
    if not is_exported(path):
        raise ValueError(f"out: expected a file ending in {SUFFIX}, but got {path}.")
    if path.is_dir():
        raise ValueError(f"out: {path} cannot be written, for it is a folder; name a file.")
    if path.exists() and not overwrite:
        raise ValueError(
            f"out: {path} exists; choose another --out, or --overwrite to replace it (in Python "
            "overwrite=True)."
        )
    checkpoint = Checkpoint.read(checkpoint_path, trust=trust)
    scm = checkpoint.trained_model().scm
    content = checkpoint.content
    content = {**content, "data": _without_caches(content.get("data"))}
    if isinstance(settings := content.get("hyper_parameters"), Mapping):
        used = {key: _without_folders(settings[key]) for key in _OF_TRAINING if key in settings}
        content["hyper_parameters"] = {**settings, **used}
    if content["data"] is None:
        del content["data"]
    if root is not None:
        content["data"] = _with_root(content.get("data"), root)
    is_averaged = "current_model_state" in content or content.get("weights") == "averaged"
    about = {
        "variables": {name: _describe_variable(scm, name) for name in scm.variables},
        "weights": "averaged" if is_averaged else "raw",
        "parameters": sum(parameter.numel() for parameter in scm.parameters()),
    }
    write_exported({**content, **about}, path)
    return scm, about


def _without_folders(value: Any) -> Any:
    """Settings with the name of a file in place of its absolute path on this computer."""
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    for kind in (PurePosixPath, PureWindowsPath):
        if isinstance(value, str) and kind(value).is_absolute():
            return kind(value).name
    return value


def _without_caches(data: Any) -> Any:
    """The description of a data module without the folders of caches on this computer."""
    settings = data.get("init_args") if isinstance(data, Mapping) else None
    if not isinstance(settings, Mapping):
        return data
    kept = {name: value for name, value in settings.items() if name != "cache_dir"}
    cache = kept.get("cache")
    if isinstance(cache, Mapping) and "folder" in cache:
        kept["cache"] = {**cache, "folder": None}
    return {**data, "init_args": kept}


def _with_root(data: Any, root: str) -> dict[str, Any]:
    """The description of a data module with another folder."""
    settings = data.get("init_args") if isinstance(data, Mapping) else None
    if not isinstance(settings, Mapping) or settings.get("root") is None:
        raise ValueError(
            f"root: expected a checkpoint of data in a folder, but it has none; leave {root!r} out."
        )
    return {**data, "init_args": {**settings, "root": root}}


def _describe_variable(scm: StructuralCausalModel, name: str) -> dict[str, Any]:
    variable = scm.variables[name]
    domain = {
        field: None if isinstance(value, float) and not math.isfinite(value) else value
        for field, value in asdict(variable.domain).items()
    }
    return {
        "parents": list(scm.graph.parents[name]),
        **variable.describe(),
        "values": str(variable.domain),
        **domain,
        "shape": list(variable.domain.shape),
    }
