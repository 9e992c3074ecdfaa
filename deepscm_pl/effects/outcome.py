"""Outcomes, conditions and groups as text: one number, or one truth value, of each unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepscm_pl.checks import ASIDE, nearest
from deepscm_pl.interventions import Expression
from deepscm_pl.interventions.expressions import (
    QUOTED,
    quote_class,
    quote_variable,
    read_expression,
    unquoted,
)
from deepscm_pl.numerals import shortest
from deepscm_pl.variables import Seen, Variable, Variables

__all__ = ["Condition", "Outcome", "check_known"]

_NAME, _SIGN = rf"(?:{QUOTED}|[^\W\d]\w*)", ">=|<=|==|!=|≥|≤|≠|=|>|<"
_COMPARISON = re.compile(rf"\s*({_NAME})\s*({_SIGN})\s*(.+?)\s*", re.DOTALL)
_QUOTED = re.compile(rf"({QUOTED})", re.DOTALL)
_PIECE = re.compile(rf"{QUOTED}|\s+and\s+|.", re.DOTALL)
_OPERATORS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "=": torch.eq,
    "≠": torch.ne,
    "≥": torch.ge,
    "≤": torch.le,
    ">": torch.gt,
    "<": torch.lt,
}
_NOTHING = Variable("the condition")
_OPPOSITES = {"=": "≠", "≠": "=", "≥": "<", "<": "≥", "≤": ">", ">": "≤"}
_SPELLINGS = {"==": "=", "!=": "≠", ">=": "≥", "<=": "≤"}


def check_known(argument: str, name: str, known: Iterable[str]) -> None:
    """Raise a ValueError, with the nearest name, unless ``name`` is known."""
    names = list(known)
    if name not in names:
        raise ValueError(
            f"{argument}: expected one of {', '.join(names)}, but got {name!r}"
            f"{nearest(name, names, ASIDE)}."
        )


class _NoComparisonError(ValueError):
    """A text that is no comparison of a variable with a number or a class."""


@dataclass(frozen=True)
class _Comparison:
    """One comparison of a variable with a number or the index of a class."""

    variable: Variable
    operator: str
    value: float

    def __call__(self, values: Variables) -> Tensor:
        found = values[self.variable.name].flatten(1)[:, 0]
        return _OPERATORS[self.operator](found, self.value)

    def opposite(self) -> _Comparison:
        """The comparison that is true where this one is false."""
        if self.variable.domain.categories == 2 and self.operator in "=≠":
            return replace(self, value=1 - self.value)
        return replace(self, operator=_OPPOSITES[self.operator])

    def __str__(self) -> str:
        name, operator, value = self.variable.name, self.operator, shortest(self.value)
        if self.value in range(len(self.variable.classes)):
            value = self.variable.classes[int(self.value)]
            if not re.fullmatch(r"\w+", value):
                value = quote_class(value)
        return f"{quote_variable(name)} {operator} {value}"


@dataclass(frozen=True)
class Condition:
    """A condition on the values of a unit: comparisons that are joined by "and", or an expression.

    Example:
        >>> variables = {"sex": Variable("sex", classes=("female", "male")), "age": Variable("age")}
        >>> condition = Condition.parse("age >= 60 and sex = male", variables)
        >>> str(condition)
        'age ≥ 60 and sex = male'
        >>> values = {"age": torch.tensor([[70.0], [50.0]]), "sex": torch.tensor([[1.0], [1.0]])}
        >>> condition(values)
        tensor([ True, False])
    """

    comparisons: tuple[_Comparison, ...] = ()
    expression: Expression | None = None
    is_negated: bool = False

    @classmethod
    def parse(
        cls, text: str, variables: Mapping[str, Variable], argument: str = "condition"
    ) -> Condition:
        """Read such as ``sex = male``, ``age > 60 and age <= 70`` or ``sex == male or age > 60``.

        Other conditions than comparisons joined by "and" are those after ``where`` in the grammar
        of interventions (:func:`~deepscm_pl.interventions.parse_do`).

        Args:
            text: The condition; classes may be in quotes, and variables in backquotes.
            variables: The variables of the model.
            argument: The setting, for messages.

        Raises:
            ValueError: If it cannot be read, names an unknown variable or class, or can never be
                false or never true.
        """
        try:
            return cls(tuple(_compared(each, variables, argument) for each in _joined_by_and(text)))
        except _NoComparisonError:
            parts = _QUOTED.split(text)
            single = re.compile(r"(?<![=!<>])=(?!=)")
            doubled = "".join(p if k % 2 else single.sub("==", p) for k, p in enumerate(parts))
            try:
                found = read_expression(doubled, _NOTHING, variables, condition=True, before=True)
            except ValueError:
                found = None
            if found is None or not found.before:
                raise
        return cls(expression=found)

    def negated(self) -> Condition:
        """The opposite condition; that of one comparison is a comparison, too."""
        if len(self.comparisons) == 1 and not self.is_negated:
            return Condition((self.comparisons[0].opposite(),))
        return replace(self, is_negated=not self.is_negated)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its variables."""
        if self.expression is not None:
            return self.expression.before
        return tuple(each.variable.name for each in self.comparisons)

    def __call__(self, values: Variables) -> Tensor:
        """Whether each unit fulfils it, ``(U,)``."""
        if self.expression is not None:
            count = len(values[self.names[0]])
            truth = self.expression.apply(torch.zeros(count, 1), Seen(before=values))
            found = truth.expand(count, 1)[:, 0].bool()
        else:
            found = torch.stack([each(values) for each in self.comparisons]).all(dim=0)
        return ~found if self.is_negated else found

    def __str__(self) -> str:
        text = str(self.expression or " and ".join(map(str, self.comparisons)))
        return f"not ({text})" if self.is_negated else text


