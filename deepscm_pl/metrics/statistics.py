"""Means and standard errors over images, exact on any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["PerImageStatistics", "Statistic"]


class Statistic(NamedTuple):
    """A mean over images and its standard error (the deviation over √N)."""

    mean: float
    standard_error: float


class PerImageStatistics(Metric):
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

    full_state_update = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        size = len(self.names)
        self.add_state("count", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, quantities: Mapping[str, Tensor]) -> None:
        """Add a batch: for each quantity one value per image, ``(batch,)``.

        Raises:
            ValueError: If a quantity is missing or has more than one dimension.
        """
        missing = [name for name in self.names if name not in quantities]
        if missing:
            raise ValueError(f"quantities: {', '.join(missing)} is missing.")
        wrong = [name for name in self.names if quantities[name].dim() != 1]
        if wrong:
            raise ValueError(
                f"quantities: expected shape (batch,) for {wrong[0]}, but got "
                f"{tuple(quantities[wrong[0]].shape)}."
            )
        values = torch.stack([quantities[name].detach().double() for name in self.names])
        # Not in place: a state made in inference mode could not be changed outside of it.
        self.count = self.count + values.shape[1]
        self.total = self.total + values.sum(dim=1)
        self.squares = self.squares + values.square().sum(dim=1)

    def compute(self) -> dict[str, Statistic]:
        """For each quantity its :class:`Statistic`."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        # Unbiased; a single image has no error to tell.
        error = (variance / (self.count - 1)).sqrt()
        return {
            name: Statistic(mean[k].item(), error[k].item()) for k, name in enumerate(self.names)
        }
