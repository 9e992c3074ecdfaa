"""Coverage of the truth by predicted intervals."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_finite_values, require_particles

__all__ = ["RankInterval", "rank_interval", "widest_level"]


class RankInterval(NamedTuple):
    """Rank of the truth among P particles, as an interval within [0, 1].

    Attributes:
        lower: (number of particles below the truth) / (P + 1).
        upper: (number of particles not above the truth, plus one) / (P + 1).
    """

    lower: Tensor
    upper: Tensor

    def coverage(self, level: float) -> Tensor:
        """Return the probability that the central interval at ``level`` covers each value.

        The interval covers the truth if its randomised transform (see :func:`rank_interval`) lies
        between (1 − level)/2 and (1 + level)/2. Instead of drawing the transform, this returns the
        fraction of its interval between these bounds. The result is deterministic, and its mean
        under an exact predictive distribution is ``level``, even with ties and few particles. A
        pixel in which all particles and the truth are equal counts as ``level``.

        Raises:
            ValueError: If ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, but got {level}.")
        inside = self.upper.clamp(max=(1 + level) / 2) - self.lower.clamp(min=(1 - level) / 2)
        return inside.clamp(min=0) / (self.upper - self.lower)


def rank_interval(particles: Tensor, truth: Tensor) -> RankInterval:
    """Compute the interval from which the rank of the truth among P particles is drawn.

    If the particles come from the distribution of the truth, all P + 1 values are exchangeable. The
    rank of the truth, ties broken at random, is then uniform on 0, …, P, and (rank + U) / (P + 1)
    with U ~ Uniform(0, 1) is uniform on (0, 1): the randomised probability integral transform
    (Czado, Gneiting and Held 2009, "Predictive model assessment for count data"). Given the values,
    it is uniform on the returned interval.

    Args:
        particles: ``(P, *shape)``.
        truth: ``(*shape,)``.

    Returns:
        Two tensors ``(*shape,)`` in double precision.

    Raises:
        ValueError: If shapes or devices differ, there is no particle, or a value is not finite.
    """
    require_particles(particles=particles, truth=truth)
    require_finite_values(particles=particles, truth=truth)
    count = len(particles) + 1
    below, not_above = (particles < truth).sum(dim=0), (particles <= truth).sum(dim=0)
    return RankInterval(below.double() / count, (not_above + 1).double() / count)


def widest_level(num_particles: int) -> float:
    """Return (P − 1)/(P + 1), the level of the interval between the extremes of P particles.

    A truth that is exchangeable with the particles lies outside with probability 2/(P + 1). A wider
    interval counts as partly covered wherever the truth is, which would overestimate coverage.

    Example:
        >>> widest_level(19)
        0.9
    """
    return (num_particles - 1) / (num_particles + 1)
