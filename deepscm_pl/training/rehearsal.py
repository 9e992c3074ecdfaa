"""Optimisers and schedules that are tried before the training, on a few numbers of their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from deepscm_pl.checks import reason_of, shown
from deepscm_pl.configuration import describe

__all__ = ["make_optimizer", "make_scheduler"]


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
