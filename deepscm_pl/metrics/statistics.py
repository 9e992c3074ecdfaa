"""The state of metrics: what all check about it, and rows that are kept."""

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
    "joined",
    "merge_moments",
    "moments_of",
    "no_moments",
    "nothing_to_compute",
    "require_metric_device",
]


class CollectingMetric(Metric):
    """Base of metrics that keep rows: every state is a list of ``(N, K)`` in double precision.

    A process without rows gathers none, whatever K is in the others.
    """

    full_state_update = False

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        # The placeholder of torchmetrics has one dimension and single precision, and processes that
        # gather tensors of another form than the others stop all of them.
        for name, rows in self.metric_state.items():
            if isinstance(rows, list) and not rows:
                setattr(self, name, [torch.empty(0, 0, dtype=torch.float64, device=self.device)])

        def gather(rows: Tensor, group: Any | None = None) -> list[Tensor]:
            parts = dist_sync_fn(rows, group=group)
            return [part for part in parts if len(part)] or parts[:1]

        super()._sync_dist(gather, process_group)


def require_metric_device(metric: Metric, values: Tensor) -> None:
    """Raise unless what a metric is updated with is on the metric's device.

    Raises:
        ValueError: Naming both devices.
    """
    # A tensor knows the number of its device, which the metric may not.
    device = torch.empty(0, device=metric.device).device
    if values.device != device:
        raise ValueError(
            f"{type(metric).__name__}: expected tensors on {device}, where the metric is, but got "
            f"{values.device}; move the metric with .to({str(values.device)!r})."
        )


def joined(metric: Metric, parts: Tensor | list[Tensor]) -> Tensor:
    """All rows that a metric has collected; processes hand over one tensor instead of several.

    Raises:
        RuntimeError: If there are none.
    """
    rows = torch.cat(parts) if isinstance(parts, list) and parts else parts
    if isinstance(rows, list) or len(rows) == 0:
        raise nothing_to_compute(metric)
    return rows


def nothing_to_compute(metric: Metric) -> RuntimeError:
    """The error of a metric that is computed before any update."""
    return RuntimeError(
        f"{type(metric).__name__}: there is nothing to compute yet; call update with at least one "
        "image or value first."
    )


def no_moments(size: int) -> Tensor:
    """The moments of no observation of ``size`` quantities."""
    return torch.zeros(size + 2, size, dtype=torch.float64)


def moments_of(values: Tensor) -> Tensor:
    """Count, mean and sums of products of deviations of N observations of K quantities.

    Sums of squares lose all digits where the spread is small beside the mean; deviations from the
    mean do not.

    Args:
        values: ``(N, K)``.

    Returns:
        ``(K + 2, K)`` in double precision: a row of counts, a row of means m, and the matrix
        Σ (x − m)(x − m)ᵀ.
    """
    count, size = values.shape
    if count == 0:
        return no_moments(size).to(values.device)
    values = values.double()
    # Relative to the first, so that the mean of equal values is exactly that value.
    mean = values[0] + (values - values[0]).mean(dim=0)
    deviations = values - mean
    return torch.cat([_row(count, mean), mean[None], deviations.T @ deviations])


def merge_moments(parts: Tensor) -> Tensor:
    """The moments of all observations, of those of R parts of them, ``(R, K + 2, K)``.

    The parallel algorithm of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample
    variance".
    """
    counts, means, products = parts[:, 0, :1], parts[:, 1], parts[:, 2:]
    total = counts.sum(dim=0)
    # Relative to the largest part; one without observations has no mean to speak of.
    reference = means[counts.argmax()]
    # Parts without observations must not spread a NaN of another, nor their own zero mean.
    shift = torch.where(counts > 0, means - reference, 0)
    mean = reference + (counts * shift).sum(dim=0) / total.clamp(min=1)
    deviations = torch.where(counts > 0, means - mean, 0)
    between = (counts * deviations).T @ deviations
    return torch.cat([parts.sum(dim=0)[:1], mean[None], products.sum(dim=0) + between])


def _row(count: int, like: Tensor) -> Tensor:
    return torch.full_like(like, count)[None]


class Statistic(NamedTuple):
    """A mean over images and its standard error (the deviation over √N)."""

    mean: float
    standard_error: float


class PerImageMetric(Metric):
    """Base of metrics that are means over images of several named quantities.

    A subclass computes the quantities of a batch in ``update`` and hands them to :meth:`_add`.
    Averages are over images, not over batches: they do not depend on the batch size or on how the
    images are spread over processes. Nothing is differentiated.

    Args:
        names: The quantities.

    Raises:
        ValueError: If there is no name, or one is there twice.
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
        self.add_state("moments", no_moments(len(self.names)), dist_reduce_fx=merge_moments)

    def compute(self) -> dict[str, Statistic]:
        """For each quantity its :class:`Statistic`.

        Raises:
            RuntimeError: If there was no image so far.
        """
        return self._statistics()

    def _add(self, quantities: Mapping[str, Tensor]) -> None:
        """Add a batch: for each quantity one value per image, ``(batch,)``."""
        # Each in double precision first: in the one that they share, numbers may be infinite.
        values = torch.stack([quantities[name].detach().double() for name in self.names], dim=1)
        require_metric_device(self, values)
        # Not in place: a state made in inference mode could not be changed outside of it.
        self.moments = merge_moments(torch.stack([self.moments, moments_of(values)]))

    def _statistics(self) -> dict[str, Statistic]:
        self._require_images()
        return {name: self._statistic({name: 1.0}) for name in self.names}

    def _ratio(self, numerator: str, denominator: str) -> Statistic:
        """The ratio of two means; its standard error is that of the linearised ratio."""
        means = dict(zip(self.names, self.moments[1].tolist(), strict=True))
        if means[denominator] == 0:
            mean = float("nan") if means[numerator] == 0 else float("inf")
            return Statistic(mean, float("nan"))
        ratio = means[numerator] / means[denominator]
        residual = self._statistic({numerator: 1.0, denominator: -ratio})
        return Statistic(ratio, residual.standard_error / abs(means[denominator]))

    def _statistic(self, weights: Mapping[str, float]) -> Statistic:
        """Of a weighted sum of quantities."""
        rows = [self.names.index(name) for name in weights]
        weight = self.moments.new_tensor(list(weights.values()))
        count, means = self.moments[0, 0], self.moments[1, rows]
        products = self.moments[2:][rows][:, rows]
        # Unbiased; a single image has no error to tell.
        variance = (weight @ products @ weight).clamp(min=0) / (count - 1)
        return Statistic((weight @ means).item(), (variance / count).sqrt().item())

    def _require_images(self) -> None:
        if not bool(self.moments[0, 0] > 0):
            raise nothing_to_compute(self)


class PerImageStatistics(PerImageMetric):
    """Mean and standard error over images of several named quantities.

    Averages over images, not over batches, and so does not depend on the batch size or on how the
    images are spread over processes.

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
            ValueError: If a quantity is missing, has more than one dimension or another length or
                device than the others.
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
