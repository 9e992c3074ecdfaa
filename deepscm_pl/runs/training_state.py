"""Checks of the training state in a checkpoint, and of the settings of a training.

Lightning passes the state to its loops, callbacks, optimisers and schedulers, which trust it: a
path in the state of a callback may be deleted, and a number in that of a scheduler may replace a
method.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from deepscm_pl.checks import nearest, reason_of, shown
from deepscm_pl.configuration import describe
from deepscm_pl.escaping import one_line

__all__ = [
    "check_monitors",
    "check_optimizers",
    "check_state",
    "keep_own_checkpoints",
    "make_optimizer",
    "make_scheduler",
    "restoring",
]

_LIGHTNING = "pytorch-lightning_version"
_LIGHTNING_VERSION = re.compile(r"\d{1,6}(\.\w{1,20}){0,6}([+-][\w.]{1,40})?", re.ASCII)

_PARAMETER_STATES = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}
"""States of fused optimisers that have the shape of their parameter."""

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_SCORES = ("best_model_score", "current_score", "kth_value")

_RESTORED_BY = {
    "restore_datamodule": "position in the data",
    "restore_model": "state_dict",
    "restore_callbacks": "callbacks",
    "restore_precision_plugin_state": "precision",
    "restore_loops": "loops",
    "restore_optimizers": "optimizer_states",
    "restore_lr_schedulers": "lr_schedulers",
}
"""The entry of a checkpoint that each method of Lightning restores."""


def check_state(checkpoint: Mapping[str, Any]) -> None:
    """Raise ValueError unless the training state has the form that Lightning saves."""
    version = checkpoint.get(_LIGHTNING)
    is_version = isinstance(version, str) and bool(_LIGHTNING_VERSION.fullmatch(version))
    _require_entry(is_version, _LIGHTNING, "a version of Lightning, such as 2.6.0", version)
    for name in ("callbacks", "loops"):
        states = checkpoint.get(name, {})
        _require_entry(isinstance(states, Mapping), name, "states by name", states)
        for key, state in states.items():
            where = f"{name}[{one_line(key, 60)}]"
            is_mapping = isinstance(key, str) and isinstance(state, Mapping)
            _require_entry(is_mapping, where, "values by name", state)
            _check_numbers(where, state, least=0 if name == "loops" else -(2**63))
    for name in ("optimizer_states", "lr_schedulers"):
        states = checkpoint.get(name, [])
        is_list = isinstance(states, list) and all(isinstance(each, Mapping) for each in states)
        _require_entry(is_list, name, "a list of states", states)


def _check_numbers(where: str, state: Any, least: int) -> None:
    """Refuse whole numbers that are out of range anywhere in a state."""
    waiting: list[tuple[str, Any]] = [(where, state)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend((f"{place}.{one_line(key, 60)}", each) for key, each in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((f"{place}[{number}]", each) for number, each in enumerate(value))
        elif type(value) is int:
            is_in_range = least <= value < 2**63
            _require_entry(is_in_range, place, "a whole number of at least 0 in 64 bits", value)


def keep_own_checkpoints(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Remove the checkpoints of other folders from the states of callbacks, which may delete them.

    Args:
        checkpoint: The content of a checkpoint, which is changed.
        folder: The folder of the run's checkpoints.

    Raises:
        ValueError: If such a state has an unexpected form.
    """
    for key, state in checkpoint.get("callbacks", {}).items():
        if "best_k_models" in state:
            _check_checkpoints(f"callbacks[{one_line(key, 60)}]", state)
            kept = state["best_k_models"]
            state["best_k_models"] = {p: kept[p] for p in kept if _is_own(p, folder)}
            for name in _PATHS:
                if name in state and not _is_own(state[name], folder):
                    state[name] = ""


def _check_checkpoints(where: str, state: Mapping[str, Any]) -> None:
    """Check the form of the state of a callback that keeps checkpoints."""
    models = state["best_k_models"]
    _require_entry(isinstance(models, Mapping), f"{where}.best_k_models", "scores by path", models)
    for name in ("best_model_path", "best_model_score"):
        _require_entry(name in state, f"{where}.{name}", "a value", None)
    paths = [(name, state.get(name)) for name in (*_PATHS, "dirpath")]
    for name, path in [*paths, *(("best_k_models", path) for path in models)]:
        _require_entry(isinstance(path, str | None), f"{where}.{name}", "a path", path)
    scores = [(name, state.get(name)) for name in _SCORES]
    for name, score in [*scores, *(("best_k_models", each) for each in models.values())]:
        is_scalar = isinstance(score, Tensor) and score.numel() == 1
        is_number = is_scalar or isinstance(score, int | float | None)
        _require_entry(is_number, f"{where}.{name}", "a number", score)


