"""What all metrics check about their state."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["joined", "nothing_to_compute", "require_metric_device"]


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
