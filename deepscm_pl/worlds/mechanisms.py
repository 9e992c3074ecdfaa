"""Known mechanisms of attributes, x := f(u; pa) with u ~ N(0, 1), and their exact inverses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import (
    expit,
    gammainc,
    gammaincc,
    gammainccinv,
    gammaincinv,
    gammaln,
    ndtr,
    ndtri,
)

__all__ = [
    "BoundedRoot",
    "Coin",
    "Column",
    "Columns",
    "Effect",
    "KnownMechanism",
    "LinearNormal",
    "LogLinearNormal",
    "LogitNormal",
    "ShiftedGamma",
]

Column = NDArray[np.float64]
"""The values of one attribute, ``(N,)``."""

Columns = Mapping[str, Column]
"""Name of an attribute -> values."""

_HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


class KnownMechanism(ABC):
    """How an attribute comes about from standard normal noise and its parents.

    Attributes:
        parents: The names of the attributes that cause this one.
    """

    parents: tuple[str, ...]

    @abstractmethod
    def value(self, noise: Column, parents: Columns) -> Column:
        """The attribute f(u; pa).

        Args:
            noise: u, ``(N,)``.
            parents: ``(N,)`` each.

        Returns:
            ``(N,)``.
        """

    @abstractmethod
    def noise(self, value: Column, parents: Columns) -> Column:
        """The noise u for which f(u; pa) is the value.

        Args:
            value: ``(N,)``.
            parents: ``(N,)`` each.

        Returns:
            ``(N,)``; nan or infinite where the value is outside of the support.
        """

    @abstractmethod
    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the attribute given its parents.

        Args:
            value: ``(N,)``.
            parents: ``(N,)`` each.

        Returns:
            In nats, ``(N,)``; minus infinity outside of the support.
        """

    def sample(self, size: int, parents: Columns, generator: np.random.Generator) -> Column:
        """Draws the attribute given its parents, ``(N,)``."""
        return self.value(generator.standard_normal(size), parents)