def _is_own(path: str | None, folder: Path) -> bool:
    """Whether a path is that of a checkpoint directly in a folder."""
    if not path or not path.endswith(".ckpt") or "\0" in path:
        return False
    return not Path(path).is_symlink() and Path(path).resolve().parent == folder.resolve()


def check_optimizers(trainer: pl.Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse states of optimisers and schedulers that do not belong to those of a training.

    Args:
        trainer: A trainer whose optimisers and schedulers exist and are not restored yet.
        checkpoint: The content of the checkpoint.

    Raises:
        ValueError: Naming the entry.
    """
    states = checkpoint.get("optimizer_states", [])
    count = len(trainer.optimizers)
    _require_entry(len(states) == count, "optimizer_states", f"{count} of them", states)
    for number, (optimizer, state) in enumerate(zip(trainer.optimizers, states, strict=True)):
        _check_optimizer(f"optimizer_states[{number}]", optimizer, state)
    schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
    states = checkpoint.get("lr_schedulers", [])
    _require_entry(
        len(states) == len(schedulers), "lr_schedulers", f"{len(schedulers)} of them", states
    )
    for number, (scheduler, state) in enumerate(zip(schedulers, states, strict=True)):
        known, kind = scheduler.state_dict(), type(scheduler).__name__
        for name, value in state.items():
            where = f"lr_schedulers[{number}].{one_line(name, 60)}"
            _require_entry(name in known, where, f"nothing of this name in {kind}", value)
            alike = f"a value like {one_line(known[name], 40)}"
            _require_entry(_is_alike(known[name], value), where, alike, value)


def _check_optimizer(where: str, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    known = optimizer.state_dict()["param_groups"]
    groups: Any = state.get("param_groups")
    states: Any = state.get("state")
    is_list = isinstance(groups, list) and len(groups) == len(known)
    _require_entry(is_list, f"{where}.param_groups", f"a list of {len(known)} groups", groups)
    for number, (group, own) in enumerate(zip(groups, known, strict=True)):
        place = f"{where}.param_groups[{number}]"
        is_own = isinstance(group, Mapping) and group.get("params") == own["params"]
        _require_entry(is_own, place, f"the {len(own['params'])} parameters of the model", group)
        for name, value in group.items():
            setting = f"{place}.{one_line(name, 60)}"
            is_setting = name not in own or _is_alike(own[name], value)
            _require_entry(is_setting, setting, "a setting of the optimiser", value)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    is_mapping = isinstance(states, Mapping)
    _require_entry(is_mapping, f"{where}.state", "states by the number of a parameter", states)
    for number, values in states.items():
        place = f"{where}.state[{one_line(number, 60)}]"
        is_known = type(number) is int and 0 <= number < len(parameters)
        expected = f"a state of one of {len(parameters)} parameters"
        _require_entry(is_known and isinstance(values, Mapping), place, expected, values)
        shape = parameters[number].shape
        for name in _PARAMETER_STATES & values.keys():
            fits = values[name] is None or getattr(values[name], "shape", None) == shape
            _require_entry(
                fits, f"{place}.{name}", f"a tensor of shape {tuple(shape)}", values[name]
            )


def _is_alike(known: Any, found: Any) -> bool:
    """Whether the type of a value allows it to replace another one."""
    if known is None or found is None:
        return not isinstance(found, Mapping)
    for kind in (bool, int | float | Tensor, list | tuple, Mapping):
        if isinstance(known, kind) or isinstance(found, kind):
            is_alike = isinstance(known, kind) and isinstance(found, kind)
            if is_alike and isinstance(known, list | tuple) and len(known) == len(found):
                return all(map(_is_alike, known, found))
            return is_alike
    return type(known) is type(found)


def _require_entry(is_valid: bool, where: str, expected: str, found: object) -> None:
    """Raise ValueError about the entry ``where`` of a checkpoint unless it is valid."""
    if is_valid:
        return
    if isinstance(found, Tensor):
        got = f"a tensor of shape {tuple(found.shape)}"
    elif isinstance(found, Mapping | Sequence) and not isinstance(found, str):
        got = f"a {type(found).__name__} of {len(found)}"
    else:
        got = one_line(repr(found), 60)
    raise ValueError(
        f"{where}: expected {expected}, but got {got}; use another checkpoint of the same run."
    )


@contextmanager
def restoring(path: str | Path | None) -> Iterator[None]:
    """Convert an error in Lightning's restoration of a training into one line.

    Args:
        path: The checkpoint; None for none.

    Raises:
        ValueError: If Lightning failed to restore an entry of the checkpoint, naming the entry.
    """
    kinds = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
    try:
        yield
    except kinds as error:
        entry, traceback = None, error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if code.co_filename.endswith("checkpoint_connector.py"):
                entry = _RESTORED_BY.get(code.co_name, entry)
            traceback = traceback.tb_next
        if path is None or entry is None:
            raise
        raise ValueError(
            f"ckpt_path: {path} cannot be resumed: its {entry} is of another form than expected "
            f"({type(error).__name__}: {one_line(error, 200)}); use another checkpoint of the same "
            "run."
        ) from error


def make_optimizer(
    make: Callable[[Iterable[Any]], Optimizer], parameters: Iterable[Any]
) -> Optimizer:
    """Make an optimiser, and let those of torch take a step of a small model before.

    Some settings raise errors only in the first step, when the training has started.

    Raises:
        ValueError: If the optimiser cannot be made, or cannot step.
    """
    with _naming_errors("optimizer", make):
        optimizer = make(parameters)
        if _is_from_torch(optimizer):
            _stepped(make)
    return optimizer


def make_scheduler(make: Callable[[Optimizer], LRScheduler], optimizer: Optimizer) -> LRScheduler:
    """Make a schedule of learning rates, and let those of torch take a step before.

    Raises:
        ValueError: If the schedule cannot be made, or cannot step.
    """
    with _naming_errors("scheduler", make):
        stepped = _stepped(torch.optim.Adam)
        trial = make(stepped)
        if _is_from_torch(trial):
            stepped.step()  # torch warns if a schedule steps first
            if isinstance(trial, ReduceLROnPlateau):
                trial.step(0.0)
            else:
                trial.step()
        return make(optimizer)


def _stepped(make: Callable[[Iterable[Any]], Optimizer]) -> Optimizer:
    """Make an optimiser of four numbers that has taken a step."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones_like(parameter)
    optimizer = make([{"params": [parameter]}])
    if _is_from_torch(optimizer):
        optimizer.step(lambda: 0.0)
    return optimizer


def _is_from_torch(made: object) -> bool:
    return type(made).__module__.startswith("torch.")


@contextmanager
def _naming_errors(setting: str, make: Callable[..., Any]) -> Iterator[None]:
    """Name the setting, the class and its arguments in every error."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{setting}: {_as_call(make)} does not work: {reason_of(error)}"
        ) from error


def _as_call(make: Callable[..., Any]) -> str:
    """Format a factory as a call with the arguments that differ from the defaults."""
    try:
        described = describe(make)
    except ValueError:  # not a class with its arguments
        return shown(make)
    name = str(described["class_path"]).rpartition(".")[2]
    factory = make if isinstance(make, functools.partial) else functools.partial(make)
    parts = (factory.func, *factory.args)
    target = next((part for part in parts if isinstance(part, type)), None)
    known = {} if target is None else inspect.signature(target).parameters
    defaults = {name: parameter.default for name, parameter in known.items()}
    given = factory.keywords.items()
    changed = {k: v for k, v in given if k not in defaults or defaults[k] != v}
    return f"{name}({', '.join(f'{key}={shown(value)}' for key, value in changed.items())})"


def check_monitors(trainer: pl.Trainer, model: pl.LightningModule, names: Iterable[str]) -> None:
    """Raise where a callback monitors a quantity that is not logged.

    With callbacks and models of other packages, which may log anything, nothing is refused.

    Args:
        trainer: A trainer with its callbacks, such as checkpoints and early stopping.
        model: The model.
        names: The quantities that the model logs in validation, such as ``validation/bound``.

    Raises:
        ValueError: Naming the callback, the quantity and the nearest one that is logged.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    packages = {type(part).__module__.partition(".")[0] for part in (*callbacks, model)}
    if not packages <= {"deepscm_pl", "pytorch_lightning", "lightning"}:
        return
    logged = [*names, "epoch", "step", "bound"]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        # Objectives and callbacks log quantities of their own in training.
        if not isinstance(monitor, str) or monitor in logged or monitor.startswith("train/"):
            continue
        known = f"expected one of {', '.join(logged)}."
        hint = nearest(monitor, logged, "did you mean {}?", known)
        raise ValueError(
            f"monitor: {type(callback).__name__} monitors {monitor!r}, which is not logged; {hint}"
        )
