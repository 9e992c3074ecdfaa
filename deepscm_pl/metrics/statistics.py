"""Base classes of metrics, which merge means and collected rows over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from deepscm_pl.metrics.functional.checks import require_same_device

__all__ = [
    "CollectingMetric",
    "PerImageMetric",
    "PerImageStatistics",
    "Statistic",
    "concatenate",
    "merge_moments",
    "moments_of",
    "require_metric_device",
]


class CollectingMetric(Metric):
    """Base of metrics that collect rows: every state is a list of ``(N, K)`` in double precision.

    Some processes may have no rows.
    """

    full_state_update = False

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        # The placeholder of torchmetrics is one-dimensional and in single precision; gathering
        # tensors of different dimensions or types blocks all processes.
        for name, rows in self.metric_state.items():
            if isinstance(rows, list) and not rows:
                setattr(self, name, [torch.empty(0, 0, dtype=torch.float64, device=self.device)])

        def gather(rows: Tensor, group: Any | None = None) -> list[Tensor]:
            parts = dist_sync_fn(rows, group=group)
            return [part for part in parts if len(part)] or parts[:1]

        super()._sync_dist(gather, process_group)


def require_metric_device(metric: Metric, values: Tensor) -> None:
    """Raise ValueError unless the values are on the device of the metric."""
    # The device of a metric may lack its number, that of a tensor never does.
    device = torch.empty(0, device=metric.device).device
    if values.device != device:
        raise ValueError(
            f"{type(metric).__name__}: expected tensors on {device}, where the metric is, but got "
            f"{values.device}; move the metric with .to({str(values.device)!r})."
        )


def concatenate(metric: Metric, parts: Tensor | list[Tensor]) -> Tensor:
    """Concatenate all rows that a metric has collected; raise RuntimeError if there are none."""
    # After synchronisation, torchmetrics replaces the list by one tensor.
    rows = torch.cat(parts) if isinstance(parts, list) and parts else parts
    if isinstance(rows, list) or len(rows) == 0:
        raise _nothing_to_compute(metric)
    return rows


def _nothing_to_compute(metric: Metric) -> RuntimeError:
    return RuntimeError(
        f"{type(metric).__name__}: there is nothing to compute yet; call update with at least one "
        "image or value first."
    )


def moments_of(values: Tensor) -> Tensor:
    """Compute counts, means and sums of products of deviations of N observations of K quantities.

    Deviations from the mean keep their digits where the spread is small relative to the mean.

    Args:
        values: ``(N, K)``.

    Returns:
        ``(K + 2, K)`` in double precision: a row of counts, a row of means m, and the matrix
        Σ (x − m)(x − m)ᵀ.
    """
    count, size = values.shape
    values = values.double()
    if count == 0:
        return values.new_zeros(size + 2, size)
    # Relative to the first row, so that the mean of equal values is exactly that value.
    mean = values[0] + (values - values[0]).mean(dim=0)
    deviations = values - mean
    return torch.cat([torch.full_like(mean, count)[None], mean[None], deviations.T @ deviations])


def merge_moments(parts: Tensor) -> Tensor:
    """Merge the moments of R disjoint sets of observations, ``(R, K + 2, K)``.

    This is the parallel algorithm of Chan, Golub and LeVeque (1983), "Algorithms for computing the
    sample variance".
    """
    counts, means, products = parts[:, 0, :1], parts[:, 1], parts[:, 2:]
    total = counts.sum(dim=0)
    reference = means[counts.argmax()]
    # Parts without observations contribute neither a NaN of another part nor their zero mean.
    shift = torch.where(counts > 0, means - reference, 0)
    mean = reference + (counts * shift).sum(dim=0) / total.clamp(min=1)
    deviations = torch.where(counts > 0, means - mean, 0)
    between = (counts * deviations).T @ deviations
    return torch.cat([parts.sum(dim=0)[:1], mean[None], products.sum(dim=0) + between])


class Statistic(NamedTuple):
    """Mean over N images and its standard error, the standard deviation over √N."""

    mean: float
    standard_error: float


class PerImageMetric(Metric):
    """Base of metrics that average several named quantities over images.

    A subclass computes the quantities of a batch in ``update`` and passes them to :meth:`_add`.
    Averages depend neither on the batch size nor on the distribution of images over processes. No
    gradient is kept.

    Args:
        names: The quantities.

    Raises:
        ValueError: If there is no name, or a name occurs twice.
    """

    full_state_update = False
    moments: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"names: expected at least one, all different, but got {list(names)}; name each "
                "quantity once."
            )
        self.names = tuple(names)
        moments = moments_of(torch.empty(0, len(self.names)))
        self.add_state("moments", moments, dist_reduce_fx=merge_moments)

    def compute(self) -> dict[str, Statistic]:
        """Return the :class:`Statistic` of each quantity; raise RuntimeError without images."""
        if not bool(self.moments[0, 0] > 0):
            raise _nothing_to_compute(self)
        return {name: self._statistic({name: 1.0}) for name in self.names}

    def _add(self, quantities: Mapping[str, Tensor]) -> None:
        """Add a batch: for each quantity one value per image, ``(batch,)``."""
        # Convert before stacking: a common lower precision may overflow.
        values = torch.stack([quantities[name].detach().double() for name in self.names], dim=1)
        require_metric_device(self, values)
        # Not in place: inference tensors cannot be changed outside of inference mode.
        self.moments = merge_moments(torch.stack([self.moments, moments_of(values)]))

    def _ratio(self, numerator: str, denominator: str) -> Statistic:
        """Ratio of two means, with the standard error of the linearised ratio."""
        means = dict(zip(self.names, self.moments[1].tolist(), strict=True))
        if means[denominator] == 0:
            mean = float("nan") if means[numerator] == 0 else float("inf")
            return Statistic(mean, float("nan"))
        ratio = means[numerator] / means[denominator]
        residual = self._statistic({numerator: 1.0, denominator: -ratio})
        return Statistic(ratio, residual.standard_error / abs(means[denominator]))

    def _statistic(self, weights: Mapping[str, float]) -> Statistic:
        """Statistic of a weighted sum of quantities."""
        rows = [self.names.index(name) for name in weights]
        weight = self.moments.new_tensor(list(weights.values()))
        count, means = self.moments[0, 0], self.moments[1, rows]
        products = self.moments[2:][rows][:, rows]
        # Unbiased; NaN for a single image.
        variance = (weight @ products @ weight).clamp(min=0) / (count - 1)
        return Statistic((weight @ means).item(), (variance / count).sqrt().item())


class PerImageStatistics(PerImageMetric):
    """Mean and standard error over images of several named quantities.

    Args:
        names: The quantities.

    Example:
        >>> statistics = PerImageStatistics(["bound"])
        >>> statistics.update({"bound": torch.tensor([1.0, 3.0])})
        >>> statistics.update({"bound": torch.tensor([2.0])})
        >>> statistics.compute()["bound"].mean
        2.0
    """

    def update(self, quantities: Mapping[str, Tensor]) -> None:
        """Add a batch: for each quantity one value per image, ``(batch,)``.

        Raises:
            ValueError: If a quantity is missing or not one-dimensional, or lengths or devices of
                quantities differ.
        """
        missing = [name for name in self.names if name not in quantities]
        if missing:
            raise ValueError(f"quantities: {', '.join(missing)} is missing.")
        first = self.names[0]
        for name in self.names:
            shape = tuple(quantities[name].shape)
            if len(shape) != 1:
                raise ValueError(
                    f"quantities: expected shape (batch,) for {name}, but got {shape}."
                )
            if len(quantities[name]) != len(quantities[first]):
                raise ValueError(
                    f"quantities: expected as many values of {name} as of {first}, "
                    f"{len(quantities[first])}, but got {len(quantities[name])}."
                )
        require_same_device(**{name: quantities[name] for name in self.names})
        self._add(quantities)
