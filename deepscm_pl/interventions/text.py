"""Texts of interventions: reading and writing them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from deepscm_pl.checks import ASIDE, nearest
from deepscm_pl.interventions.changes import Increase, Multiply, OfFactual, Where
from deepscm_pl.interventions.draws import Draw, format_distribution
from deepscm_pl.interventions.expressions import (
    QUOTED,
    Expression,
    UnreadableError,
    class_text,
    in_millions,
    listed,
    plain_signs,
    quote_variable,
    read_expression,
    unquoted,
)
from deepscm_pl.numerals import exact_digits, format_number, shortest
from deepscm_pl.variables import Intervention, Variable

__all__ = ["check_do", "format_do", "parse_do"]

_REAL = r"[-+−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?:\s+million\b)?"
_FACTUAL = re.compile(rf"factual\s*(?:([-+*])\s*({_REAL}))?")
_NAME = rf"{QUOTED}|(?!['\"`\s])[^=~]*?"
_STATEMENT = re.compile(rf"\s*({_NAME})\s*([-+*−×]?=|~)(.*)", re.DOTALL)
_CHANGE = re.compile(rf"\s*({_NAME})\s*([-+*−×])\s*([^=~]+)", re.DOTALL)
_PIECE = re.compile(rf"(?<!\w)(?:{QUOTED})|[(),]|\bwhere\b|.", re.DOTALL)
_UNSAFE_UNIT = re.compile(r"[,'\"`=~()]|\bwhere\b|\bif\b|\bmillion\b")
_FORMS = (
    "expected variable=number, variable+=number or variable*=number, several joined by commas, "
    "such as 'thickness=3,intensity+=20'; a class by its index or name, such as 'sex=1' or "
    "'sex=male', quoted if it has commas, as in \"sex='a, b'\"; a change of the factual value, "
    "such as 'intensity=factual+20'; a function, such as 'age=0.9*age+3 if sex == male'; a draw, "
    "such as 'age~normal(40, 5)'; and at the end of all a group, such as 'where age > 60'."
)


class _Statement(NamedTuple):
    name: str
    operator: str
    operand: str


def check_do(text: str) -> None:
    """Check that :func:`parse_do` can read a text, as far as possible without the variables.

    Raises:
        ValueError: If it cannot be read, or names a variable twice.
    """
    _statements(_split(text)[0], text, None)


def parse_do(text: str, variables: Mapping[str, Variable] | None = None) -> dict[str, Intervention]:
    """Read ``thickness=3``, ``thickness+=1``, ``thickness*=2``, or several joined by commas.

    A class is given by its name, as in ``sex=male``, or by its index; see
    :meth:`Variable.class_index <deepscm_pl.variables.Variable.class_index>`. Names with commas,
    brackets or quotes are quoted: ``group='>89, frail'``. Variables whose names are no identifiers
    may be in backquotes.

    If an intervention changes several variables, ``intensity+=20`` adds to the intensity that
    follows from the other changes, and ``intensity=factual+20`` to the observed one (also
    ``factual-20``, ``factual*1.1``, and ``factual`` for no change); see :class:`OfFactual`.

    The page ``docs/interventions.md`` describes the other forms: functions
    (``age=0.9*age+3``), draws (``age~normal(40, 5)``, ``age~train``), changes of some rows
    (``volume=0.9*volume if sex == male``), and groups (``age=50 where age > 60``). The titles of
    :func:`format_do` are read, too.

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
        >>> parse_do("age ~ normal(40, 5)")
        {'age': Draw(family='normal', parameters=(40.0, 5.0))}
    """
    parts, group = _split(text)
    do: dict[str, Intervention] = {}
    for name, statement in _statements(parts, text, variables).items():
        if variables is not None and name not in variables:
            raise ValueError(_unknown_variable(name, variables))
        variable = (variables or {}).get(name, Variable(name))
        do[name] = _intervention(variable, statement, variables)
    if group is None:
        return do
    some = (variables or {}).get(next(iter(do)), Variable(next(iter(do))))
    try:
        condition = read_expression(group, some, variables, condition=True, before=True)
    except UnreadableError as error:
        raise ValueError(f"do: where: {error}; give a group such as 'where age > 60'.") from None
    return {name: Where(value, condition) for name, value in do.items()}


def _unknown_variable(name: str, variables: Mapping[str, Variable]) -> str:
    """A message that names the variable of a column, such as ``v_31`` of 31, or one like it."""
    expected = f"expected one of {', '.join(variables)}"
    return f"do: unknown variable {name!r}{_meant(name, variables)}; {expected}."


def _meant(column: str, variables: Mapping[str, Variable]) -> str:
    word = re.sub(r"\W+", "_", column).strip("_")
    exact = next((each for each in (word, f"v_{word}") if word and each in variables), None)
    return ASIDE.format(repr(exact)) if exact else nearest(column, variables, ASIDE)


def _split(text: str) -> tuple[list[str], str | None]:
    """The statements of a text, and the condition after ``where``."""
    inner = re.fullmatch(r"\s*do\((.*)\)\s*", text, re.DOTALL)
    text = inner[1] if inner else text
    parts, depth = [""], 0
    for found in _PIECE.finditer(text):
        piece = found[0]
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth == 0 and piece == ",":
            parts.append("")
        elif depth == 0 and piece == "where" and parts[-1].strip():
            return parts, text[found.end() :]
        else:
            parts[-1] += piece
    return parts, None


def _statements(
    parts: list[str], text: str, variables: Mapping[str, Variable] | None
) -> dict[str, _Statement]:
    """The operator and the operand for each variable."""
    found: dict[str, _Statement] = {}
    for part in parts:
        statement = _statement(part, variables)
        if statement is None:
            changed = _STATEMENT.fullmatch(part)
            if changed and variables and _meant(changed[1].strip(), variables):
                raise ValueError(_unknown_variable(changed[1].strip(), variables))
            raise ValueError(f"do: cannot read {part.strip()!r}; {_FORMS}")
        if statement.name in found:
            raise ValueError(f"do: {statement.name!r} is named twice in {text!r}.")
        found[statement.name] = statement
    return found


def _statement(part: str, variables: Mapping[str, Variable] | None) -> _Statement | None:
    match = _STATEMENT.fullmatch(part)
    if match is None:
        match = _CHANGE.fullmatch(part)  # as in titles: thickness + 1
    if match is None:
        return None
    name, operator, operand = match[1].strip(), plain_signs(match[2]), match[3].strip()
    plain = unquoted(name)
    # Without variables, names of several words and numerals may be those of variables.
    is_name = re.fullmatch(r"\w+( \w+)*" if variables is None else r"[^\W\d]\w*", name)
    if plain is None and name not in (variables or ()) and not is_name:
        return None
    operator += "=" if operator in ("+", "-", "*") else ""
    return _Statement(name if plain is None else plain, operator, operand) if operand else None


def _is_number(text: str) -> bool:
    return re.fullmatch(_REAL, text) is not None


def _number(text: str) -> float:
    return float(in_millions(plain_signs(text)))


def _intervention(
    variable: Variable, statement: _Statement, variables: Mapping[str, Variable] | None
) -> Intervention:
    name, operator, operand = statement
    if variable.classes and operator == "=":
        index = _class_index(variable, operand)
        if index is not None:
            return float(index)
    operand = _without_unit(operand, variable.unit)
    if operator == "=":
        simple = _simple(variable, operand)
        if simple is not None:
            return simple
    elif operator != "~" and _is_number(operand):
        number = _number(operand)
        if operator == "*=":
            return Multiply(number)
        return Increase(number if operator == "+=" else -number)
    reading = {"+=": ("+", "0.0"), "-=": ("-", "0.0"), "*=": ("*", "1.0")}.get(operator, ("", ""))
    try:
        found = read_expression(
            operand, variable, variables, draws_train=operator == "~", change=reading
        )
    except UnreadableError as error:
        raise ValueError(_refusal(variable, statement, error)) from None
    if len(found.draws) == 1 and found.text.removesuffix("()") == str(found.draws[0]):
        draw: Draw = found.draws[0]
        return draw
    if operator == "~" and not found.set_draws:
        raise ValueError(
            f"do({name}): expected a distribution after ~, such as normal(3, 0.5) or train, but "
            f"got {operand!r}; write = for a number or a function."
        )
    return found


def _class_index(variable: Variable, operand: str) -> int | None:
    if operand in variable.classes:
        return variable.classes.index(operand)
    name = unquoted(operand)
    if name is not None and operand[0] != "`":
        if name in variable.classes:
            return variable.classes.index(name)
        raise ValueError(_unknown_class(variable, name))
    if re.fullmatch(_FACTUAL, operand):
        return None
    return variable.class_index(operand)


def _simple(variable: Variable, operand: str) -> float | OfFactual | None:
    """A number or a change of the factual value; None for other expressions."""
    factual = _FACTUAL.fullmatch(plain_signs(operand))
    if factual:
        operator, number = factual.groups()
        if operator == "*":
            return OfFactual(Multiply(_number(number)))
        sign = -1.0 if operator == "-" else 1.0
        return OfFactual(Increase(sign * _number(number) if operator else 0.0))
    if not variable.classes and _is_number(operand):
        return _number(operand)
    return None


def _without_unit(operand: str, unit: str) -> str:
    """An operand as in a title, without the unit at its end."""
    unit = unit.strip()
    if unit and operand.endswith(unit) and not _is_number(operand):
        shorter = operand[: -len(unit)].rstrip()
        if _is_number(shorter) or _FACTUAL.fullmatch(plain_signs(shorter)):
            return shorter
    return operand


def _unknown_class(variable: Variable, text: str) -> str:
    return (
        f"do({variable.name}): expected one of {listed(variable)}, but got "
        f"{text!r}{nearest(text, variable.classes, ASIDE)}; quote names with commas, brackets "
        "or quotes."
    )


def _refusal(variable: Variable, statement: _Statement, error: UnreadableError) -> str:
    operand = statement.operand
    if re.fullmatch(r"[-+]?(?:nan|inf|infinity)", operand, re.IGNORECASE):
        written = f"{variable.name}{statement.operator}{operand}"
        return f"do: cannot read {written!r}; give a finite number."
    is_word = re.fullmatch(r"[^\W\d]\w*( \w+)*", operand)
    if (
        statement.operator == "="
        and variable.classes
        and (is_word or class_text(operand) == operand)
    ):
        return _unknown_class(variable, operand)
    if statement.operator == "=" and is_word:
        return (
            f"do({variable.name}): expected a number, because it has no named classes, a change "
            f"such as factual+20, or a function such as 0.9*{quote_variable(variable.name)}, but "
            f"got {operand!r}."
        )
    return (
        f"do({variable.name}): {error}; write a number, a change such as factual+20, or a "
        f"function such as 0.9*{quote_variable(variable.name)}+3; got {operand!r}."
    )


def format_do(do: Mapping[str, object], variables: Mapping[str, Variable] | None = None) -> str:
    """Format an intervention as a title: ``do(thickness = 3)``.

    :func:`parse_do` reads it back, unless it contains functions of Python, whose title is ``…``.

    Args:
        do: The intervention.
        variables: The variables of the model, for units and the names of classes.

    Example:
        >>> age = Variable("age", unit="years")
        >>> format_do(parse_do("thickness+=1, brain_volume=1.2e6, age=40"), {"age": age})
        'do(thickness + 1, brain_volume = 1.2 million, age = 40 years)'
        >>> format_do(parse_do("age~normal(40, 5) where age > 60", {"age": age}), {"age": age})
        'do(age ~ normal(40, 5) where age > 60)'
    """
    known = variables or {}
    groups = {str(each.condition) for each in do.values() if isinstance(each, Where)}
    is_common = len(groups) == 1 and all(isinstance(each, Where) for each in do.values())
    parts = []
    for name, value in do.items():
        variable = known.get(name, Variable(name))
        if is_common and isinstance(value, Where):
            value = value.value
        parts.append("".join(_format_one(variable, value)))
    return f"do({', '.join(parts)}{f' where {groups.pop()}' if is_common else ''})"


def _format_one(variable: Variable, value: Any) -> Iterator[str]:
    name = quote_variable(variable.name)
    unit = "" if _UNSAFE_UNIT.search(variable.unit) else variable.unit
    if isinstance(value, Where):
        yield from _format_one(variable, value.value)
        yield f" where {value.condition}"
    elif isinstance(value, OfFactual):
        yield f"{name} = factual"
        if value.function == Increase(0.0):
            yield " + 0" if "factual" in variable.classes else ""
        else:
            (change,) = _format_one(replace(variable, name="factual"), value.function)
            yield change.replace("`factual`", "").replace(" = …", ", …")
    elif isinstance(value, Increase):
        sign = "+" if value.amount >= 0 else "−"
        yield f"{name} {sign} {_number_text(abs(value.amount))} {unit}".rstrip()
    elif isinstance(value, Multiply):
        yield f"{name} × {_number_text(value.factor)}"
    elif isinstance(value, Expression):
        yield f"{name} = {value}"
    elif isinstance(value, Draw | Distribution):
        yield f"{name} ~ {format_distribution(value)}"
    elif isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
        yield f"{name} = {_value_text(variable, value, unit)}"
    else:
        yield f"{name} = …"


def _value_text(variable: Variable, value: float | Tensor, unit: str) -> str:
    number = float(value)
    if number in range(len(variable.classes)):
        return class_text(variable.classes[int(number)])
    return f"{_number_text(value)} {unit}".rstrip()


def _number_text(value: float | Tensor) -> str:
    """A number with all its digits, in millions where that is shorter to read."""
    text = format_number(float(value), exact_digits(value))
    return text if text.endswith("million") and "," not in text else shortest(value)
