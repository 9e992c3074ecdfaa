"""The state of metrics: what all check about it, and rows that are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

__all__ = ["CollectingMetric", "joined", "nothing_to_compute", "require_metric_device"]


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
