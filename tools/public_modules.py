"""The modules of the package that have public names: those that a package exports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["PACKAGE", "Module", "public_modules"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "deepscm_pl"
HIDDEN = ("deepscm_pl.cli", "deepscm_pl.lazy")
"""Packages and modules that are not part of the public interface."""


@dataclass
class Module:
    """A module with public names.

    Attributes:
        name: Its dotted name.
        summary: The first sentence of its docstring.
        imports: The public names of each package that exports them; a name that several export is
            that of the shortest.
    """

    name: str
    summary: str
    imports: dict[str, list[str]] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package below ``deepscm_pl`` to which it belongs; empty for modules of its own."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 else ""

    @property
    def title(self) -> str:
        """Its name within its package."""
        return self.name.removeprefix(f"{PACKAGE}.").removeprefix(f"{self.package}.")


@cache
def public_modules() -> list[Module]:
    """All modules with public names, in alphabetical order."""
    modules: dict[str, Module] = {}
    seen: set[tuple[str, str]] = set()
    for init in sorted((ROOT / PACKAGE).rglob("__init__.py"), key=lambda p: (len(p.parts), p)):
        package = ".".join(init.parent.relative_to(ROOT).parts)
        for source, name in _exports(init, package):
            if (source, name) in seen:
                continue
            seen.add((source, name))
            if source not in modules:
                modules[source] = Module(source, _summary(source))
            modules[source].imports.setdefault(package, []).append(name)
    for module in modules.values():
        module.imports = {package: sorted(names) for package, names in module.imports.items()}
    return [modules[name] for name in sorted(modules)]


def _exports(init: Path, package: str) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a package exports."""
    if package.startswith(HIDDEN):
        return
    for name in _imports(init):
        source = _origin(init, name)
        if source.startswith(PACKAGE) and not source.startswith(HIDDEN):
            yield source, name


def _origin(path: Path, name: str) -> str:
    """The module in which a name is defined that a file imports; empty for modules."""
    source = _imports(path).get(name, "")
    if not source.startswith(PACKAGE):
        return source
    for inner in (_file(source), ROOT / Path(*source.split("."), "__init__.py")):
        if inner.is_file() and inner != path and name in _imports(inner):
            return _origin(inner, name)
    return source if _file(source).is_file() else ""


@cache
def _imports(init: Path) -> dict[str, str]:
    """The module of each name that a file imports."""
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(ast.parse(init.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 0
        for alias in node.names
    }


def _file(module: str) -> Path:
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def _summary(module: str) -> str:
    """First paragraph of the docstring of a module."""
    text = ast.get_docstring(ast.parse(_file(module).read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].replace("``", "`").split())
