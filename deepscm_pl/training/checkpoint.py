"""Reading checkpoints that may be missing, broken, foreign or hostile."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from deepscm_pl.configuration import restore
from deepscm_pl.data import CausalDataModule
from deepscm_pl.training.one_line import one_line
from deepscm_pl.training.safetensors_file import is_exported, read_exported
from deepscm_pl.training.versions import check_format
from deepscm_pl.training.weights import load_weights

__all__ = ["evaluate_average", "load_data", "load_model", "read_checkpoint"]

_UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError)
"""What constructors raise, beside ValueError, whose arguments a stranger has chosen."""

_Model = TypeVar("_Model", bound=pl.LightningModule)


def load_model(
    kind: type[_Model],
    path: str | Path,
    map_location: Any,
    settings: Sequence[str],
    factories: Sequence[str],
) -> _Model:
    """The trained model of the class ``kind`` in a checkpoint, in evaluation mode.

    Args:
        kind: The class of the model.
        path: The ``.ckpt`` file.
        map_location: Where the tensors go, as in :func:`torch.load`.
        settings: Names of hyper-parameters that every model of this kind has.
        factories: Names of hyper-parameters that are classes with their arguments, or mappings of
            such; nothing else may be called.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile, or does not fit the model that it
            describes.
    """
    checkpoint = read_checkpoint(path, map_location, settings)
    try:
        arguments = restore(checkpoint["hyper_parameters"])
        _check_factories(arguments, factories)
        model = kind(**arguments)
        load_weights(model, checkpoint["state_dict"])
    except (*_UNFIT, ValueError) as error:
        raise ValueError(
            f"checkpoint: {path} does not fit this version of the program: {one_line(error)}"
        ) from None
    return model.eval()


def _check_factories(arguments: Mapping[str, Any], names: Sequence[str]) -> None:
    """Nothing but a restored class may be called; a text could name any function."""
    for name in names:
        found = arguments.get(name)
        for factory in found.values() if isinstance(found, Mapping) else [found]:
            if factory is not None and not isinstance(factory, partial):
                raise ValueError(f"expected a class with its arguments, but got {factory!r}.")


def load_data(path: str | Path, root: str | Path | None = None) -> CausalDataModule:
    """The data module that the model in a checkpoint was trained with, made again.

    Nothing in the file is executed, and nothing but a data module may be named. The data themselves
    stay where they were in training, and are read once they are asked for, as by
    ``load_data(path).variables("test")``.

    Args:
        path: The ``.ckpt`` file.
        root: Folder of the data, where it has moved since.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile, or does not say which data it was
            trained on; or if a root is given for data that have none.
    """
    description = read_checkpoint(path, settings=()).get("data")
    if not isinstance(description, Mapping) or "class_path" not in description:
        raise ValueError(
            f"data: the checkpoint {path} does not say which data it was trained on; make the data "
            "module yourself, or give your own observations (--observations FILE.csv)."
        )
    arguments = description.get("init_args")
    if root is not None and not (isinstance(arguments, Mapping) and "root" in arguments):
        raise ValueError(f"data.root: {description['class_path']} has no root; leave it out.")
    try:
        factory = restore(description, allowed=(CausalDataModule,))
        module: CausalDataModule = factory() if root is None else factory(root=str(root))
    except _UNFIT as error:
        raise ValueError(
            f"data: the checkpoint {path} does not fit this version of "
            f"{one_line(description['class_path'])}: {one_line(error)}"
        ) from None
    return module


def read_checkpoint(
    path: str | Path,
    map_location: Any = "cpu",
    settings: Sequence[str] = ("graph", "mechanisms"),
) -> dict[str, Any]:
    """Read a checkpoint, or an exported model, tensors and plain data only.

    Nothing in the file is executed: anything but tensors and plain data is refused.

    Args:
        path: The ``.ckpt`` file, or the ``.safetensors`` file of
            :func:`~deepscm_pl.training.export_model`, which lacks what only training needs.
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
    _check_kind(path, loaded, settings)
    return dict(loaded)


def _load(path: Path, map_location: Any) -> Any:
    """What a file of torch holds, if it is tensors and plain data."""
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint: {path} is refused, for it is no checkpoint or holds objects that would "
            f"run code when loaded ({one_line(error)}); load only what this program saved."
        ) from None
    except Exception as error:  # a broken file breaks the reader in many ways
        raise ValueError(
            f"checkpoint: {path} cannot be read ({one_line(error)}); it is truncated or no "
            "checkpoint. Use another one of the same run."
        ) from None


def evaluate_average(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Make ``checkpoint`` load averaged weights unless a training goes on from it.

    Lightning's averaging callbacks keep the average as ``state_dict`` and the weights that the
    optimiser moves as ``current_model_state``; right after a training they would put the latter
    into a model that is tested.
    """
    if trainer.state.fn != TrainerFn.FITTING and "current_model_state" in checkpoint:
        checkpoint["current_model_state"] = checkpoint["state_dict"]


def _check_kind(path: Path, checkpoint: Any, settings: Sequence[str]) -> None:
    keys = ("state_dict", "hyper_parameters")
    if isinstance(checkpoint, dict):
        check_format(path, checkpoint)
    if not isinstance(checkpoint, dict) or any(key not in checkpoint for key in keys):
        raise ValueError(
            f"checkpoint: {path} is no checkpoint of a model: expected the entries "
            f"{' and '.join(keys)}."
        )
    found = checkpoint["hyper_parameters"]
    if not isinstance(found, dict) or not set(settings) <= found.keys():
        raise ValueError(
            f"checkpoint: {path} belongs to another kind of model: its settings have no "
            f"{' and no '.join(settings)}."
        )
