"""Errors of the command line that name what is wrong and what is nearest to it."""

from __future__ import annotations

import argparse
import inspect
import pkgutil
import re
import sys
from typing import Any, NoReturn

from deepscm_pl.checks import nearest
from deepscm_pl.escaping import for_terminal
from deepscm_pl.older import successor_hint

__all__ = [
    "FriendlyArgumentParser",
    "UsageError",
    "fail",
    "without_dumps",
]

_UNKNOWN = re.compile(
    r"(?:[Oo]ption|[Kk]ey|attribute) '([\w.]+)'(?: is not (?:accepted|expected))?"
    r"|unrecognized arguments: --?([\w.]+)"
    r"|unknown variable '(\w+)'"
    r"|invalid choice: '([\w-]+)'"
)
_CHOICES = re.compile(r"invalid choice: .* \(choose from (.*)\)")
_NAMED_CLASS = re.compile(r"class_path(?:=|': | )'([\w.]+)'")

_UNION = "Does not validate against any of the Union subtypes"
_PARSER_KEY = re.compile(r'Parser key "([\w.]+)":')
_REASON = re.compile(r"^\s*- ", re.MULTILINE)
_DUMP = re.compile(r"Subtypes: |Given value type:|\. Got value:")
_VALUE = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value:|\n|$)", re.DOTALL)
_LONGEST_VALUE = 80
_NOT_QUOTED = re.compile(r", but got (?:True|False|null|[-+\d.][-+\w.]*)")
_PLAIN_REASONS = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
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
        (r"^argument (\S+): invalid int value:", r"\1: expected a whole number, but got"),
        (r"^argument (\S+): invalid float value:", r"\1: expected a number, but got"),
    )
)
_CALLABLE = re.compile(r"Type \S.* expects a function or a callable class:")
_ABOUT_CLASSES = ("expected the path of a class", "expected a class derived from")
_NOT_INFORMATIVE = (
    "Expected a path but",
    _UNION,
    "expected null",
    "a class path (str)",
    "a dict with",
)
_MISSING_CLASS = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_BARE_NAME = re.compile(r'Parser key "(\w+?)s?":[^"]*?Expected a dot import path string: (\w+)')


class UsageError(SystemExit):
    """End the program with status 2, after ``message`` was printed."""

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
    r"""Shorten a message of jsonargparse, without the types that it tried and the dumped values.

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
    if not any(mark in message for mark in (_UNION, "Got value:", 'Parser key "')):
        return _plain_reason(message) if message.startswith("argument ") else message
    keys = ", ".join(_PARSER_KEY.findall(message))
    last = _PARSER_KEY.split(message)[-1]
    reasons = _plain_reasons(last)
    is_complete = any("but got" in each or not each.startswith("expected") for each in reasons)
    value = "" if is_complete else _refused_value(last)
    is_name = "expected a text" in reasons and _NOT_QUOTED.fullmatch(value)
    advice = "; quote it, as in '21003', because YAML reads it as another kind" if is_name else ""
    return (f"{keys}: " if keys else "") + "; or: ".join(reasons) + value + advice


def _plain_reasons(text: str) -> list[str]:
    """The reasons for which a value was refused, one for each type that was tried."""
    first = _plain_reason(text)
    if first and not first.startswith((_UNION, "- ")):
        return [first]
    tried = [_plain_reason(part) for part in _REASON.split(text)[1:]] or [first]
    kept = [each for each in tried if each and not each.startswith(_NOT_INFORMATIVE)] or tried
    about_values = [each for each in kept if not each.startswith(_ABOUT_CLASSES)]
    return list(dict.fromkeys(about_values or kept))


def _plain_reason(text: str) -> str:
    """The first reason in a text of jsonargparse."""
    reason = _CALLABLE.sub("", _DUMP.split(text)[0]).strip()
    if not reason.startswith("- "):
        reason = _REASON.split(reason)[0]
    reason = " ".join(reason.split())
    for pattern, plain in _PLAIN_REASONS:
        reason = pattern.sub(plain, reason)
    return reason


def _refused_value(text: str) -> str:
    """``, but got x``, if a text of jsonargparse has the value and it is short."""
    found = _VALUE.search(text)
    value = " ".join(found[1].split()) if found else ""
    if not value or len(value) > _LONGEST_VALUE or value.startswith("Namespace("):
        return ""
    return ", but got " + re.sub(r"\bNone\b", "null", value)


def fail(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Print an error of a command line with a hint; raise :class:`UsageError`."""
    unknown = [next(filter(None, groups)) for groups in _UNKNOWN.findall(message)]
    # A bare name (likelihood: Laplace) is looked up in the package of its key.
    missing = [".".join(found) for found in _MISSING_CLASS.findall(message)]
    missing += [f"deepscm_pl.{key}s.{name}" for key, name in _BARE_NAME.findall(message)]
    classes = next(filter(None, map(_classes_beside, missing)), [])
    known = [path.rpartition(".")[2] for path in classes]
    choices = _CHOICES.search(message)
    if not known and choices is not None:
        known = [choice.strip("'") for choice in choices[1].split(", ")]
    elif not known:
        known = _options(parser)
        for class_path in _NAMED_CLASS.findall(message):
            known += _parameters_of(class_path)
    plain = without_dumps(message)
    hints = [nearest(word, known) for word in unknown]
    hint = successor_hint(unknown, plain) or next(filter(None, hints), "")
    program = parser.prog.replace(" [options]", "")
    sys.stderr.write(for_terminal(f"{program}: {plain}{hint}", lines=True) + "\n")
    if classes:
        sys.stderr.write(f"known classes: {for_terminal(', '.join(classes))}\n")
    sys.stderr.write(f"{program} --help lists the options.\n")
    raise UsageError(plain)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """The options and choices of a parser and of its subcommands, without dashes."""
    known = [option.lstrip("-") for option in parser._option_string_actions]
    for action in parser._actions:
        known += filter(lambda choice: isinstance(choice, str), action.choices or ())
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                known += _options(subparser)
    return known


def _parameters_of(class_path: str) -> list[str]:
    found = _resolve(class_path)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _classes_beside(class_path: str) -> list[str]:
    """Class paths of the public concrete classes in the module of a class that does not exist."""
    path = class_path.rpartition(".")[0]
    module = _resolve(path)
    public = [getattr(module, name) for name in getattr(module, "__all__", [])]
    return [
        f"{path}.{each.__name__}"
        for each in public
        if inspect.isclass(each) and not inspect.isabstract(each)
    ]


def _resolve(path: str) -> Any:
    try:
        return pkgutil.resolve_name(path)
    except (AttributeError, ImportError, ValueError):
        return None
