"""Reading checkpoints that may be missing, broken, foreign or hostile."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch.nn.modules.module import register_module_parameter_registration_hook

from deepscm_pl.configuration import count_values, restore, restore_arguments
from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.cache_folders import holds_caches
from deepscm_pl.training.archives import check_archive
from deepscm_pl.training.one_line import one_line
from deepscm_pl.training.safetensors_file import is_exported, read_exported
from deepscm_pl.training.versions import check_format
from deepscm_pl.training.weights import load_weights

__all__ = [
    "describe_data",
    "evaluate_average",
    "load_data",
    "load_model",
    "read_checkpoint",
]

_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
"""What constructors raise in addition to ValueError where arguments do not belong together."""

_MOST_VALUES = 20_000
"""Values in the settings of a model, or in any other description, that are read at most."""

_SPARE_PARAMETERS = 1_000
"""How many parameters a model may have beyond the weights in its file before it is refused."""

_DESCRIPTIONS = ("hyper_parameters", "data", "reports", "descriptions")
_COUNTERS = ("epoch", "global_step")

_Model = TypeVar("_Model", bound=pl.LightningModule)


def load_model(
    kind: type[_Model],
    path: str | Path,
    map_location: Any,
    settings: Sequence[str],
    trust: Sequence[str],
    changes: Mapping[str, Any],
) -> _Model:
    """Load the trained model of the class ``kind`` in a checkpoint, in evaluation mode.

    The model is built on the device ``"meta"`` first, where it takes no memory, and compared with
    the weights in the file.

    Args:
        kind: The class of the model.
        path: The ``.ckpt`` file.
        map_location: Where the tensors go, as in :func:`torch.load`.
        settings: Names of hyper-parameters that every model of this kind has.
        trust: Packages whose classes the file may name, in addition to this one.
        changes: Arguments of ``kind`` that take the place of those in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile, or does not fit the model that it
            describes.
    """
    checkpoint = read_checkpoint(path, map_location, settings)
    try:
        arguments = restore_arguments(kind, checkpoint["hyper_parameters"], trust) | dict(changes)
        weights = checkpoint["state_dict"]
        with torch.device("meta"), _at_most(len(weights) + _SPARE_PARAMETERS):
            load_weights(kind(**arguments), weights)
        model = kind(**arguments)
        load_weights(model, weights)
    except (*_UNFIT, ValueError) as error:
        raise ValueError(
            f"checkpoint: {path} does not fit this version of the program: {one_line(error)}"
        ) from None
    return model.eval()


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Refuse a model that registers more parameters, as soon as it does."""
    left = parameters

    def count(module: object, name: str, parameter: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("its settings describe a model with more weights than are in the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def load_data(
    path: str | Path,
    root: str | Path | None = None,
    trust: Sequence[str] = (),
    **changes: Any,
) -> CausalDataModule:
    """Make the data module again that the model in a checkpoint was trained with.

    Nothing in the file is executed, and nothing but a data module may be named. The data themselves
    stay where they were in training, and are read once they are asked for, as by
    ``load_data(path).variables("test")``.

    A folder of caches that the file names is used only if there are caches of this program in it;
    otherwise the default is.

    Args:
        path: The ``.ckpt`` file.
        root: Folder of the data, where it has moved since.
        trust: Packages whose classes the file may name, in addition to this one.
        changes: Arguments of the data module that take the place of those in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, foreign or hostile, or does not name the data it was
            trained on; or if a root is given for data that have none.
    """
    found = describe_data(path, read_checkpoint(path, settings=()), trust)
    if found is None:
        raise ValueError(
            f"data: the checkpoint {path} does not say which data it was trained on; make the data "
            "module yourself, or give your own observations (--observations FILE.csv)."
        )
    kind, arguments = found
    if root is not None and "root" not in arguments:
        raise ValueError(
            f"data.root: {kind.__module__}.{kind.__qualname__} has no root; leave it out."
        )
    if root is not None:
        changes = {**changes, "root": str(root)}
    try:
        return kind(**{**arguments, **changes})
    except _UNFIT as error:
        raise ValueError(
            f"data: the checkpoint {path} does not fit this version of "
            f"{one_line(kind.__qualname__)}: {one_line(error)}"
        ) from None


def describe_data(
    path: str | Path, checkpoint: Mapping[str, Any], trust: Sequence[str]
) -> tuple[type[CausalDataModule], dict[str, Any]] | None:
    """The class of the data module that a checkpoint describes, and its arguments.

    Args:
        path: The ``.ckpt`` file, for messages.
        checkpoint: As :func:`read_checkpoint` returns it.
        trust: Packages whose classes it may name.

    Returns:
        None if the checkpoint describes none.

    Raises:
        ValueError: If the description is malformed or names anything but a data module.
    """
    description = checkpoint.get("data")
    if description is None:
        return None
    try:
        expected = Callable[[], CausalDataModule]
        factory: partial[CausalDataModule] = restore(description, expected, trust)
    except ValueError as error:
        raise ValueError(
            f"data: the data module that the checkpoint {path} describes cannot be made: {error}"
        ) from None
    arguments = dict(factory.keywords)
    kind: Any = factory.func
    folder = arguments.get("cache_dir")
    if folder is not None and not holds_caches(Path(folder)):
        del arguments["cache_dir"]
    return kind, arguments


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
