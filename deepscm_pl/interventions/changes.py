"""The kinds of interventions on a variable, and their common form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from deepscm_pl.interventions.draws import Draw
from deepscm_pl.variables import Change, Seen

__all__ = [
    "Conditional",
    "Increase",
    "Multiply",
    "OfFactual",
    "Where",
    "as_change",
    "is_constant",
    "is_set_anew",
    "read_variables",
]


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
        >>> from deepscm_pl import parse_do
        >>> parse_do("thickness=4, intensity=factual+20")["intensity"]
        OfFactual(function=Increase(amount=20.0))
    """

    function: Callable[[Tensor], Tensor]

    def __call__(self, value: Tensor) -> Tensor:
        """Return h of the factual value."""
        return self.function(value)


@dataclass(frozen=True)
class Conditional(Change):
    """A function of the value of a variable and of the values of others.

    The others have the values that they take under the other changes of the same intervention: in
    a counterfactual the factual ones where no change reaches them. They must not be effects of
    the variable.

    Args:
        function: From the value ``(*batch, *event)``, and the values ``(*batch, 1)`` of the
            variables in ``reads`` by name, to the new value.
        reads: The names of the other scalar variables that the function reads.

    Example:
        >>> import torch
        >>> from deepscm_pl import AffineFlow, Bernoulli, StructuralCausalModel
        >>> scm = StructuralCausalModel("sex; volume", {"sex": Bernoulli, "volume": AffineFlow})
        >>> smaller = Conditional(
        ...     lambda volume, others: torch.where(others["sex"] == 1, 0.9 * volume, volume),
        ...     reads=("sex",),
        ... )
        >>> factual = {"sex": torch.tensor([[0.0], [1.0]]), "volume": torch.ones(2, 1)}
        >>> scm.counterfactual(factual, {"volume": smaller})["volume"].flatten().tolist()
        [1.0, 0.8999999761581421]
    """

    function: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.reads, str):
            raise ValueError(
                f"reads: expected names, but got the text {self.reads!r}; write a tuple."
            )
        object.__setattr__(self, "reads", tuple(self.reads))

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        """Return the value of the function."""
        found: Tensor = self.function(value, {name: seen.values[name] for name in self.reads})
        return found


@dataclass(frozen=True)
class Where(Change):
    """A change of the rows of a group; all other rows keep their values.

    The condition reads the values *before* the intervention: the factual ones in a counterfactual;
    in a draw, those that the same noise gives without the intervention.

    Args:
        value: The intervention in the group: a number, a function or any other kind.
        condition: A change, such as :class:`Expression`, whose values are true in the group; it may
            read only values before the intervention.

    Example:
        >>> from deepscm_pl import Variable, parse_do
        >>> parse_do("age=50 where age > 60", {"age": Variable("age")})["age"].value
        50.0
    """

    value: Any
    condition: Change

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other variables that the change reads."""
        return as_change(self.value).reads

    @property
    def factual(self) -> tuple[str, ...]:  # type: ignore[override]
        """The variables whose factual values the change reads."""
        return as_change(self.value).factual

    @property
    def before(self) -> tuple[str, ...]:  # type: ignore[override]
        """The variables that determine the group."""
        return self.condition.before

    @property
    def draws(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The distributions that the change draws from."""
        return as_change(self.value).draws

    def with_draws(self, draws: Sequence[Any]) -> Where:
        """Replace the distributions."""
        return replace(self, value=as_change(self.value).with_draws(draws))

    def group(self, before: Mapping[str, Tensor]) -> Tensor:
        """Return whether each row belongs to the group, ``(*batch, 1)``."""
        some = before[self.before[0]] if self.before else torch.zeros(1)
        return self.condition.apply(some, Seen(before=before)).bool()

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        """Return the new value in the group, and ``value`` elsewhere."""
        found = as_change(self.value).apply(value, seen)
        inside = self.condition.apply(value, seen).bool()
        return torch.where(inside, found.to(value.dtype), value)


@dataclass(frozen=True)
class _Fixed(Change):
    """A number or a tensor."""

    value: float | Tensor
    uses_value = False

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        return torch.as_tensor(self.value, dtype=value.dtype, device=value.device)


@dataclass(frozen=True)
class _Drawn(Change):
    """A draw of a distribution."""

    draws: tuple[Any, ...]
    uses_value = False

    def with_draws(self, draws: Sequence[Any]) -> _Drawn:
        return _Drawn(tuple(draws))

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        return seen.draws[0]


@dataclass(frozen=True)
class _Function(Change):
    """A function of the value, or of the factual value of the variable itself."""

    function: Callable[[Tensor], Tensor]

    @property
    def factual(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("",) if isinstance(self.function, OfFactual) else ()

    @property
    def uses_value(self) -> bool:  # type: ignore[override]
        return not isinstance(self.function, OfFactual)

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        of = seen.before[""] if isinstance(self.function, OfFactual) else value
        return torch.as_tensor(self.function(of.clone()), dtype=of.dtype, device=of.device)


def as_change(intervention: Any) -> Change:
    """Return any kind of intervention as a :class:`~deepscm_pl.variables.Change`.

    Example:
        >>> import torch
        >>> as_change(Increase(1.0)).apply(torch.tensor([2.0]), Seen())
        tensor([3.])
    """
    if isinstance(intervention, Change):
        return intervention
    if isinstance(intervention, Draw | Distribution):
        return _Drawn((intervention,))
    return _Function(intervention) if callable(intervention) else _Fixed(intervention)


def is_constant(intervention: Any) -> bool:
    """Whether an intervention sets a variable to a given number or tensor.

    Example:
        >>> is_constant(3.0), is_constant(Increase(1.0)), is_constant(Draw("train"))
        (True, False, False)
    """
    return not isinstance(intervention, Change | Draw | Distribution) and not callable(intervention)


def is_set_anew(intervention: Any) -> bool:
    """Whether an intervention replaces a value by one that does not depend on it.

    Example:
        >>> is_set_anew(3.0), is_set_anew(Draw("train")), is_set_anew(Increase(1.0))
        (True, True, False)
    """
    return is_constant(intervention) or isinstance(intervention, Draw | Distribution)


def read_variables(do: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the variables that an intervention reads or changes, without repetitions.

    Example:
        >>> read_variables({"volume": Conditional(lambda volume, others: volume, reads=("sex",))})
        ('volume', 'sex')
    """
    names = dict.fromkeys(do)
    for intervention in do.values():
        change = as_change(intervention)
        names |= dict.fromkeys((*change.reads, *change.factual, *change.before))
    return tuple(name for name in names if name)
