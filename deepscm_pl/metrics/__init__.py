"""Metrics: pure functions in :mod:`~deepscm_pl.metrics.functional`, and torchmetrics over them."""

from deepscm_pl.metrics.statistics import PerImageStatistics, Statistic

__all__ = ["PerImageStatistics", "Statistic"]
