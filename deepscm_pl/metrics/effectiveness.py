"""Does the counterfactual have the attribute that was asked for?"""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional.checks import (
    at_least_single,
    require_finite,
    require_particles,
)
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["Effectiveness"]


class Effectiveness(PerImageMetric):
    """Measured against intended attribute of counterfactual images, in the attribute's units.

    After do(a = a*), the attribute measured in the counterfactual image should be a* (Monteiro et
    al. 2023, "Measuring axiomatic soundness of counterfactual image models", arXiv:2303.01274):

    - ``absolute_error``: the mean of |measured − intended|;
    - ``bias``: the mean of measured − intended;
    - ``unmeasurable``: the share of particles in which nothing could be measured, such as the
      thickness of a black image, given as NaN or infinity. The other two are means over all other
      particles, so read them together; where nothing at all could be measured they are NaN.

    The measurement itself has an error: give the measured attributes of true images to know it.

    Example:
        >>> metric = Effectiveness()
        >>> measured = torch.tensor([[2.5], [4.0], [1.0], [torch.nan]])
        >>> metric.update(measured[None], intended=torch.tensor([[2.0], [3.0], [1.0], [1.0]]))
        >>> found = metric.compute()
        >>> found["absolute_error"].mean, found["unmeasurable"].mean
        (0.5, 0.25)
    """

    def __init__(self) -> None:
        super().__init__(["absolute_error", "bias", "measurable", "unmeasurable"])

    def update(self, measured: Tensor, intended: Tensor) -> None:
        """Add a batch.

        Args:
            measured: The attribute as measured in each counterfactual image, ``(P, B, 1)``; NaN or
                infinite where that is not possible.
            intended: What it should be, ``(B, 1)``.

        Raises:
            ValueError: If shapes or devices do not match, or an intended value is not finite.
        """
        require_particles(measured=measured, intended=intended)
        if intended.dim() != 2 or intended.shape[1] != 1:
            raise ValueError(
                f"intended: expected shape (batch, 1), but got {tuple(intended.shape)}."
            )
        require_finite(intended=intended)
        error = (at_least_single(measured) - at_least_single(intended)).squeeze(-1)
        measurable = torch.isfinite(error)
        error = error.where(measurable, 0)
        share = measurable.to(error).mean(dim=0)
        self._add(
            {
                "absolute_error": error.abs().mean(dim=0),
                "bias": error.mean(dim=0),
                "measurable": share,
                "unmeasurable": 1 - share,
            }
        )

    def compute(self) -> dict[str, Statistic]:
        """The three quantities above.

        Raises:
            RuntimeError: If there was no image so far.
        """
        found = self._statistics()
        return {
            "absolute_error": self._ratio("absolute_error", "measurable"),
            "bias": self._ratio("bias", "measurable"),
            "unmeasurable": found["unmeasurable"],
        }
