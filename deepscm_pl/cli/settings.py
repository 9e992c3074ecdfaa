"""Settings that are refused before a run starts, each in one line that names the key.

What a class refuses in its constructor is named there; here is what only the program can see: the
form of a configuration, the settings of Lightning's trainer, errors of classes that do not name
their arguments, and runs that train nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.checks import process_count, real_number, reason_of, shown, whole_number
from deepscm_pl.cli.parser import nearest
from deepscm_pl.configuration import annotations_of

__all__ = [
    "check_configuration",
    "check_seed",
    "check_trainer",
    "named_errors",
    "out_of_memory",
    "require_trained",
]

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
_FACTORIES = ("model", "mechanisms")
_DEEPEST = 50
_GROUPS = ("trainer", "checkpoint", "association", "evaluation")
_SECTIONS = {
    AssociationReport: "association",
    EvaluationReport: "evaluation",
    ModelCheckpoint: "checkpoint",
}
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MisconfigurationException,
    RuntimeError,
    TypeError,
)
_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "max_steps": -1,
}
_MOST_NODES = 100_000
_MAY_BE_NULL = ("check_val_every_n_epoch",)
_MOST_SEED = 2**32 - 1
_AMOUNTS = ("max_epochs", "max_steps", "limit_train_batches")
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "bad_alloc")
_CANNOT_COUNT = ("overflow when", "calculation overflowed", "multiplication overflow")


def check_configuration(settings: Mapping[str, Any]) -> None:
    """Raise where a configuration describes a class in a form that cannot be read.

    Raises:
        ValueError: Naming the whole key.
    """
    _check_sections(settings)
    _check_classes(settings, ())


def _check_sections(settings: Mapping[str, Any]) -> None:
    for name in _GROUPS:
        section = settings.get(name, {})
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}: expected settings by name, but got {shown(section)}.")


def _check_classes(node: Any, path: tuple[str, ...]) -> None:
    if len(path) > _DEEPEST:
        return
    if isinstance(node, list):
        for number, item in enumerate(node):
            if isinstance(item, Mapping | list):
                _check_classes(item, (*path, str(number)))
    if not isinstance(node, Mapping):
        return
    if "class_path" in node or "init_args" in node:
        _check_class(node, ".".join(path))
    for key, item in node.items():
        within = (*path, str(key))
        if path == _FACTORIES and (not item or not isinstance(item, str | Mapping)):
            raise ValueError(
                f"{'.'.join(within)}: expected a class, such as deepscm_pl.mechanisms.AffineFlow, "
                f"but got {shown(item)}."
            )
        _check_classes(item, within)


def _check_class(node: Mapping[Any, Any], where: str) -> None:
    unknown = [str(key) for key in node if key not in _CLASS_KEYS]
    if unknown:
        raise ValueError(
            f"{where}: expected class_path and init_args, but got {', '.join(unknown)}"
            f"{nearest(unknown[0], _CLASS_KEYS)}"
        )
    class_path = node.get("class_path", "")
    if not isinstance(class_path, str) or ("class_path" in node and not class_path):
        raise ValueError(
            f"{where}.class_path: expected the name of a class, but got {shown(class_path)}."
        )
    arguments = node.get("init_args", {})
    if not isinstance(arguments, Mapping):
        raise ValueError(
            f"{where}.init_args: expected settings by name, but got {shown(arguments)}; leave it "
            "out where there are none."
        )


def check_trainer(settings: Mapping[str, Any], command: str) -> None:
    """Raise where a setting of the trainer is out of range, or would train nothing.

    Args:
        settings: Of :class:`pytorch_lightning.Trainer`.
        command: ``fit``, or one that trains nothing anyway.

    Raises:
        ValueError: Naming the key.
    """
    for name, least in _LEAST.items():
        if name in settings and not (name in _MAY_BE_NULL and settings[name] is None):
            whole_number(f"trainer.{name}", settings[name], least=least)
    if isinstance(settings.get("devices"), int) and settings["devices"] != -1:
        process_count("trainer.devices", settings["devices"])
    if isinstance(settings.get("val_check_interval"), int | float):
        real_number("trainer.val_check_interval", settings["val_check_interval"], above=0)
    if "num_nodes" in settings:
        whole_number("trainer.num_nodes", settings["num_nodes"], least=1, most=_MOST_NODES)
    if settings.get("gradient_clip_val") is not None:
        real_number("trainer.gradient_clip_val", settings["gradient_clip_val"], least=0)
    for name in _AMOUNTS if command == "fit" else ():
        value = settings.get(name)
        if value is not None and not isinstance(value, str) and not value != 0:
            raise ValueError(
                f"trainer.{name}: expected more than 0 to train something, but got {shown(value)}."
            )
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"trainer.{name}: expected a number, but got nan.")


def check_seed(seed: bool | int | None) -> None:
    """Raise where the seed of a run is none that every generator takes.

    Raises:
        ValueError: Naming it.
    """
    if seed is not None and not isinstance(seed, bool):
        whole_number("seed_everything", seed, least=0, most=_MOST_SEED)


@contextmanager
def named_errors(section: str) -> Iterator[None]:
    """Turn the errors of classes that are made from settings into one line that names them.

    Args:
        section: Of the configuration, where the traceback tells no other.

    Raises:
        ValueError: In place of what a bad argument can raise; memory that is short stays what it
            is.
    """
    try:
        yield
    except ValueError as error:
        known = _section_of(error.__traceback__)
        if known is None:
            raise
        raise ValueError(f"{known}.{error}") from error
    except _FAULTS as error:
        if out_of_memory(error) is not None:
            raise
        traceback = error.__traceback__
        where = _section_of(traceback) or _component_of(traceback) or section
        raise ValueError(f"{where}: {_what_was_made(traceback)}{reason_of(error)}") from error


def _constructors(traceback: TracebackType | None) -> Iterator[tuple[type, dict[str, Any]]]:
    """The classes whose constructors a traceback passes, and the variables in there."""
    while traceback is not None:
        frame = traceback.tb_frame
        made = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and made is not None:
            yield type(made), frame.f_locals
        traceback = traceback.tb_next


def _section_of(traceback: TracebackType | None) -> str | None:
    """The section of a configuration that belongs to a class alone, if one could not be made."""
    found = [_SECTIONS[made] for made, _ in _constructors(traceback) if made in _SECTIONS]
    return found[-1] if found else None


def _what_was_made(traceback: TracebackType | None) -> str:
    """The innermost class that could not be made, and what it was given as null for a number."""
    public = [
        (made, given)
        for made, given in _constructors(traceback)
        if not made.__name__.startswith("_")
    ]
    if not public:
        return ""
    made, given = public[-1]
    nulls = [
        name
        for name, (_, default) in annotations_of(made).items()
        if isinstance(default, int | float | str) and given.get(name, "") is None
    ]
    suspects = f" with {', '.join(f'{name}: null' for name in nulls)}" if nulls else ""
    return f"{made.__name__} cannot be made{suspects}: "


def _component_of(traceback: TracebackType | None) -> str | None:
    """Which part of a configuration Lightning was making: ``model`` or ``data``."""
    key = None
    while traceback is not None:
        maker = traceback.tb_frame.f_locals.get("self")
        if type(maker).__name__ == "_InstantiatorFn":
            key = str(getattr(maker, "key", "")) or None
        traceback = traceback.tb_next
    return key


def require_trained(trainer: pl.Trainer) -> None:
    """Raise where a training has ended without a step.

    Raises:
        ValueError: Naming what may have left nothing to train on.
    """
    if trainer.global_step == 0:
        data: Any = getattr(trainer, "datamodule", None)
        size = getattr(data, "batch_size", None)
        raise ValueError(
            "nothing was trained: no batch was left; raise trainer.max_time, "
            "trainer.limit_train_batches or trainer.overfit_batches, or lower data.batch_size"
            f"{'' if size is None else f' ({shown(size)})'}."
        )


def out_of_memory(error: BaseException) -> str | None:
    """What to tell of memory that could not be had; None of other errors."""
    message = str(error).lower()
    if not isinstance(error, MemoryError | torch.OutOfMemoryError):
        if not isinstance(error, RuntimeError):
            return None
        if not any(words in message for words in (*_NO_MEMORY, *_CANNOT_COUNT)):
            return None
    return (
        "there is not enough memory for this; lower batch sizes (--data.batch_size, --evaluation."
        "batch_size), numbers of particles, or the sizes of images and networks"
    )
