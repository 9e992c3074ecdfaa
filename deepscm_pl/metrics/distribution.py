"""How far a model's distribution of a scalar is from the true one."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import wasserstein_distance
from deepscm_pl.metrics.functional.checks import (
    at_least_single,
    require_finite,
    require_particles,
    require_same_device,
    require_same_shape,
)
from deepscm_pl.metrics.statistics import (
    CollectingMetric,
    PerImageMetric,
    Statistic,
    joined,
    require_metric_device,
)

__all__ = ["DistributionDistance", "Effectiveness"]


class DistributionDistance(CollectingMetric):
    """The Wasserstein distance between a sample of a model and one of the true world.

    For observational, interventional or, by weights, conditional distributions of a scalar, such as
    p(i | do(t)), in its units. Keeps all values, and is exact over processes.

    Example:
        >>> metric = DistributionDistance()
        >>> metric.update(torch.tensor([[1.0], [2.0]]), reference=torch.tensor([[4.0], [3.0]]))
        >>> metric.compute()
        tensor(2., dtype=torch.float64)
    """

    sample: list[Tensor]
    reference: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sample", [], dist_reduce_fx="cat")
        self.add_state("reference", [], dist_reduce_fx="cat")

    def update(
        self,
        sample: Tensor,
        reference: Tensor,
        sample_weight: Tensor | None = None,
        reference_weight: Tensor | None = None,
    ) -> None:
        """Add to both samples.

        Args:
            sample: Values of the model, ``(N, 1)``.
            reference: Values of the true world, ``(M, 1)``.
            sample_weight: Weights of the model's values, ``(N, 1)``; equal if left out.
            reference_weight: Weights of the true values, ``(M, 1)``.

        Raises:
            ValueError: If a shape is not of this form, shapes or devices do not match, or a value
                or weight is not finite.
        """
        require_same_device(sample=sample, reference=reference)
        require_metric_device(self, sample)
        own = _weighted("sample", sample, sample_weight)
        true = _weighted("reference", reference, reference_weight)
        self.sample.append(own)
        self.reference.append(true)

    def compute(self) -> Tensor:
        """The distance, a scalar in double precision.

        Raises:
            RuntimeError: If there was no value so far.
            ValueError: If weights are negative or all zero.
        """
        sample, reference = joined(self, self.sample), joined(self, self.reference)
        return wasserstein_distance(sample[:, 0], reference[:, 0], sample[:, 1], reference[:, 1])


def _weighted(name: str, values: Tensor, weight: Tensor | None) -> Tensor:
    """Values and weights, ``(N, 2)`` in double precision."""
    if values.dim() != 2 or values.shape[1] != 1:
        raise ValueError(f"{name}: expected shape (N, 1), but got {tuple(values.shape)}.")
    weight = torch.ones_like(values) if weight is None else weight
    require_same_shape(**{f"{name}_weight": weight, name: values})
    require_finite(**{name: values, f"{name}_weight": weight})
    return torch.cat([values.detach().double(), weight.detach().double()], dim=1)


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
