"""How a model was built, as plain data that a checkpoint can carry and a safe loader can read.

Whatever owns parameters is built by its owner from a *factory*: a class, or a
:func:`functools.partial` of one. :func:`describe` turns factories into the ``class_path`` and
``init_args`` of YAML files; :func:`restore` turns them back, and calls nothing but classes that a
model is made of. It imports the modules that they come from, which have to be installed already.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe", "restore"]

_BUILDING_BLOCKS: tuple[type, ...] = (
    torch.nn.Module,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)


def describe(value: Any) -> Any:
    """Plain data from which :func:`restore` makes ``value`` again.

    Args:
        value: Plain data, a class, a ``functools.partial`` of a class, or containers of these.

    Raises:
        ValueError: If something in it cannot be described, such as a module already built.

    Example:
        >>> describe({"net": functools.partial(torch.nn.Linear, bias=False)})
        {'net': {'class_path': 'torch.nn.modules.linear.Linear', 'init_args': {'bias': False}}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, type | functools.partial):
        return _describe_factory(value)
    raise ValueError(
        f"cannot describe {value!r} in a checkpoint: expected plain data, a class, or "
        "functools.partial(a class, its arguments), from which the model can be built again; "
        "pass the class instead of an object of it."
    )


def _describe_factory(factory: type | functools.partial[Any]) -> dict[str, Any]:
    if isinstance(factory, type):
        target, arguments = factory, {}
    else:
        # A partial made by the command line's parser calls the class through helpers of its own.
        classes = [part for part in (factory.func, *factory.args) if isinstance(part, type)]
        if not classes:
            raise ValueError(f"cannot describe {factory!r}: expected functools.partial of a class.")
        target, arguments = classes[0], factory.keywords
    return {
        "class_path": f"{target.__module__}.{target.__qualname__}",
        "init_args": {name: describe(item) for name, item in arguments.items()},
    }


def restore(description: Any, allowed: tuple[type, ...] = _BUILDING_BLOCKS) -> Any:
    """The inverse of :func:`describe`: plain data with the factories built again.

    Args:
        description: What :func:`describe` returned.
        allowed: Base classes of what may be named.

    Raises:
        ValueError: If a ``class_path`` cannot be imported, or names anything else.

    Example:
        >>> restore({"class_path": "torch.nn.Linear", "init_args": {"bias": False}})(2, 3)
        Linear(in_features=2, out_features=3, bias=False)
        >>> restore({"class_path": "subprocess.Popen"})
        Traceback (most recent call last):
            ...
        ValueError: 'subprocess.Popen' is refused: expected a class derived from Module or ...
    """
    if isinstance(description, Mapping):
        if "class_path" in description:
            arguments = description.get("init_args") or {}
            target = _import_class(str(description["class_path"]), allowed)
            return functools.partial(
                target, **{name: restore(item, allowed) for name, item in arguments.items()}
            )
        return {key: restore(item, allowed) for key, item in description.items()}
    if isinstance(description, list | tuple):
        return [restore(item, allowed) for item in description]
    return description


def _import_class(class_path: str, allowed: tuple[type, ...]) -> type:
    module_name, _, name = class_path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"cannot import {class_path!r} ({error}); install the package that it comes from, or "
            "put its folder on PYTHONPATH."
        ) from None
    if not (isinstance(target, type) and issubclass(target, allowed)):
        raise ValueError(
            f"{class_path!r} is refused: expected a class derived from "
            f"{' or '.join(base.__name__ for base in allowed)}."
        )
    return target
