"""Estimates with standard errors, and their keys in JSON and TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

from deepscm_pl.metrics import Statistic

__all__ = ["Estimate", "Quantities", "by_key", "estimates_of", "on_one_process"]

Leaf = TypeVar("Leaf")
AnyMetric = TypeVar("AnyMetric", bound=Metric)


class Estimate(NamedTuple):
    """Mean over rows, or a ratio of means, with its standard error (NaN if unknown)."""

    mean: float
    standard_error: float
    rows: int

    @classmethod
    def of(cls, rows: Tensor) -> Estimate:
        """The mean over rows ``(N,)``, with its standard error.

        Example:
            >>> Estimate.of(torch.tensor([1.0, 3.0], dtype=torch.float64))
            Estimate(mean=2.0, standard_error=1.0, rows=2)
        """
        error = float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
        return cls(float(rows.mean()), error, len(rows))

    def as_plain_data(self) -> dict[str, float | int | None]:
        """Return plain data for JSON, with None instead of NaN and infinity.

        Example:
            >>> Estimate(2.0, math.nan, 1).as_plain_data()
            {'mean': 2.0, 'standard_error': None, 'rows': 1}
        """
        return {
            name: value if math.isfinite(value) else None for name, value in self._asdict().items()
        }


class Quantities:
    """Base of dataclasses whose fields are estimates, mappings of them, or further quantities.

    The key of a field is its name, unless ``metadata["key"]`` names another.
    """


def by_key(value: object, leaf: type[Leaf], key: str = "") -> dict[str, Leaf]:
    """Return all values of a type in a result, by keys of fields and mappings joined by slashes.

    Example:
        >>> by_key({"error": {0.5: Estimate(1.0, 0.1, 9), 0.9: None}}, Estimate)
        {'error/0.5': Estimate(mean=1.0, standard_error=0.1, rows=9)}
    """
    if isinstance(value, leaf):
        return {key: value}
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f"{k:g}" if isinstance(k, float) else k, part) for k, part in value.items()]
    elif isinstance(value, Quantities):
        named: Any = value
        parts = [(f.metadata.get("key", f.name), getattr(named, f.name)) for f in fields(named)]
    found: dict[str, Leaf] = {}
    for name, part in parts:
        found |= by_key(part, leaf, f"{key}/{name}" if key else str(name))
    return found


def estimates_of(statistics: Mapping[str, Statistic], rows: int) -> dict[str, Estimate]:
    """Add the number of rows to the statistics of a metric."""
    return {name: Estimate(*value, rows) for name, value in statistics.items()}


def on_one_process(metric: AnyMetric, device: torch.device) -> AnyMetric:
    """Move a metric to a device, and restrict it to the rows of this process.

    By default, a metric gathers rows from every process when it is computed. The evaluation runs in
    the first process only, which would wait for the others forever.
    """
    metric.distributed_available_fn = _not_distributed
    return metric.to(device)


def _not_distributed() -> bool:
    return False
