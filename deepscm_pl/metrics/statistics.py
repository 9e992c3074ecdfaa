"""Means and standard errors over images, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from deepscm_pl.metrics.functional.checks import require_same_device
from deepscm_pl.metrics.moments import merge_moments, moments_of, no_moments
from deepscm_pl.metrics.state import nothing_to_compute, require_metric_device

__all__ = ["PerImageMetric", "PerImageStatistics", "Statistic"]


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
