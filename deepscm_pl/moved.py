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

_ROOT = __name__.rpartition(".")[0]

_MODULES = {
    "types": "variables",
    "class_names": "variables",
    "morphology": "worlds.strokes",
    "phantom": "worlds.heads",
    "data.worlds": "worlds",
    "evaluation.pictures": "reports",
    "evaluation.subject": "evaluation.model_on_data",
    "figures.matrix": "figures.grid",
    "training.checkpoint": "checkpoints.loading",
    "training.export": "checkpoints.export",
}
"""Successors of earlier modules and of their submodules."""

_NAMES = {
    "transforms.Composition": "transforms.ComposedBijection",
    "evaluation.Report": "reports.Report",
    "evaluation.Subject": "evaluation.ModelOnData",
    "evaluation.pictures.draw_noise": "reports.draw_noise_results",
    "figures.draw_densities": "figures.draw_marginal_densities",
    "reports.draw_noise": "reports.draw_noise_results",
    "reports.tables.Table": "reports.tables.TextTable",
    "training.checkpoint.read_checkpoint": "runs.reading.read_checkpoint",
    "evaluation.check_numbers": "evaluation.check_settings",
}
"""Successors of names whose module still exists or has another successor."""


def find_name(module: str, name: str) -> Any:
    """Return the object that a module had under a name in earlier versions.

    Raises:
        AttributeError: If there was none.
    """
    successor = _NAMES.get(f"{module}.{name}".removeprefix(f"{_ROOT}."))
    if successor is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _warn(f"{module}.{name}", f"{_ROOT}.{successor}", 4)
    parent, _, last = successor.rpartition(".")
    return getattr(importlib.import_module(f"{_ROOT}.{parent}"), last)


def install() -> None:
    """Make earlier modules importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    """Finds earlier modules that do not exist any more."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _successor(name) is None:
            return None
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the default module."""

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
    """The successor of a module, or the package that exports the names of the module."""
    for old, new in _MODULES.items():
        earlier, later = f"{_ROOT}.{old}", f"{_ROOT}.{new}"
        if name == earlier:
            return later
        if name.startswith(f"{earlier}."):
            submodule = later + name.removeprefix(earlier)
            is_package = hasattr(importlib.import_module(later), "__path__")
            return submodule if is_package and importlib.util.find_spec(submodule) else later
    return None


def _warn(old: str, new: str, level: int) -> None:
    warnings.warn(f"{old} is now {new}; import it from there", DeprecationWarning, level)
