"""Width of intervals, coverage of the truth, and spread of particles against their error."""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_finite_values, require_particles
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["IntervalQuality"]


class IntervalQuality(PerImageMetric):
    """Quality of intervals m ± h around the mean m of P particles, of one level.

    - ``spread_over_error``: √(Σ s² / Σ (m − y)²), with the variance s² of the particles and the
      truth y. It is √(P/(P + 1)) for an exact predictive distribution, and smaller if the
      particles vary too little;
    - ``covered/all``: the fraction of values in m ± h;
    - ``covered/varying``: the same over the values in which the particles and the truth are not all
      equal, as of :class:`~deepscm_pl.metrics.IntervalCoverage`;
    - ``width``: the mean of 2·h over these varying values;
    - ``width_of_particles``: the mean over them of the range of the particles.

    Example:
        >>> import torch
        >>> metric = IntervalQuality()
        >>> particles = torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 3, 4)
        >>> metric.update(particles, torch.zeros(3, 4) + 2, torch.full((3, 4), 2.0))
        >>> found = metric.compute()
        >>> [round(found[name].mean, 3) for name in ("covered/all", "width", "spread_over_error")]
        [1.0, 4.0, 0.707]
    """

    def __init__(self) -> None:
        kinds = ["inside", "inside_varying", "varying", "width", "range", "spread", "error"]
        super().__init__(kinds)

    def update(self, particles: Tensor, truth: Tensor, half_width: Tensor) -> None:
        """Add a batch.

        Args:
            particles: ``(P, B, *event)`` with P > 1.
            truth: ``(B, *event)``.
            half_width: h, of the shape of ``truth``.
        """
        require_particles(particles=particles, truth=truth)
        require_finite_values(particles=particles, truth=truth)
        mean, variance = particles.mean(dim=0), particles.var(dim=0)
        varying = (particles != truth).any(dim=0).double().flatten(1)
        inside = ((mean - truth).abs() <= half_width * (1 + 1e-6)).double().flatten(1)
        extent = (particles.amax(dim=0) - particles.amin(dim=0)).double().flatten(1)
        self._add(
            {
                "inside": inside.mean(dim=1),
                "inside_varying": (inside * varying).mean(dim=1),
                "varying": varying.mean(dim=1),
                "width": (2 * half_width.double().flatten(1) * varying).mean(dim=1),
                "range": (extent * varying).mean(dim=1),
                "spread": variance.double().flatten(1).mean(dim=1),
                "error": (mean - truth).double().square().flatten(1).mean(dim=1),
            }
        )

    def compute(self) -> dict[str, Statistic]:
        """Return the quantities above, with standard errors over images."""
        square = self._ratio("spread", "error")
        root = square.mean**0.5
        return {
            "spread_over_error": Statistic(root, square.standard_error / (2 * max(root, 1e-300))),
            "covered/all": super().compute()["inside"],
            "covered/varying": self._ratio("inside_varying", "varying"),
            "width": self._ratio("width", "varying"),
            "width_of_particles": self._ratio("range", "varying"),
        }
