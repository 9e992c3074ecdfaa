"""Variables and their values: names, shapes, domains, units, classes, noise and interventions.

Values are passed between modules as a mapping from the name of a variable to a tensor.
Leading dimensions are batch dimensions, and they broadcast; the trailing ones are the *event*, the
shape of one value of the variable:

=============  =======================  ==================================
variable       shape                    values
=============  =======================  ==================================
scalar         ``(*batch, 1)``          its own units (years, mm³, pixels)
category       ``(*batch, 1)``          index of the class
image          ``(*batch, C, H, W)``    grey levels, 0 to 255
volume         ``(*batch, C, X, Y, Z)``  grey levels, 0 to 255
=============  =======================  ==================================

Particles (draws of the exogenous noise of one observation) are a leading batch dimension.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from deepscm_pl.numerals import format_number

__all__ = [
    "Change",
    "Do",
    "Domain",
    "Intervention",
    "Noise",
    "Seen",
    "Stochastic",
    "Variable",
    "Variables",
    "common_shape",
]

Variables: TypeAlias = Mapping[str, Tensor]
"""Name of a variable -> values, ``(*batch, *event)``."""

Noise: TypeAlias = Mapping[str, Tensor]
"""The exogenous noise of one variable: ``{"u"}`` for a flow, ``{"z", "u"}`` for a VAE."""


@dataclass(frozen=True)
class Seen:
    """The values that a :class:`Change` may read in addition to that of its variable.

    Attributes:
        values: Other variables under the other changes of the same intervention, by name.
        before: Variables before the intervention, by name; the changed one itself as ``""``.
        draws: A draw from each distribution of the change.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    before: Mapping[str, Tensor] = field(default_factory=dict)
    draws: Sequence[Tensor] = ()


class Stochastic:
    """A distribution of a family by name, of which a model makes one to draw from."""


class Change(ABC):
    """A new value of a variable, computed from its value, from others and from draws.

    Attributes:
        reads: Other variables whose values under the other changes it reads.
        factual: Variables whose factual values it reads, ``""`` for its own; counterfactuals only.
        before: Variables whose values before the intervention it reads, ``""`` for its own.
        draws: Distributions that it draws from, independently of everything else.
        uses_value: Whether it depends on the value of the variable under the other changes.
    """

    reads: tuple[str, ...] = ()
    factual: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    draws: tuple[Any, ...] = ()
    uses_value: bool = True

    @abstractmethod
    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        """Return the new value ``(*batch, *event)`` from that under the other changes."""

    def with_draws(self, draws: Sequence[Any]) -> Change:
        """Replace the distributions by others, as many."""
        return self


Intervention: TypeAlias = (
    float | Tensor | Callable[[Tensor], Tensor] | Distribution | Stochastic | Change
)
"""A replacement of a value: a number, a tensor, a function of the value that it replaces, a
distribution to draw from, or a :class:`Change`."""

Do: TypeAlias = Mapping[str, Intervention]
"""Name of a variable -> intervention, as in do(thickness = 3)."""


_TEXT_LIMIT = 1000
"""Largest number of characters of a unit or of the name of a class in a file."""