@dataclass(frozen=True)
class ShiftedGamma(KnownMechanism):
    r"""x = offset + g with g ~ Γ(shape, rate), without parents.

    The noise is the normal score of the value, :math:`u = \Phi^{-1}(F(g))` with the distribution
    functions :math:`\Phi` of N(0, 1) and F of g. Each tail is computed from its own end, so that
    noise up to ±37 returns.

    Args:
        offset: The least value.
        shape: Of the Gamma distribution.
        rate: Of the Gamma distribution, one over the unit of the value.

    Example:
        >>> thickness = ShiftedGamma(offset=0.5, shape=10, rate=5)
        >>> thickness.value(thickness.noise(np.array([0.6, 2.5, 9.0]), {}), {}).round(9)
        array([0.6, 2.5, 9. ])
    """

    offset: float
    shape: float
    rate: float

    parents = ()

    def value(self, noise: Column, parents: Columns) -> Column:
        """The quantile of the value that has the rank of the noise."""
        below = gammaincinv(self.shape, ndtr(np.minimum(noise, 0)))
        above = gammainccinv(self.shape, ndtr(-np.maximum(noise, 0)))
        return self.offset + np.where(noise < 0, below, above) / self.rate

    def noise(self, value: Column, parents: Columns) -> Column:
        """The normal score of the value."""
        scaled = self.rate * (value - self.offset)
        below, above = gammainc(self.shape, scaled), gammaincc(self.shape, scaled)
        return np.where(below < 0.5, ndtri(below), -ndtri(above))

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the value."""
        excess = value - self.offset
        with np.errstate(divide="ignore", invalid="ignore"):
            log_prob = (
                self.shape * np.log(self.rate)
                + (self.shape - 1) * np.log(excess)
                - self.rate * excess
                - gammaln(self.shape)
            )
        return np.where((excess > 0) & (excess < np.inf), log_prob, -np.inf)

    def sample(self, size: int, parents: Columns, generator: np.random.Generator) -> Column:
        """Draws values, ``(N,)``."""
        return self.offset + generator.gamma(self.shape, 1 / self.rate, size)


def check_linear(slope: float, centre: float, spread: float) -> None:
    """Raise unless these can be the parameters of a :class:`LinearNormal` or its like.

    Raises:
        ValueError: If ``spread`` is not positive, or a number is not finite.
    """
    for name, number in (("slope", slope), ("centre", centre), ("spread", spread)):
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {number}.")
    if not spread > 0:
        raise ValueError(f"spread must be positive, got {spread}.")


@dataclass(frozen=True)
class LinearNormal(KnownMechanism):
    r"""x = slope · (parent − centre) + spread · u.

    Args:
        parent: The attribute that causes this one.
        slope: Change of the value with the parent.
        centre: Value of the parent at which the mean is 0.
        spread: Standard deviation of the value given the parent.

    Example:
        >>> slant = LinearNormal("thickness", slope=0.5, centre=2.0, spread=0.1)
        >>> slant.value(np.array([1.0]), {"thickness": np.array([3.0])})
        array([0.6])
    """

    parent: str
    slope: float
    centre: float
    spread: float

    @property
    def parents(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one parent."""
        return (self.parent,)

    def value(self, noise: Column, parents: Columns) -> Column:
        """The mean plus the noise in its scale."""
        return self.slope * (parents[self.parent] - self.centre) + self.spread * noise

    def noise(self, value: Column, parents: Columns) -> Column:
        """Standard deviations above the mean."""
        return (value - self.slope * (parents[self.parent] - self.centre)) / self.spread

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the value given the parent."""
        noise = self.noise(value, parents)
        return -0.5 * noise**2 - _HALF_LOG_TWO_PI - np.log(self.spread)


@dataclass(frozen=True)
class LogitNormal(KnownMechanism):
    r"""x = low + (high − low) · σ(slope · (parent − centre) + spread · u).

    Args:
        parent: The attribute that causes this one.
        slope: Change of the logit with the parent.
        centre: Value of the parent at which the attribute is half-way.
        spread: Standard deviation of the logit given the parent.
        low: The lower bound, which is outside.
        high: The upper bound, which is outside.

    Example:
        >>> intensity = LogitNormal("thickness", 2.0, 2.5, 0.5, low=64.0, high=255.0)
        >>> intensity.value(np.array([0.0]), {"thickness": np.array([2.5])})
        array([159.5])
    """

    parent: str
    slope: float
    centre: float
    spread: float
    low: float
    high: float

    @property
    def parents(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one parent."""
        return (self.parent,)

    @property
    def _logit(self) -> LinearNormal:
        """The mechanism of the logit."""
        return LinearNormal(self.parent, self.slope, self.centre, self.spread)

    def value(self, noise: Column, parents: Columns) -> Column:
        """The share of the range that the logit stands for."""
        return self.low + (self.high - self.low) * expit(self._logit.value(noise, parents))

    def noise(self, value: Column, parents: Columns) -> Column:
        """Standard deviations of the logit above its mean."""
        with np.errstate(divide="ignore", invalid="ignore"):
            # Not by the share of the range, which is inexact near its upper end.
            logit = np.log(value - self.low) - np.log(self.high - value)
        return self._logit.noise(logit, parents)

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the value given the parent."""
        inside = (value > self.low) & (value < self.high)
        value = np.where(inside, value, (self.low + self.high) / 2)
        above, below = np.log(value - self.low), np.log(self.high - value)
        log_prob = self._logit.log_prob(above - below, parents)
        return np.where(inside, log_prob + np.log(self.high - self.low) - above - below, -np.inf)


@dataclass(frozen=True)
class BoundedRoot(KnownMechanism):
    r"""x = low + (high − low) · σ(centre + spread · u), without parents.

    Args:
        low: The lower bound, which is outside.
        high: The upper bound, which is outside.
        centre: Logit of the median's share of the range.
        spread: Standard deviation of the logit.

    Example:
        >>> BoundedRoot(40.0, 80.0, 0.0, 1.0).value(np.array([0.0]), {})
        array([60.])
    """

    low: float
    high: float
    centre: float
    spread: float

    parents = ()

    def value(self, noise: Column, parents: Columns) -> Column:
        """The share of the range that the logit stands for."""
        return self.low + (self.high - self.low) * expit(self.centre + self.spread * noise)

    def noise(self, value: Column, parents: Columns) -> Column:
        """Standard deviations of the logit above its centre."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logit = np.log(value - self.low) - np.log(self.high - value)
        return (logit - self.centre) / self.spread

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the value."""
        inside = (value > self.low) & (value < self.high)
        value = np.where(inside, value, (self.low + self.high) / 2)
        above, below = np.log(value - self.low), np.log(self.high - value)
        noise = (above - below - self.centre) / self.spread
        normal = -0.5 * noise**2 - _HALF_LOG_TWO_PI - np.log(self.spread)
        return np.where(inside, normal + np.log(self.high - self.low) - above - below, -np.inf)


@dataclass(frozen=True)
class Coin(KnownMechanism):
    """x = [u > t], 1 with a given probability, without parents.

    A value does not determine its noise; the median of what it leaves open stands for it. Nothing
    follows from which: without parents, the value changes by intervention only.

    Args:
        probability: Of 1.

    Example:
        >>> Coin(0.5).value(np.array([-1.0, 0.1]), {})
        array([0., 1.])
    """

    probability: float

    parents = ()

    def value(self, noise: Column, parents: Columns) -> Column:
        """0 or 1."""
        return (noise > -ndtri(self.probability)).astype(np.float64)

    def noise(self, value: Column, parents: Columns) -> Column:
        """The median noise behind the value; nan where it is neither 0 nor 1."""
        one, zero = -ndtri(self.probability / 2), ndtri((1 - self.probability) / 2)
        return np.where(value == 1, one, np.where(value == 0, zero, np.nan))

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-probability of the value."""
        chances = [np.log(self.probability), np.log1p(-self.probability)]
        return np.select([value == 1, value == 0], chances, -np.inf)


