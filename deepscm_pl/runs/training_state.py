"""What a checkpoint keeps of a training in progress, checked before anything acts on it.

Weights and settings are checked where they are read. The rest of a checkpoint is handed by
Lightning to its loops, callbacks, optimisers and schedulers, which believe it: a path in the state
of a callback may be deleted, and a number in that of a scheduler may take the place of a method.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from deepscm_pl.checks import reason_of, shown
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

_VERSION = re.compile(r"\d{1,6}(\.\w{1,20}){0,6}([+-][\w.]{1,40})?", re.ASCII)
_LIGHTNING = "pytorch-lightning_version"
_SUFFIX = ".ckpt"

_OF_PARAMETER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}
"""States that fused optimisers read and write element by element beside the parameter."""

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
"""For each step in which Lightning restores a training the entry of the checkpoint it reads."""


def check_state(checkpoint: Mapping[str, Any]) -> None:
    """Refuse a state of a training that is of another form than any that Lightning saves.

    Args:
        checkpoint: As it was read.

    Raises:
        ValueError: If so, naming the entry.
    """
    version = checkpoint.get(_LIGHTNING)
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise _unexpected(_LIGHTNING, "a version of Lightning, such as 2.6.0", version)
    for name in ("callbacks", "loops"):
        states = checkpoint.get(name, {})
        if not isinstance(states, Mapping):
            raise _unexpected(name, "states by name", states)
        for key, state in states.items():
            if not isinstance(key, str) or not isinstance(state, Mapping):
                raise _unexpected(f"{name}[{_shown(key)}]", "values by name", state)
            _check_numbers(f"{name}[{_shown(key)}]", state, least=0 if name == "loops" else None)
    for name in ("optimizer_states", "lr_schedulers"):
        states = checkpoint.get(name, [])
        if not isinstance(states, list) or not all(isinstance(each, Mapping) for each in states):
            raise _unexpected(name, "a list of states", states)


def keep_own_checkpoints(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Forget the checkpoints of other folders, which a callback would take for its own and delete.

    Args:
        checkpoint: As it was read; states of callbacks in it that keep checkpoints are changed.
        folder: Where the run keeps its checkpoints.

    Raises:
        ValueError: If such a state is of another form than expected.
    """
    for key, state in checkpoint.get("callbacks", {}).items():
        if "best_k_models" in state:
            _check_checkpoints(f"callbacks[{_shown(key)}]", state)
            kept = state["best_k_models"]
            state["best_k_models"] = {p: kept[p] for p in kept if _is_own(p, folder)}
            for name in _PATHS:
                if name in state and not _is_own(state[name], folder):
                    state[name] = ""


def _check_checkpoints(where: str, state: Mapping[str, Any]) -> None:
    """Refuse the state of a callback that keeps checkpoints if it is of another form."""
    models = state["best_k_models"]
    if not isinstance(models, Mapping):
        raise _unexpected(f"{where}.best_k_models", "scores by path", models)
    for name in ("best_model_path", "best_model_score"):
        if name not in state:
            raise _unexpected(f"{where}.{name}", "a value", None)
    paths = {name: state.get(name) for name in (*_PATHS, "dirpath")}
    for name, path in [*paths.items(), *(("best_k_models", path) for path in models)]:
        if not isinstance(path, str | None):
            raise _unexpected(f"{where}.{name}", "a path", path)
    scores = {name: state.get(name) for name in _SCORES}
    for name, score in [*scores.items(), *(("best_k_models", each) for each in models.values())]:
        is_number = isinstance(score, int | float | None)
        if not is_number and not (isinstance(score, Tensor) and score.numel() == 1):
            raise _unexpected(f"{where}.{name}", "a number", score)


def _is_own(path: str | None, folder: Path) -> bool:
    """Whether a path names a checkpoint directly in a folder."""
    if not path or not path.endswith(_SUFFIX) or "\0" in path:
        return False
    return not Path(path).is_symlink() and Path(path).resolve().parent == folder.resolve()


