"""Numbers of an evaluation, each with its standard error and the rows that it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torchmetrics import Metric

from deepscm_pl.metrics import Statistic

__all__ = ["Estimate", "Quantities", "alone", "over_rows"]


class Estimate(NamedTuple):
    """A mean over rows of the test split, or another number that describes them.

    Attributes:
        mean: The number.
        standard_error: Its standard error; NaN where there is none to tell.
        rows: How many rows it is over.
    """

    mean: float
    standard_error: float
    rows: int

    def as_plain_data(self) -> dict[str, float | int | None]:
        """For JSON, which has neither NaN nor infinity.

        Example:
            >>> Estimate(2.0, math.nan, 1).as_plain_data()
            {'mean': 2.0, 'standard_error': None, 'rows': 1}
        """
        return {
            name: value if math.isfinite(value) else None for name, value in self._asdict().items()
        }


Quantities: TypeAlias = Mapping[str, Estimate]
"""Name of a quantity, parts joined by slashes -> its estimate."""


def over_rows(
    statistics: Mapping[str, Statistic], rows: int, prefix: str = ""
) -> dict[str, Estimate]:
    """What a metric computed, with the rows that it is over.

    Example:
        >>> over_rows({"error": Statistic(1.0, 0.5)}, rows=4, prefix="image/")
        {'image/error': Estimate(mean=1.0, standard_error=0.5, rows=4)}
    """
    return {
        prefix + name: Estimate(value.mean, value.standard_error, rows)
        for name, value in statistics.items()
    }


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