@dataclass(frozen=True)
class Effect:
    """slope · (parent − centre), or of the parent's logarithm.

    Args:
        parent: The attribute that acts.
        slope: Per unit of the parent, or of its logarithm.
        centre: Value, or logarithm, at which the effect is zero.
        log: Whether the logarithm acts.
    """

    parent: str
    slope: float
    centre: float
    log: bool = False

    def of(self, parents: Columns) -> Column:
        """The effect, ``(N,)``."""
        value = parents[self.parent]
        return self.slope * ((np.log(value) if self.log else value) - self.centre)


@dataclass(frozen=True)
class LogLinearNormal(KnownMechanism):
    r"""x = exp(centre + Σ effects of the parents + spread · u).

    Args:
        centre: Mean of the logarithm where no parent has an effect.
        effects: Of the parents.
        spread: Standard deviation of the logarithm given the parents.

    Example:
        >>> volume = LogLinearNormal(0.0, (Effect("age", 0.5, centre=60.0),), spread=0.1)
        >>> volume.value(np.array([0.0]), {"age": np.array([62.0])}).round(3)
        array([2.718])
    """

    centre: float
    effects: tuple[Effect, ...]
    spread: float

    @property
    def parents(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those that have effects."""
        return tuple(effect.parent for effect in self.effects)

    def _mean(self, parents: Columns) -> Column:
        """Of the logarithm."""
        return np.sum([effect.of(parents) for effect in self.effects], axis=0) + self.centre

    def value(self, noise: Column, parents: Columns) -> Column:
        """The exponential of the mean plus the noise in its scale."""
        return np.exp(self._mean(parents) + self.spread * noise)

    def noise(self, value: Column, parents: Columns) -> Column:
        """Standard deviations of the logarithm above its mean."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (np.log(value) - self._mean(parents)) / self.spread

    def log_prob(self, value: Column, parents: Columns) -> Column:
        """The log-density of the value given the parents."""
        positive = value > 0
        noise = self.noise(np.where(positive, value, 1.0), parents)
        normal = -0.5 * noise**2 - _HALF_LOG_TWO_PI - np.log(self.spread)
        return np.where(positive, normal - np.log(np.where(positive, value, 1.0)), -np.inf)
