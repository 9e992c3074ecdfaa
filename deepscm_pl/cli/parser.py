"""Errors of the command line that name what is wrong and what is nearest to it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from deepscm_pl.cli.yaml_files import PARSER_MODE
from deepscm_pl.escaping import for_terminal

__all__ = ["FriendlyArgumentParser", "FriendlyLightningParser", "nearest", "without_dumps"]

_UNKNOWN = re.compile(
    r"(?:[Oo]ption|[Kk]ey|attribute) '([\w.]+)'(?: is not (?:accepted|expected))?"
    r"|unrecognized arguments: --?([\w.]+)"
    r"|unknown variable '(\w+)'"
)
_CLASS_PATH = re.compile(r"class_path(?:=|': | )'([\w.]+)'")

_TRIED = "Does not validate against any of the Union subtypes"
_GOT = "Got value:"
_KEY = re.compile(r'Parser key "([\w.]+)":')
_REASON = re.compile(r"^\s*- ", re.MULTILINE)
_DUMP = re.compile(r"Subtypes: |Given value type:|\. Got value:")
_EXPECTING = re.compile(r"Type \S.* expects a function or a callable class:")
_NO_REASONS = ("Expected a path but", _TRIED, "Expected a <class 'NoneType'>")
_NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_BARE_NAME = re.compile(r'Parser key "(\w+?)s?":[^"]*?Expected a dot import path string: (\w+)')


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the known word nearest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class FriendlyLightningParser(LightningArgumentParser):
    """The parser of Lightning's command line, with short errors and limits of what it reads."""

    def __init__(self, *arguments: Any, parser_mode: str = PARSER_MODE, **settings: Any) -> None:
        super().__init__(*arguments, parser_mode=parser_mode, **settings)

    def error(self, message: str, *details: Any, **more: Any) -> NoReturn:
        """Print the message and what may have been meant; leave with status 2."""
        if not self.exit_on_error:  # tried on a part of the settings, where an error is an answer
            super().error(message, *details, **more)
        _fail(self, message)


class FriendlyArgumentParser(argparse.ArgumentParser):
    """The standard parser, with short errors and no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the message and what may have been meant; leave with status 2."""
        _fail(self, message)


def without_dumps(message: str) -> str:
    r"""A message of jsonargparse without the types that it tried and the values that it tried on.

    Example:
        >>> text = "\n".join([
        ...     'Parser key "data":',
        ...     "  Does not validate against any of the Union subtypes",
        ...     "  Subtypes: [<class 'LightningDataModule'>, <class 'NoneType'>]",
        ...     "  Errors:",
        ...     "    - train_size must be an integer of at least 2, got -5.",
        ...     "    - Expected a <class 'NoneType'>",
        ...     "  Given value type: <class 'dict'>",
        ...     "  Given value: {'class_path': 'SyntheticBrainDataModule'}",
        ... ])
        >>> without_dumps(text)
        'data: train_size must be an integer of at least 2, got -5.'
    """
    if _TRIED not in message and _GOT not in message:
        return message
    keys = ", ".join(_KEY.findall(message))
    last = _KEY.split(message)[-1]
    parts = _REASON.split(last)[1:] or [last]
    reasons = [" ".join(_EXPECTING.sub("", _DUMP.split(part)[0]).split()) for part in parts]
    kept = [each for each in reasons if each and not each.startswith(_NO_REASONS)] or reasons
    return (f"{keys}: " if keys else "") + "; or: ".join(kept)


def _fail(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    words = [next(filter(None, groups)) for groups in _UNKNOWN.findall(message)]
    class_paths = _CLASS_PATH.findall(message)
    missing = [_classes_beside(class_path) for class_path in _missing_class_paths(message)]
    beside = next((classes for classes in missing if classes), [])
    known = [path.rpartition(".")[2] for path in beside] or _options(parser) + [
        name for class_path in class_paths for name in _names_near(class_path)
    ]
    hints = [hint for hint in (nearest(word, known) for word in words) if hint]
    told = f"{parser.prog}: {without_dumps(message)}{hints[0] if hints else ''}"
    sys.stderr.write(for_terminal(told, lines=True) + "\n")
    if beside:
        sys.stderr.write(f"known classes: {for_terminal(', '.join(beside))}\n")
    sys.stderr.write(f"{parser.prog} --help lists the options.\n")
    sys.exit(2)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser and of its subcommands, without dashes."""
    known = [option.lstrip("-") for option in parser._option_string_actions]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                known += _options(subparser)
    return known


def _names_near(class_path: str) -> list[str]:
    """The arguments of a class, where there is one."""
    module, name = _module_and_name(class_path)
    found = getattr(module, name, None)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _classes_beside(class_path: str) -> list[str]:
    """Class paths of all that can be made beside a class that does not exist."""
    module, _ = _module_and_name(class_path)
    if module is None:
        return []
    beside = [getattr(module, known) for known in getattr(module, "__all__", [])]
    return [
        f"{module.__name__}.{known.__name__}"
        for known in beside
        if inspect.isclass(known) and not inspect.isabstract(known)
    ]


def _missing_class_paths(message: str) -> list[str]:
    """Classes that are not there, and where a bare name (``likelihood: Laplace``) may be sought."""
    sought = [f"deepscm_pl.{key}s.{name}" for key, name in _BARE_NAME.findall(message)]
    return [".".join(words) for words in _NO_ATTRIBUTE.findall(message)] + sought


def _module_and_name(class_path: str) -> tuple[ModuleType | None, str]:
    """The module of a class path, where there is one, and the last word."""
    module_name, _, name = class_path.rpartition(".")
    try:
        return importlib.import_module(module_name), name
    except (ImportError, ValueError):
        return None, name
