"""Does the truth fall within predicted intervals as often as it should?"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_finite, require_particles

__all__ = [
    "RankInterval",
    "rank_interval",
    "widest_level",
]


class RankInterval(NamedTuple):
    """Where the truth lies among particles, as a share of them: an interval within [0, 1].

    Attributes:
        lower: (number of particles below the truth) / (P + 1).
        upper: (number of particles not above it, plus one) / (P + 1).
    """

    lower: Tensor
    upper: Tensor

    def coverage(self, level: float) -> Tensor:
        """The probability that the central interval at ``level`` covers the truth, for each value.

        The interval covers the truth if its randomised transform (see :func:`rank_interval`) lies
        within (1 − level)/2 and (1 + level)/2. Instead of drawing the transform, this is the share
        of its interval that lies within: nothing is random, and for an exact predictive
        distribution the mean is ``level``, also where values tie and for few particles. A pixel
        in which all particles and the truth agree counts as ``level``.

        Raises:
            ValueError: If ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: expected a number between 0 and 1, but got {level}.")
        inside = self.upper.clamp(max=(1 + level) / 2) - self.lower.clamp(min=(1 - level) / 2)
        return inside.clamp(min=0) / (self.upper - self.lower)


def rank_interval(particles: Tensor, truth: Tensor) -> RankInterval:
    """The rank of the truth among P particles, as the interval over which it may be drawn.

    If the particles are draws from the distribution that the truth comes from, all P + 1 are
    exchangeable. The rank of the truth, ties broken at random, is then uniform on 0, …, P, and
    (rank + U) / (P + 1) with U ~ Uniform(0, 1) is uniform on (0, 1): the randomised probability
    integral transform (Czado, Gneiting and Held 2009, "Predictive model assessment for count
    data"). Given the values, it is uniform on the interval that this function returns.

    Args:
        particles: ``(P, *shape)``.
        truth: ``(*shape,)``.

    Returns:
        Two tensors ``(*shape,)`` in double precision.

    Raises:
        ValueError: If shapes or devices do not match, there is no particle, or a value is not
            finite.
    """
    require_particles(particles=particles, truth=truth)
    require_finite(particles=particles, truth=truth)
    count = len(particles) + 1
    below, not_above = (particles < truth).sum(dim=0), (particles <= truth).sum(dim=0)
    return RankInterval(below.double() / count, (not_above + 1).double() / count)


def widest_level(num_particles: int) -> float:
    """(P − 1)/(P + 1), the level of the interval from the least to the greatest of P particles.

    Exchangeable with P particles, the truth lies beyond all of them with probability 2/(P + 1). A
    wider interval reaches beyond the particles: part of it counts as covered wherever the truth is,
    so that coverage would look better than it is.

    Example:
        >>> widest_level(19)
        0.9
    """
    return (num_particles - 1) / (num_particles + 1)
