"""How far a model's distribution of a scalar is from the true one."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.metrics.functional import wasserstein_distance
from deepscm_pl.metrics.functional.checks import (
    require_finite,
    require_same_device,
    require_same_shape,
)
from deepscm_pl.metrics.state import CollectingMetric, joined, require_metric_device

__all__ = ["DistributionDistance"]


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
