"""Bijections from the real line to the domain of an attribute, standardised on training data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from pyro.distributions import transforms
from torch import Tensor, nn
from torch.distributions import Transform

from deepscm_pl.checks import real_number

__all__ = ["Constraint", "Interval", "Positive", "Real"]


class Constraint(nn.Module, ABC):
    """x = c(m + s·y), with a bijection c from the real line that subclasses define.

    m and s, the buffers ``location`` and ``scale``, are the mean and standard deviation of c⁻¹(x)
    over the training split, so that y is standardised. All values lie between ``lower`` and
    ``upper``, exclusive.
    """

    lower: float = -math.inf
    upper: float = math.inf
    location: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(1))
        self.register_buffer("scale", torch.ones(1))

    def of_entries(self, size: int) -> None:
        """Standardise each of ``size`` entries of a vector separately."""
        self.location = self.location.new_zeros(size)
        self.scale = self.scale.new_ones(size)

    @abstractmethod
    def bijection(self) -> Transform:
        """Return c, from the real line onto (lower, upper)."""

    def transform(self) -> Transform:
        """Return the whole constraint, y ↦ c(m + s·y)."""
        standardise = transforms.AffineTransform(self.location, self.scale)
        return transforms.ComposeTransform([standardise, self.bijection()])

    def fit(self, values: Tensor) -> None:
        """Set m and s from the values ``(N, 1)``, or ``(N, D)``, of the training split.

        Raises:
            ValueError: If a value is not strictly inside the bounds, or all values are equal.
        """
        outside = ~((values > self.lower) & (values < self.upper))
        if bool(outside.any()):
            raise ValueError(
                f"expected training values in ({self.lower:g}, {self.upper:g}), but got "
                f"{values[outside][0].item():g}; choose another constraint or correct the data."
            )
        constant = values.amax(dim=0) == values.amin(dim=0)
        if bool(constant.any()):
            raise ValueError(
                "expected training values that differ, but all are "
                f"{values[0][constant][0].item():g}; a constant needs no mechanism."
            )
        free = self.bijection().inv(values.double())
        self.location.copy_(free.mean(dim=0))
        self.scale.copy_(free.std(dim=0, correction=0))


class Real(Constraint):
    """Any real number: x = m + s·y."""

    def bijection(self) -> Transform:
        """Return the identity."""
        return transforms.identity_transform


class Positive(Constraint):
    """A positive number: x = exp(m + s·y)."""

    lower = 0.0

    def bijection(self) -> Transform:
        """Return the exponential function."""
        return transforms.ExpTransform()


class Interval(Constraint):
    """A number between two bounds: x = low + (high − low)·sigmoid(m + s·y).

    Args:
        low: Lower bound, exclusive.
        high: Upper bound, exclusive.
    """

    def __init__(self, low: float, high: float) -> None:
        low, high = real_number("low", low), real_number("high", high)
        if not low < high:
            raise ValueError(f"expected finite bounds low < high, but got {low:g} and {high:g}.")
        super().__init__()
        self.lower, self.upper = low, high

    def bijection(self) -> Transform:
        """Return the sigmoid, scaled to the bounds."""
        scaling = transforms.AffineTransform(self.lower, self.upper - self.lower)
        return transforms.ComposeTransform([transforms.SigmoidTransform(), scaling])