def _joined_by_and(text: str) -> list[str]:
    """The parts of a text between "and" outside of quotes."""
    parts = [""]
    for piece in _PIECE.findall(text):
        if piece.strip() == "and" and piece != "and":
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _compared(text: str, variables: Mapping[str, Variable], argument: str) -> _Comparison:
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise _NoComparisonError(
            f"{argument}: expected a comparison such as 'sex=male' or 'age >= 60', several joined "
            f"by 'and', but got {text!r}."
        )
    name, operator = unquoted(match[1]) or match[1], _SPELLINGS.get(match[2], match[2])
    check_known(argument, name, variables)
    variable, operand = variables[name], unquoted(match[3]) or match[3]
    if variable.domain.shape != (1,):
        raise ValueError(f"{argument}: expected a number or a class, but {name} is an image.")
    return _Comparison(variable, operator, _operand(variable, operator, operand, argument))


def _operand(variable: Variable, operator: str, operand: str, argument: str) -> float:
    domain = variable.domain
    if variable.classes:
        index = variable.class_index(operand)
        if index is None:
            raise _NoComparisonError(
                f"{argument}: {variable.name}: expected one of {', '.join(variable.classes)}, but "
                f"got {operand!r}."
            )
        return float(index)
    try:
        number = float(operand)
    except ValueError:
        raise _NoComparisonError(
            f"{argument}: {variable.name}: expected a number, but got {operand!r}."
        ) from None
    if domain.categories is not None:
        if number not in range(domain.categories):
            raise ValueError(f"{argument}: {variable.name}: expected {domain}, but got {operand}.")
        return number
    # At a bound, a comparison can still be true of one side.
    if not domain.lower <= number <= domain.upper or number != number:
        raise ValueError(
            f"{argument}: {variable.name}: expected a number within its domain, {domain}, but got "
            f"{operand}, which every value or none fulfils."
        )
    return number


@dataclass(frozen=True)
class Outcome:
    """One number of each unit: a variable, the truth of a condition, or a measurement of an image.

    Attributes:
        name: The variable or the condition.
        names: The variables that it is computed from.
        measure: From the values ``(U, *event)`` of each of them to ``(U,)``.
        label: Its name in words.
        unit: Its unit; empty for a probability.
        condition: The condition, if it is one.

    Example:
        >>> age = Variable("age", unit="years")
        >>> Outcome.of("age", {"age": age}).heading
        'age (years)'
        >>> Outcome.of("age > 60", {"age": age}).heading
        'probability of age > 60'
    """

    name: str
    names: tuple[str, ...]
    measure: Callable[[Variables], Tensor]
    label: str
    unit: str = ""
    condition: Condition | None = None

    @classmethod
    def of(cls, outcome: str | Outcome, variables: Mapping[str, Variable]) -> Outcome:
        """Read an outcome: a number, an image (its mean grey level), or a condition.

        Of a variable with two classes, it is the probability of the second one.

        Raises:
            ValueError: If a variable or a class is unknown, a number is outside of the domain, or a
                variable has more than two classes and none is named.
        """
        if isinstance(outcome, Outcome):
            for name in outcome.names:
                check_known("outcome", name, variables)
            return outcome
        name = unquoted(outcome.strip()) or outcome.strip()
        if name not in variables:
            if re.fullmatch(r"\w+", name):
                check_known("outcome", name, variables)
            return cls.true(Condition.parse(outcome, variables, "outcome"))
        variable = variables[name]
        if variable.domain.shape != (1,):
            return cls(name, (name,), _mean_of(name), f"mean of {variable.spoken}", "grey levels")
        count = variable.domain.categories or len(variable.classes)
        if not count:
            return cls(name, (name,), _number_of(name), variable.spoken, variable.unit)
        if count != 2:
            some = (variable.classes or ("1",))[-1]
            raise ValueError(
                f"outcome: {name} has {count} classes; name one, such as '{name}={some}'."
            )
        return cls.true(Condition((_Comparison(variable, "=", 1.0),)))

    @classmethod
    def true(cls, condition: Condition) -> Outcome:
        """The truth of a condition, 0 or 1, whose mean is its probability."""
        return cls(
            str(condition),
            condition.names,
            lambda values: condition(values).double(),
            f"probability of {condition}",
            condition=condition,
        )

    @property
    def heading(self) -> str:
        """The label with the unit, as along an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def __call__(self, values: Variables) -> Tensor:
        """The outcome of each unit, ``(U,)`` in double precision."""
        return self.measure(values).double()


def _number_of(name: str) -> Callable[[Variables], Tensor]:
    return lambda values: values[name][:, 0]


def _mean_of(name: str) -> Callable[[Variables], Tensor]:
    return lambda values: values[name].double().flatten(1).mean(dim=1)
