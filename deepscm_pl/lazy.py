"""Packages whose names are imported when they are first used (PEP 562)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from deepscm_pl import moved

__all__ = ["first_use", "import_all"]


def first_use(package: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package that imports a name when it is first used.

    The names are those that the package imports below ``if TYPE_CHECKING:``, where type checkers
    and documentation tools see them as well. They are also its ``__all__``, if it has no other.

    Args:
        package: Name of the package, ``__name__`` in its ``__init__.py``.

    Example:
        >>> first_use("deepscm_pl")("CausalGraph").__module__
        'deepscm_pl.graph'
    """
    module = sys.modules[package]
    modules: dict[str, str] = {}

    def load(name: str) -> Any:
        if not modules:
            modules.update(_names_for_type_checkers(str(module.__file__)))
        if name == "__all__":
            return sorted(modules)
        if name not in modules:
            return moved.find_name(package, name)
        value = getattr(import_module(modules[name]), name)
        setattr(module, name, value)
        return value

    vars(module)["__dir__"] = lambda: sorted({*vars(module), *module.__all__})
    return load


def import_all(package: str) -> None:
    """Import all names of a package, so that its classes are found by their short names."""
    module = import_module(package)
    for name in module.__all__:
        getattr(module, name)


def _names_for_type_checkers(path: str) -> dict[str, str]:
    """Map each name that a file imports below ``if TYPE_CHECKING:`` to its module."""
    return {
        alias.name: str(each.module)
        for block in ast.parse(Path(path).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for each in block.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
