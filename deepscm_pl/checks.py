"""Validation of settings: type and range, with one-line errors that name the setting.

A setting may come from Python, a YAML file or a checkpoint, so a number may turn out to be null,
NaN, a boolean or a text. Each function returns the value, so that a constructor reads
``self.latent = whole_number("latent", latent, least=1)``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence
from numbers import Integral, Real
from typing import Any

__all__ = [
    "class_factory",
    "process_count",
    "real_number",
    "reason_of",
    "seed_number",
    "shown",
    "whole_number",
    "whole_numbers",
]

_MOST_SEED = 2**63 - 1
_MOST_PROCESSES = 64

_LONGEST = 60


def shown(value: Any) -> str:
    """Format a value as a user writes it in YAML: None as ``null``, shortened to one line.

    Example:
        >>> shown(None), shown(True), shown("eight"), shown(0.5)
        ('null', 'true', "'eight'", '0.5')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def reason_of(error: BaseException) -> str:
    """The first line of an error message, with ``null`` in place of None.

    Example:
        >>> reason_of(TypeError("'<' not supported between instances of 'int' and 'NoneType'"))
        "'<' not supported between instances of 'int' and null"
    """
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return first.replace("'NoneType'", "null").replace("NoneType", "null")


def whole_number(
    name: str, value: Any, least: int | None = None, most: int | None = None, hint: str = ""
) -> int:
    """Check an integer within bounds.

    Args:
        name: The setting, for the message.
        value: Its value.
        least: The least that is allowed; None for no bound.
        most: The most that is allowed; None for no bound.
        hint: What to do instead, appended to the message.

    Raises:
        ValueError: If the value is no whole number, such as a truth value or null, or is out of
            bounds.

    Example:
        >>> whole_number("latent", 16, least=1)
        16
        >>> whole_number("latent", None, least=1)
        Traceback (most recent call last):
            ...
        ValueError: latent: expected a whole number of at least 1, but got null.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not _within(value, least, most):
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
    """Check a list of integers within bounds.

    Args:
        name: The setting, for the message.
        values: Its value.
        least: The least that each may be; None for no bound.
        most: The most that each may be; None for no bound.
        lengths: How many numbers there may be; None for any number of them.
        fewest: The least number of them.
        hint: What to do instead, appended to the message.

    Raises:
        ValueError: If it is no list, a member is no whole number or out of bounds, or there are
            more or fewer than allowed.

    Example:
        >>> whole_numbers("channels", [16, 0], least=1)
        Traceback (most recent call last):
            ...
        ValueError: channels: expected whole numbers of at least 1, but got [16, 0].
    """
    wanted = f"{_count(lengths, fewest)}whole numbers{_bounds(least, most)}"
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise _refusal(name, f"a list of {wanted}", values, hint)
    fits = len(values) >= fewest if lengths is None else len(values) in lengths
    try:
        numbers = tuple(whole_number(name, value, least, most) for value in values) if fits else ()
    except ValueError:
        fits = False
    if not fits:
        raise _refusal(name, wanted, list(values), hint)
    return numbers


def real_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    hint: str = "",
) -> float:
    """Check a number within bounds; NaN is refused.

    Args:
        name: The setting, for the message.
        value: Its value.
        least: The least that is allowed.
        most: The most that is allowed.
        above: It has to be larger than this.
        below: It has to be less than this; with the default, infinity is refused.
        hint: What to do instead, appended to the message.

    Raises:
        ValueError: If the value is no finite number, such as a truth value or null, or is out of
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
        words = [
            f"{word} {bound:g}"
            for word, bound in (
                ("of at least", least),
                ("above", above),
                ("of at most", most),
                ("below", below),
            )
            if math.isfinite(bound)
        ]
        wanted = f"number {' and '.join(words)}" if words else "finite number"
        raise _refusal(name, f"a {wanted}", value, hint)
    return value


def seed_number(name: str, value: Any) -> int:
    """Check a seed for the generators of torch and NumPy.

    Raises:
        ValueError: If it is no whole number, or negative or too large.
    """
    return whole_number(name, value, least=0, most=_MOST_SEED)


def process_count(name: str, value: Any, least: int = 1) -> int:
    """Check a number of worker processes.

    Raises:
        ValueError: If it is no whole number, less than ``least``, or more than 64 and more than
            four for each processor.
    """
    most = max(_MOST_PROCESSES, 4 * (os.cpu_count() or 1))
    return whole_number(name, value, least, most)


def class_factory(name: str, value: Any) -> Callable[..., Any]:
    """Check a factory: a class, or anything else that can be called.

    Raises:
        ValueError: If it cannot be called, such as null.
    """
    if not callable(value):
        raise _refusal(name, "a class with its arguments", value, "")
    return value


def _within(value: float, least: int | None, most: int | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _bounds(least: int | None, most: int | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return "" if most is None else f" of at most {most}"


def _count(lengths: Collection[int] | None, fewest: int) -> str:
    if lengths is not None:
        return f"{' or '.join(map(str, sorted(lengths)))} "
    return f"at least {fewest} " if fewest else ""


def _refusal(name: str, wanted: str, value: Any, hint: str) -> ValueError:
    end = f"; {hint}." if hint else "."
    return ValueError(f"{name}: expected {wanted}, but got {shown(value)}{end}")
