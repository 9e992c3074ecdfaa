"""The settings of a model that somebody chose, as one level of names and values."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from deepscm_pl.configuration import annotations_of, describe

__all__ = ["chosen_settings"]


def chosen_settings(class_path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from their defaults, by dotted names.

    A class is the value of its name, and its arguments follow it.

    Args:
        class_path: The class that has the settings.
        settings: Its arguments, as :func:`~deepscm_pl.configuration.describe` makes them.

    Example:
        >>> adam = {"class_path": "torch.optim.adam.Adam", "init_args": {"lr": 0.01, "eps": 1e-8}}
        >>> chosen_settings("deepscm_pl.training.DeepSCM", {"optimizer": adam, "initial": None})
        {'optimizer': 'Adam', 'optimizer.lr': 0.01}
    """
    return dict(_flat({"class_path": class_path, "init_args": settings}, ""))


def _flat(found: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        if "class_path" in found:
            if name:
                yield name, found["class_path"].rpartition(".")[2]
            found = _without_defaults(found["class_path"], found.get("init_args") or {})
        for key, value in found.items():
            yield from _flat(value, f"{name}.{key}" if name else key)
    elif isinstance(found, bool | int | float | str):
        yield name, found
    elif found is not None:
        yield name, ", ".join(map(str, found)) or "none"


def _without_defaults(class_path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not the defaults of an imported class; all those of any other."""
    module, _, name = class_path.rpartition(".")
    target = getattr(sys.modules.get(module), name, None)
    known = annotations_of(target) if isinstance(target, type) else {}
    return {
        key: value
        for key, value in arguments.items()
        if key not in known or value != _described(known[key][1])
    }


def _described(default: Any) -> Any:
    """A default as plain data; itself if it cannot be described, such as a missing one."""
    try:
        return describe(default)
    except ValueError:
        return default
