"""Means and standard deviations of particles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deepscm_pl.scm import summarise

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations over some particles, ``(N, *event)`` each."""

    count: int
    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Compute the moments of ``(particles, N, *event)``."""
        return cls(len(values), *summarise(values))

    def merge(self, other: Moments) -> Moments:
        """Compute the moments over the particles of both."""
        count = self.count + other.count
        share = other.count / count
        change = other.mean - self.mean
        inner = sum((each.count - 1) * each.deviation.square() for each in (self, other))
        between = self.count * share * change.square()
        deviation = ((inner + between) / (count - 1)).sqrt()
        return Moments(count, self.mean + share * change, deviation)
