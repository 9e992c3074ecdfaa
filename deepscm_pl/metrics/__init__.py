"""Metrics: pure functions in :mod:`~deepscm_pl.metrics.functional`, and torchmetrics over them.

What is measured of a causal model, its counterfactuals above all; every metric takes tensors and
serves models made elsewhere too. Particles (draws of what an observation does not determine) come
first, ``(P, B, *event)``; images are in grey levels, 0 to 255.
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.metrics.axioms import (
        Composition,
        IdentityPreservation,
        Minimality,
        Reversibility,
    )
    from deepscm_pl.metrics.calibration import IntervalCoverage, NoiseCalibration
    from deepscm_pl.metrics.ground_truth import Effectiveness, GroundTruthError
    from deepscm_pl.metrics.statistics import PerImageMetric, PerImageStatistics, Statistic

__all__ = [
    "Composition",
    "Effectiveness",
    "GroundTruthError",
    "IdentityPreservation",
    "IntervalCoverage",
    "Minimality",
    "NoiseCalibration",
    "PerImageMetric",
    "PerImageStatistics",
    "Reversibility",
    "Statistic",
]

__getattr__ = first_use(__name__)
