"""Pages of the site that are not in ``docs``: a hook of MkDocs (``mkdocs.yml``).

The reference has a page for each module with public names, and a page with the help of each
command. A name is public if a package exports it, by an import in its ``__init__.py``. Results,
cards of models and pages about the project are those of the repository.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import formulas  # noqa: E402
from public_modules import PACKAGE, Module, public_modules  # noqa: E402

__all__ = ["commands", "on_config", "on_files", "on_page_content", "on_page_markdown"]

OTHERS = (
    "experiments/README.md",
    "experiments/*/results/**/*.md",
    "experiments/*/results/**/*.png",
    "experiments/*/results/**/*.json",
    "models/README.md",
    "models/*/README.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
"""Files of the repository that are part of the site, at the same place."""

_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Complete the navigation by the pages of the reference."""
    groups: dict[str, list[dict[str, str]]] = {}
    for module in public_modules():
        groups.setdefault(module.package, []).append({module.title: page_of(module)})
    of_commands = [{f"deepscm {each}": command_page(each)} for each in commands()]
    pages: list[Any] = [
        {"Overview": "reference.md"},
        {"Commands": of_commands},
        *groups.pop("", []),
    ]
    pages += [{package: entries} for package, entries in sorted(groups.items())]
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = pages
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the reference, and those of the repository."""
    from mkdocs.structure.files import File

    modules = public_modules()
    texts = {page_of(module): module_text(module) for module in modules}
    texts |= {command_page(each): command_text(each) for each in commands()}
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    for path in sorted({path for pattern in OTHERS for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(text: str, page: Any, files: Any, **_: Any) -> str:
    """Let links of a page lead to the pages of the site, and complete that of the reference."""
    here = page.file.src_uri
    if here == "reference.md":
        text = f"{text}\n{overview(public_modules())}"
    known = {file.src_uri for file in files}
    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(lambda found: site_link(found, here, known), e) for e in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Draw the formulas of a page."""
    return formulas.inline(html)


def site_link(found: re.Match[str], here: str, known: Iterable[str]) -> str:
    """A link of the repository as one of the site, or its text if the file is not in the site."""
    mark, text, target, anchor = found[1], found[2], found[3], found[4] or ""
    if ":" in target:
        return found[0]
    in_docs = (ROOT / "docs" / here).is_file() or here.startswith("reference/")
    folder = posixpath.dirname(posixpath.join("docs", here) if in_docs else here)
    path = posixpath.normpath(posixpath.join(folder, target))
    page = path.removeprefix("docs/")
    if page not in known:
        return text if (ROOT / path).exists() and not mark else found[0]
    return f"{mark}[{text}]({posixpath.relpath(page, posixpath.dirname(here))}{anchor})"


def page_of(module: Module) -> str:
    """Path of the page of a module, relative to the documentation."""
    return f"reference/{module.name.removeprefix(PACKAGE + '.')}.md"


def command_page(command: str) -> str:
    """Path of the page of a command."""
    return f"reference/deepscm-{command.replace(' ', '-')}.md"


def module_text(module: Module) -> str:
    """The page of a module, for ``mkdocstrings``."""
    imports = [_import(*entry) for entry in sorted(module.imports.items())]
    blocks = [f"```python\n{each}\n```\n" for each in imports]
    return "\n".join([f"# {module.name}\n", *blocks, f"::: {module.name}\n"])


def overview(modules: list[Module]) -> str:
    """The commands, and the modules by package."""
    lines = ["## Commands\n"]
    lines += [f"- [deepscm {each}]({command_page(each)})" for each in commands()]
    for package in sorted({module.package for module in modules}):
        lines += [f"\n## {PACKAGE}.{package}\n" if package else f"\n## {PACKAGE}\n"]
        lines += ["| module | content |", "|---|---|"]
        for module in modules:
            if module.package == package:
                name = module.name.removeprefix(f"{PACKAGE}.")
                summary = module.summary.replace("|", r"\|")
                lines.append(f"| [{name}]({page_of(module)}) | {summary} |")
    return "\n".join(lines) + "\n"


def command_text(command: str) -> str:
    """The page of a command, with its help in lines of 100 characters."""
    from deepscm_pl.cli import main

    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "100"}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main([*command.split(), "--help"])
    return f"# deepscm {command}\n\n```text\n{printed.getvalue().rstrip()}\n```\n"


@cache
def commands() -> list[str]:
    """The commands of the program, with their kinds."""
    from deepscm_pl.cli.commands import COMMANDS
    from deepscm_pl.cli.training_help import TRAINING_COMMANDS

    found = [*TRAINING_COMMANDS]
    for name, command in COMMANDS.items():
        kinds = command if isinstance(command, Mapping) else ()
        found += [f"{name} {kind}" for kind in kinds] or [name]
    return found


def _import(package: str, names: list[str]) -> str:
    """An import statement of at most 88 characters in a line."""
    line = f"from {package} import {', '.join(names)}"
    if len(line) <= 88:
        return line
    return "\n".join([f"from {package} import (", *(f"    {name}," for name in names), ")"])
