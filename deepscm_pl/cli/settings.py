"""Checks of settings before a run starts; each error is one line that names the key.

Classes check their own arguments. This module checks what only the program can see: the form of a
configuration, the settings of Lightning's trainer, errors of classes that do not name their
arguments, and runs that train nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.checks import nearest, process_count, real_number, reason_of, shown, whole_number
from deepscm_pl.configuration import annotations_of
from deepscm_pl.evaluation.verdict_thresholds import VerdictThresholds

__all__ = [
    "check_configuration",
    "check_seed",
    "check_trainer",
    "named_errors",
    "named_trainer_error",
    "out_of_memory",
    "require_trained",
]

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
_FACTORIES = ("model", "mechanisms")
_MAX_DEPTH = 50
_SECTIONS = ("trainer", "checkpoint", "association", "evaluation")
_SECTION_OF = {
    AssociationReport: "association",
    EvaluationReport: "evaluation",
    ModelCheckpoint: "checkpoint",
    VerdictThresholds: "evaluation.verdict",
}
_CONSTRUCTOR_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MisconfigurationException,
    RuntimeError,
    TypeError,
)
_OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "overflow when",
    "calculation overflowed",
    "multiplication overflow",
)


_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "max_steps": -1,
    "min_epochs": 0,
    "min_steps": -1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
}
"""Smallest values of whole numbers of the trainer."""
_FAILED = re.compile(r"^trainer: \w+ cannot be made: ")
_FORKING = ("_spawn", "_fork", "_notebook")
_SETTING_OF = {
    "Accelerator` can not run": "accelerator",
    "gpu backend": "accelerator",
    "invalid accelerator": "accelerator",
    "torch_xla": "accelerator",
    "transformer_engine": "precision",
    "invalid strategy": "strategy",
    "DeepSpeed": "strategy",
    "requires a GPU accelerator": "strategy",
    "Timer(": "max_time",
}
"""Words in errors of Lightning about a setting that they do not name."""


def named_trainer_error(message: str, settings: Mapping[str, Any]) -> str:
    """Add the setting to a message of Lightning's trainer, if it is clear which one it is about.

    Args:
        message: The message.
        settings: The settings of the trainer.

    Example:
        >>> named_trainer_error("`devices` should be an int > 0", {"devices": [0, 1]})
        'trainer.devices: expected another value, but got [0, 1]: `devices` should be an int > 0'
    """
    about = [name for words, name in _SETTING_OF.items() if words in message]
    about += [name for name in re.findall(r"\w+", message) if name in settings]
    if not about or message.startswith("trainer."):
        return message
    value, reason = shown(settings.get(about[0])), _FAILED.sub("", message).strip()
    return f"trainer.{about[0]}: expected another value, but got {value}: {reason}"


def check_configuration(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the form of a section or a class in a configuration is wrong."""
    for name in _SECTIONS:
        section = settings.get(name, {})
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}: expected settings by name, but got {shown(section)}.")
    _check_classes(settings, ())


def _check_classes(node: Any, path: tuple[str, ...]) -> None:
    if len(path) > _MAX_DEPTH:
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
    """Raise ValueError if a setting of the trainer is out of range, or ``fit`` trains nothing."""
    for name, least in _LEAST.items():
        is_required = name in ("accumulate_grad_batches", "max_steps") and name in settings
        if is_required or settings.get(name) is not None:
            whole_number(f"trainer.{name}", settings[name], least=least)
    strategy = settings.get("strategy")
    if isinstance(strategy, str) and strategy.endswith(_FORKING):
        raise ValueError(
            f"trainer.strategy: expected one whose processes begin anew, but got {strategy}, whose "
            f"processes cannot take over a run of this program; use {strategy.partition('_')[0]}."
        )
    if isinstance(settings.get("devices"), int) and settings["devices"] != -1:
        process_count("trainer.devices", settings["devices"])
    if isinstance(settings.get("val_check_interval"), int | float):
        real_number("trainer.val_check_interval", settings["val_check_interval"], above=0)
    if "num_nodes" in settings:
        whole_number("trainer.num_nodes", settings["num_nodes"], least=1, most=100_000)
    if settings.get("gradient_clip_val") is not None:
        real_number("trainer.gradient_clip_val", settings["gradient_clip_val"], least=0)
    amounts = ("max_epochs", "max_steps", "limit_train_batches") if command == "fit" else ()
    for name in amounts:
        value = settings.get(name)
        if value == 0:
            raise ValueError(
                f"trainer.{name}: expected more than 0 to train something, but got {shown(value)}."
            )
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"trainer.{name}: expected a number, but got nan.")


