"""Interventions as text, as they are written on a command line and over a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Do, NamedClass, class_named

__all__ = [
    "ClassName",
    "Increase",
    "Multiply",
    "format_do",
    "parse_do",
    "with_class_indices",
]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_STATEMENT = re.compile(rf"\s*(\w+)\s*(=|\+=|-=|\*=)\s*({_NUMBER})\s*")
_CLASS = re.compile(r"\s*(\w+)\s*=\s*([^\W\d](?:[^,=]*[^,=\s])?)\s*")
_NO_CLASSES = ("nan", "inf", "infinity")

_DIGITS = 6
"""Significant digits of a number in a title."""


@dataclass(frozen=True)
class Increase:
    """x ↦ x + amount."""

    amount: float

    def __call__(self, value: Tensor) -> Tensor:
        """The increased value."""
        return value + self.amount


@dataclass(frozen=True)
class Multiply:
    """x ↦ x · factor."""

    factor: float

    def __call__(self, value: Tensor) -> Tensor:
        """The multiplied value."""
        return value * self.factor


@dataclass(frozen=True)
class ClassName:
    """A class of a categorical variable, by the name that the data have for it."""

    name: str


def with_class_indices(
    do: Mapping[str, object], class_names: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """An intervention with every class that it names as a number, its index.

    Where the names are numbers themselves, as in a table with 1 and 2 for the sexes, a number is
    a name; otherwise it is an index.

    Args:
        do: As :func:`parse_do` reads it.
        class_names: Of each categorical variable, in the order of their indices.

    Raises:
        ValueError: If a variable has no such class.

    Example:
        >>> with_class_indices(parse_do("sex=male, age=60"), {"sex": ("female", "male")})
        {'sex': 1.0, 'age': 60.0}
    """
    return {
        name: _as_class(name, value, class_names.get(name, ()))
        if isinstance(value, ClassName | float)
        else value
        for name, value in do.items()
    }


def _as_class(variable: str, value: ClassName | float, names: Sequence[str]) -> float:
    text = value.name if isinstance(value, ClassName) else f"{value:g}"
    if isinstance(value, NamedClass) or (isinstance(value, float) and not names):
        return value
    found = class_named(text, names)
    if found is None:
        expected = (
            f"one of {', '.join(names)}" if names else "a number, for it has no named classes"
        )
        raise ValueError(f"do({variable}): expected {expected}, but got {text!r}.")
    return found


def parse_do(text: str) -> dict[str, float | Increase | Multiply | ClassName]:
    """Read ``thickness=3``, ``thickness+=1``, ``thickness*=2``, or several joined by commas.

    A class is given by its index, or by its name, as in ``sex=male``; names then have to be looked
    up by :func:`with_class_indices`.

    Raises:
        ValueError: If the text cannot be read, or names a variable twice.

    Example:
        >>> parse_do("thickness=3, intensity+=20")
        {'thickness': 3.0, 'intensity': Increase(amount=20.0)}
    """
    do: dict[str, float | Increase | Multiply | ClassName] = {}
    for part in text.split(","):
        match = _STATEMENT.fullmatch(part) or _class_statement(part)
        if match is None:
            raise ValueError(
                f"do: cannot read {part.strip()!r}; expected variable=number, variable+=number or "
                "variable*=number, several joined by commas, such as 'thickness=3,intensity+=20'; "
                "a class by its index or name, such as 'sex=1' or 'sex=male'."
            )
        name, *rest = match.groups()
        if name in do:
            raise ValueError(f"do: {name!r} is named twice in {text!r}.")
        if match.re is _CLASS:
            do[name] = ClassName(rest[0])
            continue
        operator, number = rest
        amount = float(number)
        if operator == "=":
            do[name] = amount
        elif operator == "*=":
            do[name] = Multiply(amount)
        else:
            do[name] = Increase(amount if operator == "+=" else -amount)
    return do


def _class_statement(part: str) -> re.Match[str] | None:
    match = _CLASS.fullmatch(part)
    return None if match is None or match[2].lower() in _NO_CLASSES else match


def format_do(do: Do | Mapping[str, object], units: Mapping[str, str] | None = None) -> str:
    """An intervention as it is written over a column: ``do(thickness = 3)``.

    Args:
        do: The intervention.
        units: Of the variables that have one.

    Example:
        >>> format_do(parse_do("thickness+=1"))
        'do(thickness + 1)'
        >>> format_do(parse_do("brain_volume=1.2e6, age=40"), {"age": "years"})
        'do(brain_volume = 1.2 million, age = 40 years)'
    """
    parts = [_format_one(name, value, (units or {}).get(name, "")) for name, value in do.items()]
    return f"do({', '.join(parts)})"


def _format_one(name: str, value: object, unit: str) -> str:
    if isinstance(value, Increase):
        sign = "+" if value.amount >= 0 else "−"
        return f"{name} {sign} {format_number(abs(value.amount), _DIGITS)} {unit}".rstrip()
    if isinstance(value, Multiply):
        return f"{name} × {format_number(value.factor, _DIGITS)}"
    if isinstance(value, ClassName | NamedClass):
        return f"{name} = {value.name}"
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float):
        return f"{name} = {format_number(value, _DIGITS)} {unit}".rstrip()
    return f"{name} = …"
