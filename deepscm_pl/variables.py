"""The vocabulary of shapes, in one place.

Everything that travels between modules is a mapping from the name of a variable to a tensor.
Leading dimensions are batch dimensions, and they broadcast; the trailing ones are the *event*, the
shape of one value of the variable:

=============  =======================  ==================================
variable       shape                    values
=============  =======================  ==================================
scalar         ``(*batch, 1)``          its own units (years, mm³, pixels)
category       ``(*batch, 1)``          index of the class
image          ``(*batch, C, H, W)``    grey levels, 0 to 255
volume         ``(*batch, C, D, H, W)``  grey levels, 0 to 255
=============  =======================  ==================================

Particles (draws of the exogenous noise of one observation) are a leading batch dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Do", "Domain", "Intervention", "NamedClass", "Noise", "Variables", "class_named"]

Variables: TypeAlias = Mapping[str, Tensor]
"""Name of a variable -> values, ``(*batch, *event)``."""

Noise: TypeAlias = Mapping[str, Tensor]
"""The exogenous noise of one variable: ``{"u"}`` for a flow, ``{"z", "u"}`` for a VAE."""

Intervention: TypeAlias = float | Tensor | Callable[[Tensor], Tensor]
"""What takes the place of a value: a number, a tensor, or a function of the value it replaces."""

Do: TypeAlias = Mapping[str, Intervention]
"""Name of a variable -> intervention, as in do(thickness = 3)."""


@dataclass(frozen=True)
class Domain:
    """Where a variable lives: the shape of one value and the values that it may take.

    Args:
        shape: The event shape, ``(1,)`` for a scalar, ``(C, H, W)`` for an image.
        lower: Smallest possible value (the bound itself is outside when ``open``).
        upper: Largest possible value, likewise.
        open: Whether the bounds themselves are excluded.
        whole: Whether only whole numbers are possible, such as grey levels.
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

    @property
    def features(self) -> int:
        """Number of features of a value once encoded: its elements, or one per category."""
        return self.categories if self.categories is not None else math.prod(self.shape)

    def batch_shape(self, value: Tensor) -> torch.Size:
        """The batch dimensions of ``value``: its shape without the event."""
        return value.shape[: value.dim() - len(self.shape)]

    def check(self, name: str, value: Tensor) -> None:
        """Raise unless ``value`` may be a batch of values of this variable.

        Raises:
            ValueError: If the trailing shape is not the event shape, or a value is NaN, outside the
                bounds, or no class index.
        """
        if tuple(value.shape[max(value.dim() - len(self.shape), 0) :]) != self.shape:
            raise ValueError(
                f"{name}: expected a tensor of shape (*batch, {', '.join(map(str, self.shape))}), "
                f"but got {tuple(value.shape)}; reshape it."
            )
        if self._holds_all_of(value.dtype):
            return
        if value.is_floating_point() and bool(value.isnan().any()):
            raise ValueError(f"{name}: expected numbers, but got NaN; remove the missing values.")
        outside = value[~self.contains(value)]
        if outside.numel():
            raise ValueError(
                f"{name}: expected {self}, but got {outside.flatten()[0].item():g}; "
                "give a value inside."
            )

    def _holds_all_of(self, dtype: torch.dtype) -> bool:
        """Whether no number of a type is outside, so that none of many has to be looked at."""
        is_integer = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
        if not is_integer or self.categories is not None:
            return False
        least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        if self.open:
            return self.lower < least and most < self.upper
        return self.lower <= least and most <= self.upper

    def contains(self, value: Tensor) -> Tensor:
        """Where ``value`` is possible, elementwise; NaN is not.

        Example:
            >>> Domain(lower=0.0, open=True).contains(torch.tensor([-1.0, 0.0, 1.0, torch.nan]))
            tensor([False, False,  True, False])
        """
        return ~(self._outside(value) | value.isnan())

    def _outside(self, value: Tensor) -> Tensor:
        if self.categories is not None:
            return (value < 0) | (value >= self.categories) | (value != value.floor())
        impossible = value.abs() == math.inf
        if self.whole:
            impossible = impossible | (value != value.floor())
        if self.open:
            return impossible | (value <= self.lower) | (value >= self.upper)
        return impossible | (value < self.lower) | (value > self.upper)

    def __str__(self) -> str:
        if self.categories is not None:
            return f"a class index from 0 to {self.categories - 1}"
        left = "(" if self.open or self.lower == -math.inf else "["
        right = ")" if self.open or self.upper == math.inf else "]"
        kind = "whole numbers" if self.whole else "values"
        return f"{kind} in {left}{self.lower:g}, {self.upper:g}{right}"


class NamedClass(float):
    """The index of a class, with its name.

    Args:
        index: Of the class.
        name: Of the class.

    Example:
        >>> male = NamedClass(1, "male")
        >>> male + 0.0, male.name
        (1.0, 'male')
    """

    name: str

    def __new__(cls, index: float, name: str) -> NamedClass:
        """A number that has a name."""
        made = super().__new__(cls, index)
        made.name = name
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        """For copies."""
        return float(self), self.name


def class_named(text: str, names: Sequence[str]) -> NamedClass | None:
    """The class that a text means: the one of this name, otherwise the one of this index.

    Data may have numbers as names, as where 1 and 2 stand for the sexes; then a number is a name.

    Args:
        text: As someone wrote it.
        names: Of the classes, in the order of their indices.

    Returns:
        None where no class is meant.

    Example:
        >>> class_named("male", ("female", "male")), class_named("1", ("female", "male"))
        (1.0, 1.0)
        >>> class_named("1", ("1", "2")), class_named("3", ("1", "2"))
        (0.0, None)
    """
    if text in names:
        return NamedClass(names.index(text), text)
    number = _number(text)
    if number is None:
        return None
    numbers = [_number(name) for name in names]
    if number in numbers:
        return NamedClass(numbers.index(number), names[numbers.index(number)])
    if None not in numbers or number not in range(len(names)):
        return None
    return NamedClass(number, names[int(number)])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
