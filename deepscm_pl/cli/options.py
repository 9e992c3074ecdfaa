"""Command-line options from the signature and the docstring of a function.

jsonargparse, which reads the options of the training commands, knows neither flags without a value
(``--npz``), nor several values after one option (``--index 0 1 2``), nor repeated options.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from deepscm_pl.cli.parser import FriendlyArgumentParser

__all__ = [
    "CheckpointPath",
    "Command",
    "Kinds",
    "NewFolder",
    "Option",
    "Trusted",
    "add_command",
    "parse_command",
    "summary_of",
]

Command = Callable[..., None]

_ARGUMENT = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """Details of an option, as metadata of ``Annotated``.

    Attributes:
        metavar: The placeholder of its value in the help.
        flags: Its names; ``--`` and the name of the parameter if empty. A name without dashes makes
            a positional argument.
        help: Its description, if the docstring of the function has none.
        exclusive: Whether exactly one of all such options has to be given.
    """

    metavar: str | None = None
    flags: tuple[str, ...] = ()
    help: str = ""
    exclusive: bool = False


CheckpointPath = Annotated[Path, Option("FILE", help="Checkpoint of a run.")]
NewFolder = Annotated[Path, Option("DIR", help="Folder to make; new or empty.")]
Trusted = Annotated[
    tuple[str, ...],
    Option(
        "PACKAGE",
        help="Packages whose classes the checkpoint may name in addition to those of deepscm_pl, "
        "torch.nn and torch.optim; they are imported, and their constructors run.",
    ),
]


class Kinds(dict[str, Command]):
    """Functions of subcommands by name, of which the first is that without a name."""


def parse_command(
    words: Sequence[str], commands: Mapping[str, Command | Mapping[str, Command]]
) -> Callable[[], None]:
    """Parse the options of a command.

    Boolean parameters are flags; a ``list`` gathers the values of a repeated option, and a
    ``tuple`` holds those of its last occurrence. A parameter whose type is a dataclass stands for
    the fields of the dataclass.

    Args:
        words: The command, then its options.
        commands: Functions, or functions of subcommands, by name.

    Returns:
        The function with its arguments.

    Raises:
        SystemExit: After the help, or an error in one line.
    """
    command = commands[words[0]]
    if isinstance(command, Kinds) and words[1:2] not in ([], ["-h"], ["--help"]):
        is_named = not words[1].startswith("-")
        words = words if is_named else [words[0], next(iter(command)), *words[1:]]
    parser = FriendlyArgumentParser(prog=f"deepscm {words[0]}")
    add_command(parser, command)
    found = vars(parser.parse_args(words[1:]))
    function = found.pop("function")
    return partial(function, **_arguments(function, found))


def add_command(parser: FriendlyArgumentParser, command: Command | Mapping[str, Command]) -> None:
    """Add the options of a command, or of its kinds, to a parser that has its ``prog``.

    Example:
        >>> parser = FriendlyArgumentParser(prog="deepscm greet")
        >>> def greet(name: str = "Ana") -> None:
        ...     "Print a greeting."
        >>> add_command(parser, greet)
        >>> parser.description, parser.parse_args([]).name
        ('Print a greeting.', 'Ana')
    """
    if not isinstance(command, Mapping):
        parser.description = summary_of(command)
        _add_options(parser, command)
        parser.set_defaults(function=command)
        return
    parser.description = f"{parser.prog} KIND --help describes the options of a kind."
    parsers = parser.add_subparsers(dest="function", required=True, metavar="KIND")
    for name, function in command.items():
        summary = summary_of(function)
        subparser = parsers.add_parser(name, help=summary, description=summary)
        _add_options(subparser, function)
        subparser.set_defaults(function=function)


def summary_of(function: Any) -> str:
    """First paragraph of the docstring of a function, in one line."""
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def _parameters(function: Any) -> list[tuple[inspect.Parameter, Any]]:
    types = get_type_hints(function, include_extras=True)
    found = inspect.signature(function).parameters.values()
    return [(parameter, types[parameter.name]) for parameter in found]


def _add_options(parser: FriendlyArgumentParser, function: Command) -> None:
    texts = dict(_ARGUMENT.findall(inspect.getdoc(function) or ""))
    exclusive = None
    for parameter, annotation in _parameters(function):
        if _is_group(annotation):
            _add_options(parser, annotation)
            continue
        option, settings = _settings(annotation)
        default, text = parameter.default, texts.get(parameter.name, option.help)
        if default not in (parameter.empty, None, ()) and not isinstance(default, bool):
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{text.rstrip('.')} (default: {shown})."
        settings["help"] = " ".join(text.split()).replace("%", "%%")
        flags = option.flags or (f"--{parameter.name}",)
        if flags[0].startswith("-"):
            settings |= {"dest": parameter.name, "required": default is parameter.empty}
        elif default is parameter.empty:
            del settings["nargs"]  # it has to be given
        if default is not parameter.empty:
            settings["default"] = default
        if option.exclusive:
            exclusive = exclusive or parser.add_mutually_exclusive_group(required=True)
        (exclusive if exclusive and option.exclusive else parser).add_argument(*flags, **settings)


def _settings(annotation: Any) -> tuple[Option, dict[str, Any]]:
    """The details of an option, and what ``add_argument`` needs for values of its type."""
    option = Option()
    while get_origin(annotation) in (Annotated, Union, UnionType):
        if get_origin(annotation) is Annotated:
            annotation, option = get_args(annotation)
        else:
            (annotation,) = (each for each in get_args(annotation) if each is not NoneType)
    if annotation is bool:
        return option, {"action": "store_true"}
    kind, inner = get_origin(annotation), get_args(annotation)
    settings: dict[str, Any] = {"type": inner[0] if kind in (list, tuple) else annotation}
    if kind is Literal:
        settings = {"choices": inner}
    elif kind is list:
        settings |= {"nargs": "+", "action": "extend"}
    elif kind is tuple:
        settings["nargs"] = "+" if inner[-1] is Ellipsis else len(inner)
    if option.flags and not option.flags[0].startswith("-"):
        settings["nargs"] = "?"
    return option, settings | ({"metavar": option.metavar} if option.metavar else {})


def _is_group(annotation: Any) -> bool:
    return is_dataclass(annotation)


def _arguments(function: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        parameter.name: annotation(**_arguments(annotation, found))
        if _is_group(annotation)
        else found[parameter.name]
        for parameter, annotation in _parameters(function)
    }