@dataclass(frozen=True)
class Domain:
    """The domain of a variable: the shape of one value and the possible values.

    Args:
        shape: The event shape, ``(1,)`` for a scalar, ``(C, H, W)`` for an image.
        lower: Smallest possible value.
        upper: Largest possible value.
        open: Whether the bounds themselves are excluded.
        whole: Whether only whole numbers are possible, such as grey levels.
        step: The values are multiples of it; None for none.
        categories: Number of classes of a categorical variable, whose values are 0, 1, ...

    Example:
        >>> Domain(lower=0.0, open=True).check("thickness", torch.tensor([[2.5], [3.0]]))
        >>> Domain(lower=0.0, open=True).check("thickness", torch.tensor([[-1.0]]))
        Traceback (most recent call last):
            ...
        ValueError: thickness: expected values in (0, inf), but got -1; give a value inside.
    """

    shape: tuple[int, ...] = (1,)
    lower: float = -math.inf
    upper: float = math.inf
    open: bool = False
    whole: bool = False
    categories: int | None = None
    step: float | None = None

    @property
    def features(self) -> int:
        """Number of features of an encoded value: one per number of the event, or per category."""
        return self.categories if self.categories is not None else math.prod(self.shape)

    def batch_shape(self, value: Tensor) -> torch.Size:
        """The batch dimensions of ``value``: its shape without the event."""
        return value.shape[: value.dim() - len(self.shape)]

    def check(self, name: str, value: Tensor, is_complete: bool = True) -> None:
        """Check that ``value`` is a batch of possible values of the variable ``name``.

        Args:
            name: The variable.
            value: ``(*batch, *event)``.
            is_complete: Whether NaN, a missing value, is refused; in images it always is.

        Raises:
            ValueError: If the trailing shape is not the event shape, or a value is NaN, outside the
                bounds, or not a class index.
        """
        if tuple(value.shape[max(value.dim() - len(self.shape), 0) :]) != self.shape:
            raise ValueError(
                f"{name}: expected a tensor of shape (*batch, {', '.join(map(str, self.shape))}), "
                f"but got {tuple(value.shape)}; reshape it."
            )
        if self._contains_type(value.dtype):
            return
        if value.is_floating_point() and bool(value.isnan().any()):
            if is_complete or self.shape != (1,):
                raise ValueError(
                    f"{name}: expected numbers, but got NaN; remove the missing values."
                )
            value = value[~value.isnan()]
        outside = value[~self.contains(value)]
        if outside.numel():
            raise ValueError(
                f"{name}: expected {self}, but got {outside.flatten()[0].item():g}; "
                f"{self._advice(value)}."
            )

    def _advice(self, value: Tensor) -> str:
        """How to mend ``value``, some of which is outside."""
        is_image = self.whole and len(self.shape) > 1
        if is_image and bool((value >= 0).all()) and bool((value <= 1).all()):
            return f"multiply images in [0, 1] by {self.upper:g} and round them"
        return "give a value inside"

    def _contains_type(self, dtype: torch.dtype) -> bool:
        """Whether every number of an integer type is possible, so that values need no check."""
        is_integer = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
        if not is_integer or self.categories is not None:
            return False
        least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        if self.open:
            return self.lower < least and most < self.upper
        return self.lower <= least and most <= self.upper

    def contains(self, value: Tensor) -> Tensor:
        """Whether each number of ``value`` is possible; NaN is not."""
        if self.categories is not None:
            return (value >= 0) & (value < self.categories) & (value == value.floor())
        inside = value.abs() != math.inf
        if self.whole:
            inside = inside & (value == value.floor())
        if self.step is not None:
            steps = value / self.step
            # Multiples of 0.1 have no exact binary representation.
            inside = inside & ((steps - steps.round()).abs() <= 1e-3)
        if self.open:
            return inside & (value > self.lower) & (value < self.upper)
        return inside & (value >= self.lower) & (value <= self.upper)

    def moved_inside(self, value: Tensor) -> Tensor:
        """Return ``value`` with numbers that rounding put on an open bound, or beyond, just inside.

        Finite numbers beyond a bound are moved, too; infinity and NaN stay.

        Example:
            >>> Domain(lower=0.0, open=True).moved_inside(torch.tensor([0.0, 1.0, torch.inf]))
            tensor([1.1755e-38, 1.0000e+00,        inf])
        """
        if not self.open or not value.is_floating_point():
            return value
        # In single precision, in which tables are written.
        least, most = _next_to(self.lower, math.inf), _next_to(self.upper, -math.inf)
        return torch.where(value.isfinite(), value.clamp(least, most), value)

    def __str__(self) -> str:
        if self.categories is not None:
            return f"a class index from 0 to {self.categories - 1}"
        left = "(" if self.open or self.lower == -math.inf else "["
        right = ")" if self.open or self.upper == math.inf else "]"
        kind = "whole numbers" if self.whole else "values"
        if self.step is not None:
            kind = f"multiples of {self.step:g}"
        return f"{kind} in {left}{self.lower:g}, {self.upper:g}{right}"


def common_shape(*shapes: Sequence[int]) -> torch.Size:
    """Return the shape to which tensors of several shapes are broadcast.

    ``torch.broadcast_shapes`` does the same, but imports a computer algebra system.

    Raises:
        ValueError: If they do not broadcast.

    Example:
        >>> common_shape((3, 1), (2,), ())
        torch.Size([3, 2])
    """
    return torch.Size(np.broadcast_shapes(*map(tuple, shapes)))


