"""Reading checkpoints that may be missing, broken, foreign or hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from deepscm_pl.configuration import restore, restore_arguments
from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.scans.cache import holds_caches
from deepscm_pl.escaping import one_line
from deepscm_pl.runs.reading import load_weights, read_checkpoint
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variable

__all__ = [
    "describe_data",
    "load_data",
    "load_model",
    "read_variables",
]

_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
"""What constructors raise in addition to ValueError where arguments do not belong together."""

_SPARE_PARAMETERS = 1_000
"""How many parameters a model may have beyond the weights in its file before it is refused."""

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
    variables = read_variables(path, checkpoint)
    try:
        arguments = restore_arguments(kind, checkpoint["hyper_parameters"], trust) | dict(changes)
        weights = checkpoint["state_dict"]
        with torch.device("meta"), _at_most(len(weights) + _SPARE_PARAMETERS):
            load_weights(kind(**arguments), weights)
        model = kind(**arguments)
        load_weights(model, weights)
        scm = getattr(model, "scm", None)
        if isinstance(scm, StructuralCausalModel):
            scm.describe(variables)
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


def read_variables(path: str | Path, checkpoint: Mapping[str, Any]) -> dict[str, Variable]:
    """The units and class names that a checkpoint holds; none where it is older than they are.

    Args:
        path: The file, for messages.
        checkpoint: As :func:`read_checkpoint` returns it.

    Raises:
        ValueError: If they are malformed.
    """
    try:
        described = checkpoint.get("variables")
        if described is None:
            described = _of_older(checkpoint.get("descriptions", {}))
        return {str(name): Variable.read(str(name), each) for name, each in described.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"checkpoint: {path} describes its variables in another form than expected; use "
            "another checkpoint of the same run."
        ) from None


def _of_older(descriptions: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The two mappings that version 0.1 wrote, as one."""
    units, classes = descriptions.get("units", {}), descriptions.get("class_names", {})
    return {
        name: {"unit": units.get(name), "classes": classes.get(name)}
        for name in {**units, **classes}
    }
