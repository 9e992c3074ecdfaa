"""How much a counterfactual changes, against how much it has to."""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.metrics.functional import mean_absolute_error
from deepscm_pl.metrics.functional.checks import (
    require_particles,
    require_same_shape,
    spatial_dims_of,
)
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["Minimality"]


class Minimality(PerImageMetric):
    """Distance of the counterfactual to the factual, against that of the truth to the factual.

    With d the mean absolute error in grey levels:

    - ``counterfactual``: d(counterfactual, factual), averaged over particles;
    - ``truth``: d(truth, factual), what had to change;
    - ``ratio``: the first mean over the second. One if as much changed as had to, above one if more
      did. The ratio of means does not suffer from single images where little had to change.

    A counterfactual should stay as close to its factual as the intervention allows (minimality:
    Sanchez and Tsaftaris 2022, "Diffusion causal models for counterfactual estimation",
    arXiv:2202.10166; Melistas et al. 2024, "Benchmarking counterfactual image generation",
    arXiv:2403.20287). Those measure it in a latent space, for want of a true counterfactual; a
    known world has one.

    Example:
        >>> import torch
        >>> black = torch.zeros(2, 1, 8, 8)
        >>> metric = Minimality()
        >>> metric.update(black[None] + 30, factual=black, truth=black + 20)
        >>> metric.compute()["ratio"].mean
        1.5
    """

    def __init__(self) -> None:
        super().__init__(["counterfactual", "truth"])

    def update(self, counterfactual: Tensor, factual: Tensor, truth: Tensor) -> None:
        """Add a batch of images in grey levels.

        Args:
            counterfactual: ``(P, B, C, H, W)``, or volumes ``(P, B, C, D, H, W)``.
            factual: ``(B, C, H, W)``, or volumes likewise.
            truth: The true counterfactual images, of the shape of ``factual``.

        Raises:
            ValueError: If shapes or devices do not match.
        """
        require_particles(counterfactual=counterfactual, factual=factual)
        require_same_shape(truth=truth, factual=factual)
        dims = spatial_dims_of(factual=factual)
        change = mean_absolute_error(counterfactual, factual.expand_as(counterfactual), dims)
        needed = mean_absolute_error(truth, factual, dims)
        self._add({"counterfactual": change.mean(dim=0), "truth": needed})

    def compute(self) -> dict[str, Statistic]:
        """The two distances in grey levels, and their ratio.

        Raises:
            RuntimeError: If there was no image so far.
        """
        return self._statistics() | {"ratio": self._ratio("counterfactual", "truth")}
