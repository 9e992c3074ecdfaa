"""Metrics of causal models: pure functions, and torchmetrics classes that use them.

Every metric takes tensors, so that other models can be measured, too. Particles (draws of the noise
that an observation does not determine) come first, ``(P, B, *event)``. Images are in grey levels, 0
to 255.
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