def check_optimizers(trainer: pl.Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuse states of optimisers and schedulers that do not belong to those of a training.

    Args:
        trainer: Whose optimisers and schedulers are made, and not yet restored.
        checkpoint: As it was read.

    Raises:
        ValueError: If so, naming the entry.
    """
    states = checkpoint.get("optimizer_states", [])
    if len(states) != len(trainer.optimizers):
        raise _unexpected("optimizer_states", f"{len(trainer.optimizers)} of them", states)
    for number, (optimizer, state) in enumerate(zip(trainer.optimizers, states, strict=True)):
        _check_optimizer(f"optimizer_states[{number}]", optimizer, state)
    schedulers = [each.scheduler for each in trainer.lr_scheduler_configs]
    states = checkpoint.get("lr_schedulers", [])
    if len(states) != len(schedulers):
        raise _unexpected("lr_schedulers", f"{len(schedulers)} of them", states)
    for number, (scheduler, state) in enumerate(zip(schedulers, states, strict=True)):
        known = scheduler.state_dict()
        for name, value in state.items():
            where = f"lr_schedulers[{number}].{_shown(name)}"
            if name not in known:
                raise _unexpected(
                    where, f"nothing of this name in {type(scheduler).__name__}", value
                )
            if not _is_alike(known[name], value):
                raise _unexpected(where, f"a value like {one_line(known[name], 40)}", value)


def _check_optimizer(where: str, optimizer: torch.optim.Optimizer, state: Any) -> None:
    known = optimizer.state_dict()["param_groups"]
    groups, of_parameters = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or len(groups) != len(known):
        raise _unexpected(f"{where}.param_groups", f"a list of {len(known)} groups", groups)
    for number, (group, expected) in enumerate(zip(groups, known, strict=True)):
        place = f"{where}.param_groups[{number}]"
        if not isinstance(group, Mapping) or group.get("params") != expected["params"]:
            raise _unexpected(
                place, f"the {len(expected['params'])} parameters of the model", group
            )
        for name, value in group.items():
            if name in expected and not _is_alike(expected[name], value):
                raise _unexpected(f"{place}.{_shown(name)}", "a setting of the optimiser", value)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not isinstance(of_parameters, Mapping):
        raise _unexpected(f"{where}.state", "states by the number of a parameter", of_parameters)
    for number, values in of_parameters.items():
        place = f"{where}.state[{_shown(number)}]"
        is_known = type(number) is int and 0 <= number < len(parameters)
        if not is_known or not isinstance(values, Mapping):
            raise _unexpected(place, f"a state of one of {len(parameters)} parameters", values)
        for name in _OF_PARAMETER & values.keys():
            value, shape = values[name], parameters[number].shape
            if value is not None and getattr(value, "shape", None) != shape:
                raise _unexpected(f"{place}.{name}", f"a tensor of shape {tuple(shape)}", value)


def _is_alike(known: Any, found: Any) -> bool:
    """Whether a value may take the place of another one, as far as their types tell."""
    numbers = int | float | Tensor
    if known is None or found is None:
        return not isinstance(found, Mapping)
    if isinstance(known, bool) or isinstance(found, bool):
        return isinstance(known, bool) and isinstance(found, bool)
    if isinstance(known, numbers):
        return isinstance(found, numbers)
    if isinstance(known, list | tuple):
        return isinstance(found, list | tuple) and (
            len(known) != len(found) or all(map(_is_alike, known, found))
        )
    return isinstance(found, Mapping) if isinstance(known, Mapping) else type(known) is type(found)


def _check_numbers(where: str, state: Any, least: int | None) -> None:
    """Refuse whole numbers that are out of range anywhere in a state."""
    waiting: list[tuple[str, Any]] = [(where, state)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend((f"{place}.{_shown(key)}", each) for key, each in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((f"{place}[{number}]", each) for number, each in enumerate(value))
        elif type(value) is int and not (-(2**63) if least is None else least) <= value < 2**63:
            raise _unexpected(place, "a whole number of at least 0 in 64 bits", value)


@contextmanager
def restoring(path: str | Path | None) -> Iterator[None]:
    """Turn what goes wrong while Lightning restores a training into one line.

    Args:
        path: The checkpoint; None where there is none.

    Raises:
        ValueError: If an error arose where Lightning reads the checkpoint, naming the entry.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
    ) as e:
        entry = _entry_read_in(e.__traceback__)
        if path is None or entry is None:
            raise
        raise ValueError(
            f"ckpt_path: {path} cannot be resumed: its {entry} is of another form than expected "
            f"({type(e).__name__}: {one_line(e, 200)}); use another checkpoint of the same run."
        ) from e


def _entry_read_in(traceback: TracebackType | None) -> str | None:
    """The entry of a checkpoint that was being restored when an error arose."""
    found = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename.endswith("checkpoint_connector.py"):
            found = _RESTORED_BY.get(code.co_name, found)
        traceback = traceback.tb_next
    return found


def _shown(name: object) -> str:
    return one_line(name, 60)


