"""Interventions as text, as they are written on a command line and over a picture."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Variable

__all__ = ["Increase", "Multiply", "check_do", "format_do", "parse_do"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_IS_NUMBER = re.compile(_NUMBER)
_STATEMENT = re.compile(
    rf"\s*(?P<variable>\w+)\s*(?P<operator>=|\+=|-=|\*=)\s*(?P<operand>{_NUMBER})\s*"
)
_CLASS = re.compile(
    r"\s*(?P<variable>\w+)\s*(?P<operator>=)\s*(?P<operand>[^\W\d](?:[^,=]*[^,=\s])?)\s*"
)
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
class _Statement:
    """``variable operator operand``; the operand of ``=`` may name a class."""

    variable: str
    operator: str
    operand: str


def check_do(text: str) -> None:
    """Raise unless :func:`parse_do` can read a text, as far as can be known without variables.

    Raises:
        ValueError: If it cannot be read, or names a variable twice.
    """
    _statements(text)


def parse_do(
    text: str, variables: Mapping[str, Variable] | None = None
) -> dict[str, float | Increase | Multiply]:
    """Read ``thickness=3``, ``thickness+=1``, ``thickness*=2``, or several joined by commas.

    A class is given by its name, as in ``sex=male``, or by its index; where the names are numbers,
    as in a table with 1 and 2 for the sexes, a number is a name.

    Args:
        text: The intervention.
        variables: Of the model, as :attr:`StructuralCausalModel.variables
            <deepscm_pl.scm.StructuralCausalModel.variables>`. None to accept any variable, with
            numbers only.

    Raises:
        ValueError: If the text cannot be read, names a variable twice or one that is unknown, or a
            class that its variable does not have.

    Example:
        >>> parse_do("thickness=3, intensity+=20")
        {'thickness': 3.0, 'intensity': Increase(amount=20.0)}
        >>> parse_do("sex=male", {"sex": Variable("sex", classes=("female", "male"))})
        {'sex': 1.0}
    """
    do: dict[str, float | Increase | Multiply] = {}
    for each in _statements(text):
        if variables is not None and each.variable not in variables:
            raise ValueError(_unknown(each.variable, variables))
        do[each.variable] = _value(each, (variables or {}).get(each.variable))
    return do


def _statements(text: str) -> list[_Statement]:
    found: dict[str, _Statement] = {}
    for part in text.split(","):
        match = _STATEMENT.fullmatch(part) or _class_statement(part)
        if match is None:
            raise ValueError(
                f"do: cannot read {part.strip()!r}; expected variable=number, variable+=number or "
                "variable*=number, several joined by commas, such as 'thickness=3,intensity+=20'; "
                "a class by its index or name, such as 'sex=1' or 'sex=male'."
            )
        name = match["variable"]
        if name in found:
            raise ValueError(f"do: {name!r} is named twice in {text!r}.")
        found[name] = _Statement(name, match["operator"], match["operand"])
    return list(found.values())


def _class_statement(part: str) -> re.Match[str] | None:
    match = _CLASS.fullmatch(part)
    return None if match is None or match["operand"].lower() in _NO_CLASSES else match


def _unknown(name: str, variables: Mapping[str, Variable]) -> str:
    near = difflib.get_close_matches(name, list(variables), n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"do: unknown variable {name!r}{meant}; expected one of {', '.join(variables)}."


def _value(statement: _Statement, variable: Variable | None) -> float | Increase | Multiply:
    if statement.operator == "=":
        return _assigned(statement, variable)
    amount = float(statement.operand)
    if statement.operator == "*=":
        return Multiply(amount)
    return Increase(amount if statement.operator == "+=" else -amount)


def _assigned(statement: _Statement, variable: Variable | None) -> float:
    """A number, or the index of a class."""
    if variable is not None and variable.classes:
        index = variable.class_index(statement.operand)
        if index is not None:
            return float(index)
        expected = f"one of {', '.join(variable.classes)}"
    else:
        if _IS_NUMBER.fullmatch(statement.operand):
            return float(statement.operand)
        expected = "a number, for it has no named classes"
    raise ValueError(
        f"do({statement.variable}): expected {expected}, but got {statement.operand!r}."
    )


def format_do(do: Mapping[str, object], variables: Mapping[str, Variable] | None = None) -> str:
    """An intervention as it is written over a column: ``do(thickness = 3)``.

    Args:
        do: The intervention.
        variables: Of the model, for units and the names of classes. None for numbers alone.

    Example:
        >>> format_do(parse_do("thickness+=1"))
        'do(thickness + 1)'
        >>> age = Variable("age", unit="years")
        >>> format_do(parse_do("brain_volume=1.2e6, age=40"), {"age": age})
        'do(brain_volume = 1.2 million, age = 40 years)'
    """
    known = variables or {}
    parts = [_format_one(known.get(name, Variable(name)), value) for name, value in do.items()]
    return f"do({', '.join(parts)})"


def _format_one(variable: Variable, value: object) -> str:
    name = variable.name
    if isinstance(value, Increase):
        sign = "+" if value.amount >= 0 else "−"
        amount = format_number(abs(value.amount), _DIGITS)
        return f"{name} {sign} {amount} {variable.unit}".rstrip()
    if isinstance(value, Multiply):
        return f"{name} × {format_number(value.factor, _DIGITS)}"
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float):
        return f"{name} = {variable.format(value, _DIGITS)}"
    return f"{name} = …"
