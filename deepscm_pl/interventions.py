"""Interventions as text, as they are written on a command line and over a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from deepscm_pl.numerals import format_number
from deepscm_pl.types import Do

__all__ = ["Increase", "Multiply", "format_do", "parse_do"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_STATEMENT = re.compile(rf"\s*(\w+)\s*(=|\+=|-=|\*=)\s*({_NUMBER})\s*")

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


def parse_do(text: str) -> dict[str, float | Increase | Multiply]:
    """Read ``thickness=3``, ``thickness+=1``, ``thickness*=2``, or several joined by commas.

    Raises:
        ValueError: If the text cannot be read, or names a variable twice.

    Example:
        >>> parse_do("thickness=3, intensity+=20")
        {'thickness': 3.0, 'intensity': Increase(amount=20.0)}
    """
    do: dict[str, float | Increase | Multiply] = {}
    for part in text.split(","):
        match = _STATEMENT.fullmatch(part)
        if match is None:
            raise ValueError(
                f"do: cannot read {part.strip()!r}; expected variable=number, variable+=number or "
                "variable*=number, several joined by commas, such as 'thickness=3,intensity+=20'; "
                "a class by its index, such as 'sex=1'."
            )
        name, operator, number = match.groups()
        if name in do:
            raise ValueError(f"do: {name!r} is named twice in {text!r}.")
        amount = float(number)
        if operator == "=":
            do[name] = amount
        elif operator == "*=":
            do[name] = Multiply(amount)
        else:
            do[name] = Increase(amount if operator == "+=" else -amount)
    return do


def format_do(do: Do | Mapping[str, object]) -> str:
    """An intervention as it is written over a column: ``do(thickness = 3)``.

    Example:
        >>> format_do(parse_do("thickness+=1"))
        'do(thickness + 1)'
        >>> format_do(parse_do("brain_volume=1.2e6, ventricle_volume=40000"))
        'do(brain_volume = 1.2 million, ventricle_volume = 40,000)'
    """
    return f"do({', '.join(_format_one(name, value) for name, value in do.items())})"


def _format_one(name: str, value: object) -> str:
    if isinstance(value, Increase):
        sign = "+" if value.amount >= 0 else "−"
        return f"{name} {sign} {format_number(abs(value.amount), _DIGITS)}"
    if isinstance(value, Multiply):
        return f"{name} × {format_number(value.factor, _DIGITS)}"
    if isinstance(value, int | float):
        return f"{name} = {format_number(value, _DIGITS)}"
    if isinstance(value, Tensor) and value.numel() == 1:
        return f"{name} = {format_number(value.item(), _DIGITS)}"
    return f"{name} = …"
