"""Metrics: pure functions in :mod:`~deepscm_pl.metrics.functional`, and torchmetrics over them.

What is measured of a causal model, its counterfactuals above all; every metric takes tensors and
serves models made elsewhere too. Particles (draws of what an observation does not determine) come
first, ``(P, B, *event)``; images are in grey levels, 0 to 255.
"""

from deepscm_pl.metrics.axioms import Composition, Reversibility
from deepscm_pl.metrics.coverage import IntervalCoverage
from deepscm_pl.metrics.distribution import DistributionDistance
from deepscm_pl.metrics.effectiveness import Effectiveness
from deepscm_pl.metrics.ground_truth import GroundTruthError
from deepscm_pl.metrics.identity import IdentityPreservation
from deepscm_pl.metrics.minimality import Minimality
from deepscm_pl.metrics.noise import NoiseCalibration
from deepscm_pl.metrics.statistics import PerImageMetric, PerImageStatistics, Statistic

__all__ = [
    "Composition",
    "DistributionDistance",
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
