"""Errors of counterfactual images apart for regions that should change and that should not."""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.metrics.functional.checks import require_same_shape
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["RegionError"]


class RegionError(PerImageMetric):
    """Errors against the true image, in pixels that the true intervention changes and in others.

    A pixel is untouched where the truth differs from the factual image by at most ``tolerance``
    grey levels. In grey levels, each a mean over pixels of all images:

    - ``untouched error``, ``changed error`` and ``error``: of the counterfactual;
    - ``changed error of doing nothing``: of the unchanged factual image;
    - ``ratio``: ``error`` divided by that of the factual image; below one, the counterfactual is
      better than no answer;
    - ``share of untouched``: the fraction of pixels that are untouched.

    An average over all pixels hides that a model changes what should stay.

    Args:
        tolerance: In grey levels.

    Example:
        >>> import torch
        >>> factual, truth = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 0.0], [0.0, 40.0]]]])
        >>> metric = RegionError()
        >>> metric.update(truth + 1, truth, factual)
        >>> found = metric.compute()
        >>> found["untouched error"].mean, found["changed error"].mean, found["ratio"].mean
        (1.0, 1.0, 0.1)
    """

    def __init__(self, tolerance: float = 0.5) -> None:
        super().__init__(["untouched", "untouched_sum", "changed", "changed_sum", "nothing", "sum"])
        self.tolerance = tolerance

    def update(self, counterfactual: Tensor, truth: Tensor, factual: Tensor) -> None:
        """Add images in grey levels, ``(B, C, *sizes)`` each.

        Raises:
            ValueError: If shapes differ.
        """
        require_same_shape(counterfactual=counterfactual, truth=truth)
        require_same_shape(factual=factual, truth=truth)
        needed = (truth - factual).abs().flatten(1)
        error = (counterfactual - truth).abs().flatten(1)
        untouched = (needed <= self.tolerance).to(error)
        self._add(
            {
                "untouched": untouched.mean(dim=1),
                "untouched_sum": (error * untouched).mean(dim=1),
                "changed": (1 - untouched).mean(dim=1),
                "changed_sum": (error * (1 - untouched)).mean(dim=1),
                "nothing": needed.mean(dim=1),
                "sum": error.mean(dim=1),
            }
        )

    def compute(self) -> dict[str, Statistic]:
        """Return the quantities above, NaN where there are no such pixels."""
        single = super().compute()
        return {
            "error": single["sum"],
            "ratio": self._ratio("sum", "nothing"),
            "untouched error": self._ratio("untouched_sum", "untouched"),
            "changed error": self._ratio("changed_sum", "changed"),
            "changed error of doing nothing": self._ratio("nothing", "changed"),
            "share of untouched": single["untouched"],
        }