def _next_to(bound: float, direction: float) -> float:
    """The next number of single precision; beside zero the smallest normal one."""
    if math.isinf(bound):
        return bound
    found = float(np.nextafter(np.float32(bound), np.float32(direction)))
    tiny = float(np.finfo(np.float32).tiny)
    return found if abs(found) >= tiny else math.copysign(tiny, direction)


@dataclass(frozen=True)
class Variable:
    """A variable of a causal model: its name, domain, unit and the names of its classes.

    Texts may come from files: escape them (:mod:`deepscm_pl.escaping`) where they are shown.

    Args:
        name: The name in the graph.
        domain: The shape and the possible values.
        unit: The unit of measurement, such as ``mm³``; empty where there is none.
        classes: The names in the data of the class indices 0, 1, ... of a categorical variable;
            empty where they have none.

    Example:
        >>> sex = Variable("sex", Domain(categories=2), classes=("female", "male"))
        >>> sex.class_index("male"), sex.format(0.0)
        (1, 'female')
        >>> Variable("heart_volume", unit="ml").label
        'heart volume (ml)'
    """

    name: str
    domain: Domain = Domain()
    unit: str = ""
    classes: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str, described: Mapping[str, Any]) -> Variable:
        """Create a variable from plain data as :meth:`describe` returns it.

        Raises:
            TypeError: If an entry is of another type.
            ValueError: If a text is longer than any unit or name.
        """
        unit, classes = described.get("unit") or "", tuple(described.get("classes") or ())
        for text in (unit, *classes):
            if not isinstance(text, str):
                raise TypeError(f"{name}: expected a text, but got {type(text).__name__}.")
            if len(text) > _TEXT_LIMIT:
                raise ValueError(
                    f"{name}: expected at most {_TEXT_LIMIT} characters, but got {len(text)}."
                )
        return cls(name, unit=unit, classes=classes)

    def describe(self) -> dict[str, Any]:
        """The unit and the names of the classes as plain data for a file, None where unknown."""
        return {"unit": self.unit or None, "classes": list(self.classes) or None}

    @property
    def spoken(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> str:
        """The name in words with the unit, as along an axis: ``thickness (pixels)``."""
        return f"{self.spoken} ({self.unit})" if self.unit else self.spoken

    def format(self, value: float, digits: int = 3) -> str:
        """Format a value as the name of its class, or as a number with its unit.

        A mean over particles that lies between classes is formatted as a number.
        """
        if value in range(len(self.classes)):
            return self.classes[int(value)]
        return f"{format_number(value, digits)} {self.unit}".rstrip()

    def class_index(self, text: str) -> int | None:
        """The index of the class with the name ``text`` or, if there is none, with that index.

        If names are numbers, such as 1 and 2 for the sexes, ``text`` is compared with names only.

        Returns:
            None if there is no such class.

        Example:
            >>> sex = Variable("sex", classes=("1", "2"))
            >>> sex.class_index("1"), sex.class_index("2.0"), sex.class_index("0")
            (0, 1, None)
        """
        if text in self.classes:
            return self.classes.index(text)
        number = _to_float(text)
        if number is None:
            return None
        numbers = [_to_float(name) for name in self.classes]
        if number in numbers:
            return numbers.index(number)
        is_index = None in numbers and number in range(len(self.classes))
        return int(number) if is_index else None

    def filled(self, data: Variable, mechanism: str = "its mechanism") -> Variable:
        """Return this variable with the unit and the names of the classes in the data.

        Args:
            data: The variable as the data describe it.
            mechanism: The owner of this domain, for the message.

        Raises:
            ValueError: If the data have classes, but not as many as this domain has categories.
        """
        count = len(data.classes)
        if count and self.domain.categories != count:
            fitting = "Bernoulli" if count == 2 else f"Categorical with categories: {count}"
            raise ValueError(
                f"mechanisms: {self.name} is one of {count} classes ({', '.join(data.classes)}), "
                f"but {mechanism} expects {self.domain}; give it deepscm_pl.mechanisms.{fitting}, "
                "or declare it of another kind."
            )
        return replace(self, unit=data.unit or self.unit, classes=data.classes or self.classes)


def _to_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
