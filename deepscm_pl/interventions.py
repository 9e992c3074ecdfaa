"""Interventions as text, for the command line and the titles of pictures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Variable

__all__ = ["Increase", "Multiply", "OfFactual", "check_do", "format_do", "parse_do"]

_REAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_STATEMENT = re.compile(rf"\s*(\w+)\s*(=|\+=|-=|\*=)\s*({_REAL})\s*")
_FACTUAL = re.compile(rf"factual\s*(?:([-+*])\s*({_REAL}))?")
_FACTUAL_STATEMENT = re.compile(rf"\s*(\w+)\s*(=)\s*({_FACTUAL.pattern})\s*")
_CLASS_STATEMENT = re.compile(
    r"\s*(\w+)\s*(=)\s*(?!(?i:nan|inf|infinity)\s*$)([^\W\d](?:[^,=]*[^,=\s])?)\s*"
)

_TITLE_DIGITS = 6
"""Significant digits of a number in a title."""


@dataclass(frozen=True)
class Increase:
    """The function x ↦ x + amount."""

    amount: float

    def __call__(self, value: Tensor) -> Tensor:
        """Return the increased value."""
        return value + self.amount


@dataclass(frozen=True)
class Multiply:
    """The function x ↦ x · factor."""

    factor: float

    def __call__(self, value: Tensor) -> Tensor:
        """Return the multiplied value."""
        return value * self.factor


@dataclass(frozen=True)
class OfFactual:
    """The function h of the *factual* value of a variable, in counterfactuals only.

    Under several interventions, a plain function h applies to the value that the variable takes
    under the others: with ``{"thickness": 4.0, "intensity": h}``, to the intensity that follows
    from a thickness of 4. ``OfFactual(h)`` applies h to the observed intensity. Both agree if no
    ancestor of the variable is intervened on.

    Args:
        function: h, from a tensor to a tensor of the same shape.

    Example:
        >>> parse_do("thickness=4, intensity=factual+20")["intensity"]
        OfFactual(function=Increase(amount=20.0))
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, value: Tensor) -> Tensor:
        """Return h of the factual value."""
        return self.function(value)


def check_do(text: str) -> None:
    """Check that :func:`parse_do` can read a text, as far as possible without the variables.

    Raises:
        ValueError: If it cannot be read, or names a variable twice.
    """
    _statements(text)


def parse_do(
    text: str, variables: Mapping[str, Variable] | None = None
) -> dict[str, float | Increase | Multiply | OfFactual]:
    """Read ``thickness=3``, ``thickness+=1``, ``thickness*=2``, or several joined by commas.

    A class is given by its name, as in ``sex=male``, or by its index; see
    :meth:`Variable.class_index <deepscm_pl.variables.Variable.class_index>`.

    If an intervention changes several variables, ``intensity+=20`` adds to the intensity that
    follows from the other changes, and ``intensity=factual+20`` to the observed one (also
    ``factual-20``, ``factual*1.1``, and ``factual`` for no change); see :class:`OfFactual`.

    Args:
        text: The intervention.
        variables: The variables of the model; None to accept any variable, with numbers only.

    Raises:
        ValueError: If the text cannot be read, or names a variable twice, an unknown variable, or a
            class that its variable does not have.

    Example:
        >>> parse_do("thickness=3, intensity+=20")
        {'thickness': 3.0, 'intensity': Increase(amount=20.0)}
        >>> parse_do("sex=male", {"sex": Variable("sex", classes=("female", "male"))})
        {'sex': 1.0}
    """
    do: dict[str, float | Increase | Multiply | OfFactual] = {}
    for name, (operator, operand) in _statements(text).items():
        if variables is not None and name not in variables:
            near = difflib.get_close_matches(name, list(variables), n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"do: unknown variable {name!r}{meant}; expected one of {', '.join(variables)}."
            )
        if operator == "=":
            do[name] = _assigned((variables or {}).get(name, Variable(name)), operand)
        elif operator == "*=":
            do[name] = Multiply(float(operand))
        else:
            do[name] = Increase(float(operand) if operator == "+=" else -float(operand))
    return do


def _statements(text: str) -> dict[str, tuple[str, str]]:
    """The operator and the operand for each variable; the operand of ``=`` may name a class."""
    found: dict[str, tuple[str, str]] = {}
    for part in text.split(","):
        match = (
            _STATEMENT.fullmatch(part)
            or _FACTUAL_STATEMENT.fullmatch(part)
            or _CLASS_STATEMENT.fullmatch(part)
        )
        if match is None:
            raise ValueError(
                f"do: cannot read {part.strip()!r}; expected variable=number, variable+=number or "
                "variable*=number, several joined by commas, such as 'thickness=3,intensity+=20'; "
                "a change of the factual value, such as 'intensity=factual+20'; a class by its "
                "index or name, such as 'sex=1' or 'sex=male'."
            )
        name, operator, operand = match.groups()[:3]
        if name in found:
            raise ValueError(f"do: {name!r} is named twice in {text!r}.")
        found[name] = operator, operand
    return found


def _assigned(variable: Variable, operand: str) -> float | OfFactual:
    """The assigned number, the index of the assigned class, or a function of the factual value."""
    factual = _FACTUAL.fullmatch(operand)
    if factual and operand not in variable.classes:
        operator, number = factual.groups()
        if operator == "*":
            return OfFactual(Multiply(float(number)))
        return OfFactual(Increase(float(f"{operator}1") * float(number) if operator else 0.0))
    if variable.classes:
        index = variable.class_index(operand)
        if index is not None:
            return float(index)
        expected = f"one of {', '.join(variable.classes)}"
    else:
        if re.fullmatch(_REAL, operand):
            return float(operand)
        expected = "a number, because it has no named classes, or a change such as factual+20"
    raise ValueError(f"do({variable.name}): expected {expected}, but got {operand!r}.")


def format_do(do: Mapping[str, object], variables: Mapping[str, Variable] | None = None) -> str:
    """Format an intervention as a title: ``do(thickness = 3)``.

    Args:
        do: The intervention.
        variables: The variables of the model, for units and the names of classes.

    Example:
        >>> age = Variable("age", unit="years")
        >>> format_do(parse_do("thickness+=1, brain_volume=1.2e6, age=40"), {"age": age})
        'do(thickness + 1, brain_volume = 1.2 million, age = 40 years)'
    """
    known = variables or {}
    parts = [_format_one(known.get(name, Variable(name)), value) for name, value in do.items()]
    return f"do({', '.join(parts)})"


def _format_one(variable: Variable, value: object) -> str:
    name = variable.name
    if isinstance(value, OfFactual):
        change = _format_one(Variable("factual", unit=variable.unit), value.function)
        is_same = value.function == Increase(0.0)
        return f"{name} = {'factual' if is_same else change.replace('factual =', 'factual,')}"
    if isinstance(value, Increase):
        sign = "+" if value.amount >= 0 else "−"
        amount = format_number(abs(value.amount), _TITLE_DIGITS)
        return f"{name} {sign} {amount} {variable.unit}".rstrip()
    if isinstance(value, Multiply):
        return f"{name} × {format_number(value.factor, _TITLE_DIGITS)}"
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float):
        return f"{name} = {variable.format(value, _TITLE_DIGITS)}"
    return f"{name} = …"