def check_seed(seed: bool | int | None) -> None:
    """Raise ValueError if a seed, which may be a truth value or null, is out of range."""
    if seed is not None and not isinstance(seed, bool):
        whole_number("seed_everything", seed, least=0, most=2**32 - 1)


@contextmanager
def named_errors(section: str) -> Iterator[None]:
    """Turn errors of classes that are made from settings into one line that names the settings.

    Args:
        section: The section of the configuration, if the traceback contains no other.

    Raises:
        ValueError: In place of errors that a wrong argument can raise, but not of missing memory.
    """
    try:
        yield
    except ValueError as error:
        found = _section_of(error.__traceback__)
        if found is None:
            raise
        raise ValueError(f"{found}.{error}") from error
    except _CONSTRUCTOR_ERRORS as error:
        if out_of_memory(error) is not None:
            raise
        traceback = error.__traceback__
        where = _section_of(traceback) or _component_of(traceback) or section
        raise ValueError(f"{where}: {_failed_class(traceback)}{reason_of(error)}") from error


def _constructors(traceback: TracebackType | None) -> Iterator[tuple[type, dict[str, Any]]]:
    """The classes whose constructors a traceback passes, each with the local variables."""
    for frame, _ in walk_tb(traceback):
        if frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is not None:
            yield type(frame.f_locals["self"]), frame.f_locals


def _section_of(traceback: TracebackType | None) -> str | None:
    """The section whose class could not be made, if the section belongs to one class."""
    found = [_SECTION_OF[kind] for kind, _ in _constructors(traceback) if kind in _SECTION_OF]
    return found[-1] if found else None


def _failed_class(traceback: TracebackType | None) -> str:
    """The innermost public class that could not be made, and its numbers that are null."""
    public = [found for found in _constructors(traceback) if not found[0].__name__.startswith("_")]
    if not public:
        return ""
    kind, given = public[-1]
    nulls = [
        f"{name}: null"
        for name, (_, default) in annotations_of(kind).items()
        if isinstance(default, int | float | str) and given.get(name, "") is None
    ]
    return f"{kind.__name__} cannot be made{' with ' if nulls else ''}{', '.join(nulls)}: "


def _component_of(traceback: TracebackType | None) -> str | None:
    """The section that Lightning was making, ``model`` or ``data``."""
    makers = [frame.f_locals.get("self") for frame, _ in walk_tb(traceback)]
    keys = [getattr(each, "key", "") for each in makers if type(each).__name__ == "_InstantiatorFn"]
    return str(keys[-1]) or None if keys else None


def require_trained(trainer: pl.Trainer) -> None:
    """Raise ValueError if a training has made no step."""
    if trainer.global_step == 0:
        size = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
        raise ValueError(
            "nothing was trained: no batch was left; raise trainer.max_time, "
            "trainer.limit_train_batches or trainer.overfit_batches, or lower data.batch_size"
            f"{'' if size is None else f' ({shown(size)})'}."
        )


def out_of_memory(error: BaseException) -> str | None:
    """Return advice if an error reports a lack of memory, or None."""
    is_message = isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _OUT_OF_MEMORY
    )
    if not is_message and not isinstance(error, MemoryError | torch.OutOfMemoryError):
        return None
    return (
        "there is not enough memory for this; lower batch sizes (--data.batch_size, --evaluation."
        "batch_size), numbers of particles, or the sizes of images and networks"
    )
