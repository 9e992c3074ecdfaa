"""Errors of counterfactual images and of the attributes measured in them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import (
    mean_absolute_error,
    peak_signal_to_noise_ratio,
    structural_similarity,
)
from deepscm_pl.metrics.functional.checks import (
    at_least_single,
    require_finite_values,
    require_particles,
    require_same_shape,
    spatial_dims_of,
)
from deepscm_pl.metrics.statistics import PerImageMetric, Statistic

__all__ = ["Effectiveness", "GroundTruthError"]

_MEASURES: dict[str, Callable[..., Tensor]] = {
    "mean_absolute_error": mean_absolute_error,
    "peak_signal_to_noise_ratio": peak_signal_to_noise_ratio,
    "structural_similarity": structural_similarity,
}


class GroundTruthError(PerImageMetric):
    """Errors of counterfactual images against the true ones, which a known world can render.

    For P counterfactual particles x_p of an observation with the true counterfactual x*, and each
    measure d of mean absolute error (grey levels), peak signal-to-noise ratio (decibels) and
    structural similarity:

    - ``d/particle_mean``: d(Σ x_p / P, x*), the error of the mean of the particles;
    - ``d/particle``: Σ d(x_p, x*) / P, the mean error of a single draw;
    - ``d/factual``: error of the unchanged factual image;
    - ``d/stranger``: error of the true image of *another* observation with the intended attributes,
      which has the perfect effect but the wrong identity;

    and ``ratio/particle_mean`` and ``ratio/particle``: the mean absolute error over images, divided
    by that of the unchanged factual. Below one, the counterfactual is better than no answer.

    Args:
        strangers: Whether to measure the second baseline.

    Example:
        >>> import torch
        >>> metric = GroundTruthError(strangers=False)
        >>> factual, truth = torch.zeros(5, 1, 28, 28), torch.full((5, 1, 28, 28), 40.0)
        >>> metric.update(torch.full((3, 5, 1, 28, 28), 30.0), truth, factual)
        >>> metric.compute()["mean_absolute_error/particle"].mean
        10.0
        >>> metric.compute()["ratio/particle"].mean
        0.25
    """

    def __init__(self, strangers: bool = True) -> None:
        answers = ["particle_mean", "particle", "factual", *(["stranger"] if strangers else [])]
        super().__init__([f"{measure}/{answer}" for measure in _MEASURES for answer in answers])
        self.strangers = strangers

    def update(
        self,
        counterfactual: Tensor,
        truth: Tensor,
        factual: Tensor,
        stranger: Tensor | None = None,
    ) -> None:
        """Add a batch of images in grey levels.

        Args:
            counterfactual: ``(P, B, C, H, W)``, or volumes ``(P, B, C, D, H, W)``.
            truth: The true counterfactual images, ``(B, C, H, W)`` or ``(B, C, D, H, W)``.
            factual: The observed images, of the shape of ``truth``.
            stranger: True images of other observations with the attributes of ``truth``.

        Raises:
            ValueError: If shapes or devices do not match, or ``stranger`` is missing.
        """
        require_particles(counterfactual=counterfactual, truth=truth)
        require_same_shape(factual=factual, truth=truth)
        dims = spatial_dims_of("truth", truth)
        particles = at_least_single(counterfactual)
        answers = {"particle_mean": particles.mean(dim=0), "factual": factual}
        if self.strangers:
            if stranger is None:
                raise ValueError(
                    "stranger: expected an image for each of truth, but got none; pass them, or "
                    "create the metric with strangers=False."
                )
            require_same_shape(stranger=stranger, truth=truth)
            answers["stranger"] = stranger
        quantities = {}
        for name, measure in _MEASURES.items():
            single = measure(particles, truth.expand_as(particles), spatial_dims=dims)
            quantities[f"{name}/particle"] = single.mean(dim=0)
            for answer, image in answers.items():
                quantities[f"{name}/{answer}"] = measure(image, truth, spatial_dims=dims)
        self._add(quantities)

    def compute(self) -> dict[str, Statistic]:
        """Return the mean over images and the standard error of each quantity above."""
        baseline = "mean_absolute_error/factual"
        return super().compute() | {
            f"ratio/{answer}": self._ratio(f"mean_absolute_error/{answer}", baseline)
            for answer in ("particle_mean", "particle")
        }


class Effectiveness(PerImageMetric):
    """Error of an attribute measured in counterfactual images, in units of the attribute.

    After do(a = a*), the attribute measured in the counterfactual image should be a* (Monteiro et
    al. 2023, "Measuring axiomatic soundness of counterfactual image models", arXiv:2303.01274):

    - ``absolute_error``: the mean of |measured − intended|;
    - ``bias``: the mean of measured − intended;
    - ``unmeasurable``: the fraction of particles that could not be measured, such as the thickness
      of a black image, which are NaN or infinite. The other two are means over the other particles,
      and NaN if there are none.

    The measurement itself has an error, which measured attributes of true images show.

    Example:
        >>> metric = Effectiveness()
        >>> measured = torch.tensor([[2.5], [4.0], [1.0], [torch.nan]])
        >>> metric.update(measured[None], intended=torch.tensor([[2.0], [3.0], [1.0], [1.0]]))
        >>> result = metric.compute()
        >>> result["absolute_error"].mean, result["unmeasurable"].mean
        (0.5, 0.25)
    """

    def __init__(self) -> None:
        super().__init__(["absolute_error", "bias", "measurable", "unmeasurable"])

    def update(self, measured: Tensor, intended: Tensor) -> None:
        """Add a batch.

        Args:
            measured: ``(P, B, 1)``; NaN or infinite where a measurement was impossible.
            intended: ``(B, 1)``.

        Raises:
            ValueError: If shapes or devices do not match, or an intended value is not finite.
        """
        require_particles(measured=measured, intended=intended)
        if intended.dim() != 2 or intended.shape[1] != 1:
            raise ValueError(
                f"intended: expected shape (batch, 1), but got {tuple(intended.shape)}."
            )
        require_finite_values(intended=intended)
        error = (at_least_single(measured) - at_least_single(intended)).squeeze(-1)
        measurable = torch.isfinite(error)
        error = error.where(measurable, 0)
        fraction = measurable.to(error).mean(dim=0)
        self._add(
            {
                "absolute_error": error.abs().mean(dim=0),
                "bias": error.mean(dim=0),
                "measurable": fraction,
                "unmeasurable": 1 - fraction,
            }
        )

    def compute(self) -> dict[str, Statistic]:
        """Return the three quantities above."""
        unmeasurable = super().compute()["unmeasurable"]
        return {
            "absolute_error": self._ratio("absolute_error", "measurable"),
            "bias": self._ratio("bias", "measurable"),
            "unmeasurable": unmeasurable,
        }