def _unexpected(where: str, expected: str, found: object) -> ValueError:
    if isinstance(found, Tensor):
        got = f"a tensor of shape {tuple(found.shape)}"
    elif isinstance(found, Mapping | Sequence) and not isinstance(found, str):
        got = f"a {type(found).__name__} of {len(found)}"
    else:
        got = one_line(repr(found), 60)
    return ValueError(
        f"{where}: expected {expected}, but got {got}; use another checkpoint of the same run."
    )


def make_optimizer(
    make: Callable[[Iterable[Any]], Optimizer], parameters: Iterable[Any]
) -> Optimizer:
    """An optimiser, of which torch's own kinds have taken a step before.

    Some settings are refused by the first step only, when a training has started already.

    Args:
        make: The factory.
        parameters: Parameters, or groups of them.

    Raises:
        ValueError: If the optimiser cannot be made, or cannot step.
    """
    with _refused("optimizer", make):
        optimizer = make(parameters)
        if _is_of_torch(optimizer):
            _stepped(make)
    return optimizer


def make_scheduler(
    make: Callable[[Optimizer], LRScheduler],
    optimizer: Optimizer,
    make_optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
) -> LRScheduler:
    """A schedule of learning rates, of which torch's own kinds have taken a step before.

    Args:
        make: The factory.
        optimizer: The optimiser.
        make_optimizer: The factory of the optimiser that the schedule is tried with; None for
            :class:`torch.optim.Adam`.

    Raises:
        ValueError: If the schedule cannot be made, or cannot step.
    """
    with _refused("scheduler", make):
        tried = make(_stepped(make_optimizer or torch.optim.Adam))
        if _is_of_torch(tried):
            if isinstance(tried, ReduceLROnPlateau):
                tried.step(0.0)
            else:
                tried.step()
        return make(optimizer)


def _stepped(make: Callable[[Iterable[Any]], Optimizer]) -> Optimizer:
    """An optimiser of four numbers that has taken a step."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones_like(parameter)
    optimizer = make([{"params": [parameter]}])
    if _is_of_torch(optimizer):
        optimizer.step(lambda: 0.0)
    return optimizer


def _is_of_torch(made: object) -> bool:
    return type(made).__module__.startswith("torch.")


@contextmanager
def _refused(setting: str, make: Callable[..., Any]) -> Iterator[None]:
    """Name the setting, the class and its arguments in every error."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{setting}: {_as_call(make)} does not work: {reason_of(error)}"
        ) from error


def _as_call(make: Callable[..., Any]) -> str:
    try:
        described = describe(make)
    except ValueError:  # something else than a class and its arguments
        return shown(make)
    name = str(described["class_path"]).rpartition(".")[2]
    given = make.keywords if isinstance(make, functools.partial) else {}
    defaults = _defaults(make)
    changed = {k: v for k, v in given.items() if k not in defaults or defaults[k] != v}
    return f"{name}({', '.join(f'{key}={shown(value)}' for key, value in changed.items())})"


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """What a class takes for the arguments that are not given; a parser gives all of them."""
    parts = (make.func, *make.args) if isinstance(make, functools.partial) else (make,)
    target = next((part for part in parts if isinstance(part, type)), None)
    if target is None:
        return {}
    found = inspect.signature(target).parameters.items()
    return {name: parameter.default for name, parameter in found}


_WITH_KNOWN_QUANTITIES = ("deepscm_pl", "pytorch_lightning", "lightning")
_ALWAYS_LOGGED = ("epoch", "step", "bound")
_UNLISTED = "train/"
"""Objectives and callbacks log quantities of their own there."""


def check_monitors(trainer: pl.Trainer, model: pl.LightningModule, names: Iterable[str]) -> None:
    """Raise where a callback watches a quantity that nobody logs.

    Callbacks and models of other packages may log anything, so that with any of them nothing is
    refused here.

    Args:
        trainer: Its callbacks are looked at, such as checkpoints and early stopping.
        model: The model that logs.
        names: What it logs in validation, as ``validation/bound``.

    Raises:
        ValueError: Naming the callback, the quantity and the nearest one that is logged.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not all(_is_known(each) for each in (*callbacks, model)):
        return
    logged = [*names, *_ALWAYS_LOGGED]
    for callback in callbacks:
        watched = getattr(callback, "monitor", None)
        if not isinstance(watched, str) or watched in logged or watched.startswith(_UNLISTED):
            continue
        near = difflib.get_close_matches(watched, logged, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(logged)}."
        raise ValueError(
            f"monitor: {type(callback).__name__} watches {watched!r}, which is not logged; {hint}"
        )


def _is_known(part: object) -> bool:
    return type(part).__module__.partition(".")[0] in _WITH_KNOWN_QUANTITIES
