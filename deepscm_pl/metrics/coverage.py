"""Are predicted intervals as wide as they should be?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deepscm_pl.metrics.functional import rank_interval
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["IntervalCoverage"]


class IntervalCoverage(PerImageMetric):
    """How often the truth lies in the central interval of the particles, at several levels.

    For each level α the mean over images of the share of values (pixels) that are covered, in the
    sense of :func:`~deepscm_pl.metrics.functional.central_interval_coverage`: α for an exact
    predictive distribution, of whole grey levels too; below α if the particles spread too little,
    above if too much.

    - ``all/α``: over all values;
    - ``varying/α``: over the values in which the P particles and the truth are not all the same.
      Pixels that are always black say nothing and would hide the others. For an exact predictive
      distribution this is α, too: which values are left out does not depend on which of the P + 1
      is the truth;
    - ``varying``: the share of these values.

    Args:
        levels: The levels α, each strictly between 0 and 1; beyond
            :func:`~deepscm_pl.metrics.functional.widest_level` of the number of particles coverage
            is never zero, and says little.

    Example:
        >>> import torch
        >>> metric = IntervalCoverage(levels=[0.5])
        >>> particles = torch.arange(99.0)[:, None, None].expand(99, 2, 4)
        >>> metric.update(particles, torch.full((2, 4), 48.5))
        >>> metric.compute()["all/0.5"].mean
        1.0
    """

    def __init__(self, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> None:
        for level in levels:
            if not 0 < level < 1:
                raise ValueError(f"levels: expected numbers between 0 and 1, but got {level}.")
        if not levels or len({f"{level:g}" for level in levels}) < len(levels):
            raise ValueError(
                "levels: expected at least one number, all different in the six digits that they "
                f"are named by, but got {list(levels)}."
            )
        self.levels = tuple(levels)
        kinds = [f"{kind}/{level:g}" for kind in ("all", "varying") for level in levels]
        super().__init__([*kinds, "varying"])

    def update(self, particles: Tensor, truth: Tensor) -> None:
        """Add a batch.

        Args:
            particles: Counterfactual images in grey levels, or values of a scalar, ``(P, B,
                *event)``.
            truth: The true ones, ``(B, *event)``.

        Raises:
            ValueError: If shapes or devices do not match, or a value is not finite.
        """
        interval = rank_interval(particles, truth)
        varying = ((particles != truth).any(dim=0)).double().flatten(1)
        quantities = {"varying": varying.mean(dim=1)}
        for level in self.levels:
            covered = interval.coverage(level).flatten(1)
            quantities[f"all/{level:g}"] = covered.mean(dim=1)
            quantities[f"varying/{level:g}"] = (covered * varying).mean(dim=1)
        self._add(quantities)

    def compute(self) -> dict[str, Statistic]:
        """The shares above, with standard errors over images.

        Raises:
            RuntimeError: If there was no image so far.
        """
        return self._statistics() | {
            f"varying/{level:g}": self._ratio(f"varying/{level:g}", "varying")
            for level in self.levels
        }
