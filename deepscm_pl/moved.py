"""Earlier import paths, which work and warn."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["find_name", "install"]

_OWN = __name__.rpartition(".")[0]

_MODULES = {
    "types": "variables",
    "class_names": "variables",
    "morphology": "worlds.strokes",
    "phantom": "worlds.heads",
    "data.worlds": "worlds",
    "evaluation.pictures": "reports",
    "training.checkpoint": "checkpoints.loading",
    "training.export": "checkpoints.export",
}
"""Earlier modules, whose submodules moved along, to their successors."""

_NAMES = {
    "transforms.Composition": "transforms.ComposedBijection",
    "evaluation.Report": "reports.Report",
    "training.checkpoint.read_checkpoint": "runs.reading.read_checkpoint",
}
"""Names that moved out of a module that still exists, or not along with the rest of it."""


def find_name(module: str, name: str) -> Any:
    """Return what a module offered under a name in earlier versions.

    Raises:
        AttributeError: If it never did.
    """
    successor = _NAMES.get(f"{module}.{name}".removeprefix(f"{_OWN}."))
    if successor is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _warn(f"{module}.{name}", f"{_OWN}.{successor}", 4)
    parent, _, last = successor.rpartition(".")
    return getattr(importlib.import_module(f"{_OWN}.{parent}"), last)


def install() -> None:
    """Let earlier modules be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    """Finds earlier modules where there is no module of that name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        successor = _successor(name)
        if successor is None:
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        name, successor = module.__name__, str(_successor(module.__name__))
        _warn(name, successor, 3)
        moved = importlib.import_module(successor)

        def offered(attribute: str) -> Any:
            if attribute in getattr(moved, "__all__", ()) or attribute == "__all__":
                return getattr(moved, attribute)
            return find_name(name, attribute)

        vars(module).update(__getattr__=offered, __doc__=moved.__doc__)


def _successor(name: str) -> str | None:
    """The module that took the place of an earlier one, or the package that offers its names."""
    for old, new in _MODULES.items():
        earlier, later = f"{_OWN}.{old}", f"{_OWN}.{new}"
        if name == earlier:
            return later
        if name.startswith(f"{earlier}."):
            submodule = later + name.removeprefix(earlier)
            is_package = hasattr(importlib.import_module(later), "__path__")
            return submodule if is_package and importlib.util.find_spec(submodule) else later
    return None


def _warn(old: str, new: str, level: int) -> None:
    warnings.warn(f"{old} is now {new}; import it from there", DeprecationWarning, level)
