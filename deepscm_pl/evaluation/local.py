"""Metrics that one process computes while the others wait."""

from __future__ import annotations

from typing import TypeVar

import torch
from torchmetrics import Metric

__all__ = ["alone"]

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def alone(metric: AnyMetric, device: torch.device) -> AnyMetric:
    """``metric`` on ``device``, over the rows of this process only.

    By default a metric gathers from every process when it is computed. An evaluation runs in the
    first process, and would wait for the others forever.

    Example:
        >>> from deepscm_pl.metrics import PerImageStatistics
        >>> metric = alone(PerImageStatistics(["bound"]), torch.device("cpu"))
        >>> metric.distributed_available_fn()
        False
    """
    metric.distributed_available_fn = _never
    return metric.to(device)


def _never() -> bool:
    return False
