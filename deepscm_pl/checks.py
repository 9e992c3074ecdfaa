"""Validation of settings: type and range, with one-line errors that name the setting.

Settings from Python, YAML files or checkpoints may be null, NaN, a boolean or a text in place of a
number. Each function returns the checked value.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

__all__ = [
    "ASIDE",
    "class_factory",
    "nearest",
    "process_count",
    "real_number",
    "reason_of",
    "seed_number",
    "shown",
    "whole_number",
    "whole_numbers",
]

ASIDE = " (did you mean {}?)"
"""A form of :func:`nearest`."""
_LARGEST_SEED = 2**63 - 1
_MOST_PROCESSES = 64
_SHOWN_CHARACTERS = 60


def shown(value: Any) -> str:
    """Format a value as a user writes it in YAML: None as ``null``, shortened to one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def reason_of(error: BaseException) -> str:
    """The first line of an error message, with ``null`` in place of None."""
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return first.replace("'NoneType'", "null").replace("NoneType", "null")


def whole_number(
    name: str, value: Any, least: int | None = None, most: int | None = None, hint: str = ""
) -> int:
    """Check an integer within bounds, None for no bound.

    Args:
        name: The setting, for the message.
        value: Its value.
        least: The smallest allowed value.
        most: The largest allowed value.
        hint: Advice that is appended to the message.

    Raises:
        ValueError: If the value is no integer, such as a boolean or null, or is out of bounds.

    Example:
        >>> whole_number("latent", 16, least=1)
        16
        >>> whole_number("latent", None, least=1)
        Traceback (most recent call last):
            ...
        ValueError: latent: expected a whole number of at least 1, but got null.
    """
    if not _is_whole(value, least, most):
        raise _refusal(name, f"a whole number{_bounds(least, most)}", value, hint)
    return int(value)


def whole_numbers(
    name: str,
    values: Any,
    least: int | None = None,
    most: int | None = None,
    lengths: Collection[int] | None = None,
    fewest: int = 0,
    hint: str = "",
) -> tuple[int, ...]:
    """Check a list of integers within bounds, None for no bound.

    The arguments are those of :func:`whole_number`. The length of the list must be one of
    ``lengths`` or, if that is None, at least ``fewest``.

    Raises:
        ValueError: If it is no list, a member is no integer or out of bounds, or the length is not
            allowed.
    """
    count = f"at least {fewest} " if fewest else ""
    if lengths is not None:
        count = f"{' or '.join(map(str, sorted(lengths)))} "
    wanted = f"{count}whole numbers{_bounds(least, most)}"
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise _refusal(name, f"a list of {wanted}", values, hint)
    fits = len(values) >= fewest if lengths is None else len(values) in lengths
    if not fits or not all(_is_whole(value, least, most) for value in values):
        raise _refusal(name, wanted, list(values), hint)
    return tuple(int(value) for value in values)


def real_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    hint: str = "",
) -> float:
    """Check a number within bounds; NaN is refused, and infinity unless ``below`` allows it.

    The other arguments are those of :func:`whole_number`; ``above`` and ``below`` are exclusive.

    Raises:
        ValueError: If the value is no finite number, such as a boolean or null, or is out of
            bounds.

    Example:
        >>> real_number("alpha", 0.05, above=0, below=1)
        0.05
        >>> real_number("alpha", float("nan"), above=0, below=1)
        Traceback (most recent call last):
            ...
        ValueError: alpha: expected a number above 0 and below 1, but got nan.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not (least <= value <= most and above < value < below):
        bounds = {"of at least": least, "above": above, "of at most": most, "below": below}
        words = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
        wanted = f"number {' and '.join(words)}" if words else "finite number"
        raise _refusal(name, f"a {wanted}", value, hint)
    return value


def seed_number(name: str, value: Any) -> int:
    """Check a seed for the generators of torch and NumPy, from 0 to 2⁶³ − 1."""
    return whole_number(name, value, least=0, most=_LARGEST_SEED)


def process_count(name: str, value: Any, least: int = 1) -> int:
    """Check a number of worker processes: at most 64 or, if more, four for each processor."""
    most = max(_MOST_PROCESSES, 4 * (os.cpu_count() or 1))
    return whole_number(name, value, least, most)


def nearest(
    word: str, known: Iterable[str], form: str = "; did you mean {}?", otherwise: str = ""
) -> str:
    """Ask whether the known word nearest to an unknown one is meant, for a message.

    Args:
        word: The unknown word.
        known: The known words.
        form: The question, with braces for the quoted word; :data:`ASIDE` within a sentence.
        otherwise: The text if no word is near.

    Example:
        >>> nearest("agee", ["sex", "age"]), nearest("agee", ["sex"], otherwise=".")
        ("; did you mean 'age'?", '.')
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return form.format(repr(close[0])) if close else otherwise


def class_factory(name: str, value: Any) -> Callable[..., Any]:
    """Check that a factory can be called: a class, or ``functools.partial`` of one."""
    if not callable(value):
        raise _refusal(name, "a class with its arguments", value, "")
    return value


def _is_whole(value: Any, least: int | None, most: int | None) -> bool:
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False
    number = int(value)
    return (least is None or number >= least) and (most is None or number <= most)


def _bounds(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return "" if most is None else f" of at most {most}"


def _refusal(name: str, wanted: str, value: Any, hint: str) -> ValueError:
    end = f"; {hint}." if hint else "."
    return ValueError(f"{name}: expected {wanted}, but got {shown(value)}{end}")
