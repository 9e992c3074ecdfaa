"""Options that change what a checkpoint describes: ``--data.root DIR``, ``--model.NAME VALUE``."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepscm_pl.cli.parser import FriendlyLightningParser, nearest
from deepscm_pl.configuration import annotations_of

__all__ = ["Override", "apply_overrides", "split_overrides", "trusted_packages"]

_SKIPPED = ("init_args",)


@dataclass(frozen=True)
class Override:
    """A word of the user that changes a setting of a checkpoint.

    Attributes:
        option: As it was typed, such as ``--data.init_args.root``.
        names: Where the setting is, such as ``("root",)``.
        text: Its new value, as text.
    """

    option: str
    names: tuple[str, ...]
    text: str


def split_overrides(words: Sequence[str], section: str) -> tuple[list[Override], list[str]]:
    """Take the options of a section out of the words of a command line.

    Args:
        words: The words.
        section: ``"model"`` or ``"data"``.

    Returns:
        The options, and the other words.

    Raises:
        ValueError: If an option has no value.

    Example:
        >>> found, left = split_overrides(["test", "--data.root", "here", "--seed", "1"], "data")
        >>> found[0].names, found[0].text, left
        (('root',), 'here', ['test', '--seed', '1'])
    """
    found: list[Override] = []
    left: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        option, equals, text = word.partition("=")
        if not option.startswith(f"--{section}."):
            left.append(word)
            continue
        if not equals and not waiting:
            raise ValueError(f"{option}: expected a value after it; give one.")
        names = tuple(name for name in option.split(".")[1:] if name not in _SKIPPED)
        found.append(Override(option, names, text if equals else waiting.pop(0)))
    return found, left


def apply_overrides(
    target: type, arguments: Mapping[str, Any], overrides: Sequence[Override]
) -> dict[str, Any]:
    """Put the values of options in the place of those that a file describes.

    Args:
        target: The class that the arguments are of.
        arguments: Name to value, with ``functools.partial`` in place of objects.
        overrides: The options, of which later ones win.

    Returns:
        All arguments.

    Raises:
        ValueError: If an option names no argument, naming the nearest one.
        SystemExit: If a value is not of the type that the argument has.
    """
    changed = dict(arguments)
    for override in overrides:
        _put(target, changed, override, override.names)
    return changed


def _put(kind: Any, values: dict[str, Any], override: Override, names: Sequence[str]) -> None:
    """Change one value among the arguments of a class, or among the values of a mapping."""
    name, *deeper = names
    known = annotations_of(kind) if isinstance(kind, type) else None
    if known is not None and name not in known:
        raise ValueError(
            f"{override.option}: {kind.__qualname__} has no argument {name!r}"
            f"{nearest(name, known)}."
        )
    annotation = Any if known is None else known[name][0]
    found = values.get(name)
    if not deeper:
        values[name] = _parsed(override, annotation)
    elif isinstance(found, functools.partial):
        keywords = dict(found.keywords)
        _put(found.func, keywords, override, deeper)
        values[name] = functools.partial(found.func, **keywords)
    elif isinstance(found, Mapping):
        nested = dict(found)
        _put(None, nested, override, deeper)
        values[name] = nested
    else:
        raise ValueError(f"{override.option}: {name} has no part {deeper[0]!r}; leave it out.")


def _parsed(override: Override, annotation: Any) -> Any:
    """The value of an option, as the user typed it."""
    parser = FriendlyLightningParser(prog="deepscm", add_help=False)
    parser.add_argument(override.option, type=annotation)
    found = parser.parse_args([f"{override.option}={override.text}"])
    return parser.instantiate(found)[override.option.removeprefix("--")]


def trusted_packages(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--trust PACKAGE …`` out of the words of a command line.

    Returns:
        The packages, and the other words.

    Example:
        >>> trusted_packages(["test", "--trust", "mine", "yours", "--ckpt_path", "last.ckpt"])
        (['mine', 'yours'], ['test', '--ckpt_path', 'last.ckpt'])
    """
    packages: list[str] = []
    left: list[str] = []
    is_package = False
    for word in words:
        if word == "--trust" or word.startswith("--trust="):
            is_package = word == "--trust"
            packages += [word.removeprefix("--trust=")] * (not is_package)
        elif is_package and not word.startswith("-"):
            packages.append(word)
        else:
            is_package = False
            left.append(word)
    return packages, left
