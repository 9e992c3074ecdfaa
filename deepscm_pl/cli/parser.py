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

from deepscm_pl.escaping import for_terminal
from deepscm_pl.older import successor_hint

__all__ = [
    "FriendlyArgumentParser",
    "UsageError",
    "fail",
    "nearest",
    "without_dumps",
]

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
_PARSER_KEY = 'Parser key "'
_DUMP = re.compile(r"Subtypes: |Given value type:|\. Got value:")
_VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value:|\n|$)", re.DOTALL)
_LONGEST_VALUE = 80
_NULL = re.compile(r"\bNone\b")
_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"^Expected an? <class '(?:int|jsonargparse.typing.PositiveInt)'>",
            "expected a whole number",
        ),
        (r"^Expected an? <class 'float'>", "expected a number"),
        (r"^Expected an? <class 'str'>", "expected a text"),
        (r"^Expected an? <class 'bool'>", "expected true or false"),
        (r"^Expected an? <class '(?:list|tuple|collections.abc.Sequence)'>", "expected a list"),
        (r"^Expected an? <class '(?:dict|collections.abc.Mapping)'>", "expected settings by name"),
        (r"^Expected an? <class 'NoneType'>", "expected null"),
        (r"^Not a valid subclass of (\w+).*", r"expected a class derived from \1"),
        (r"^Expected a dot import path string:$", "expected the path of a class, but got ''"),
        (r"^Expected a dot import path string:", "expected the path of a class, but got"),
        (r"^'\w+' object has no attribute 'keys'", "expected settings by name"),
        (r"^argument of type 'NoneType' is not .*", "expected a class_path, but got null"),
    )
)
_EXPECTING = re.compile(r"Type \S.* expects a function or a callable class:")
_CLASSES = ("expected the path of a class", "expected a class derived from")
_NO_REASONS = (
    "Expected a path but",
    _TRIED,
    "expected null",
    "a class path (str)",
    "a dict with",
)
_NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_BARE_NAME = re.compile(r'Parser key "(\w+?)s?":[^"]*?Expected a dot import path string: (\w+)')


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the known word nearest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class UsageError(SystemExit):
    """The end of the program with status 2, after a message of what cannot be read.

    Args:
        message: What was printed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class FriendlyArgumentParser(argparse.ArgumentParser):
    """The standard parser, with short errors and no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the message and what may have been meant; leave with status 2."""
        fail(self, message)


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
        >>> without_dumps('Parser key "max_epochs":\n  Expected a <class \'int\'>. Got value: x')
        'max_epochs: expected a whole number, but got x'
    """
    if not any(mark in message for mark in (_TRIED, _GOT, _PARSER_KEY)):
        return message
    keys = ", ".join(_KEY.findall(message))
    last = _KEY.split(message)[-1]
    reasons = _reasons(last)
    is_complete = any("but got" in each or not each.startswith("expected") for each in reasons)
    value = "" if is_complete else _value_in(last)
    return (f"{keys}: " if keys else "") + "; or: ".join(reasons) + value


def _reasons(text: str) -> list[str]:
    """Why a value was refused, for each type that was tried on it, in words of a user."""
    first = _in_words(text)
    if first and not first.startswith((_TRIED, "- ")):
        return [first]
    tried = [_in_words(part) for part in _REASON.split(text)[1:]] or [first]
    kept = [each for each in tried if each and not each.startswith(_NO_REASONS)] or tried
    no_class = [each for each in kept if not each.startswith(_CLASSES)]
    return list(dict.fromkeys(no_class or kept))


def _in_words(text: str) -> str:
    """The first reason in a text of the parser."""
    reason = _EXPECTING.sub("", _DUMP.split(text)[0]).strip()
    if not reason.startswith("- "):
        reason = _REASON.split(reason)[0]
    reason = " ".join(reason.split())
    for pattern, words in _WORDS:
        reason = pattern.sub(words, reason)
    return reason


def _value_in(text: str) -> str:
    """``, but got x``, where a text of the parser holds the value and it is short."""
    found = _VALUE.search(text)
    value = " ".join(found[1].split()) if found else ""
    if not value or len(value) > _LONGEST_VALUE or value.startswith("Namespace("):
        return ""
    return f", but got {_NULL.sub('null', value)}"


def fail(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Print what is wrong on a command line and what may have been meant.

    Raises:
        UsageError: Always.
    """
    words = [next(filter(None, groups)) for groups in _UNKNOWN.findall(message)]
    class_paths = _CLASS_PATH.findall(message)
    missing = [_classes_beside(class_path) for class_path in _missing_class_paths(message)]
    beside = next((classes for classes in missing if classes), [])
    known = [path.rpartition(".")[2] for path in beside] or _options(parser) + [
        name for class_path in class_paths for name in _names_near(class_path)
    ]
    hints = [hint for hint in (nearest(word, known) for word in words) if hint]
    plain = without_dumps(message)
    hint = successor_hint(words, plain) or next(iter(hints), "")
    told = f"{parser.prog}: {plain}{hint}"
    sys.stderr.write(for_terminal(told, lines=True) + "\n")
    if beside:
        sys.stderr.write(f"known classes: {for_terminal(', '.join(beside))}\n")
    sys.stderr.write(f"{parser.prog} --help lists the options.\n")
    raise UsageError(plain)


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
