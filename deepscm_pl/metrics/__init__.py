"""Metrics of causal models: pure functions, and torchmetrics classes that use them.

Every metric takes tensors, so that other models can be measured, too. Particles (draws of the noise
that an observation does not determine) come first, ``(P, B, *event)``. Images are in grey levels, 0
to 255. Nothing is broadcast: shapes and devices that do not match raise ValueError.
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.metrics.axioms import (
        Composition as Composition,
        IdentityPreservation as IdentityPreservation,
        Minimality as Minimality,
        Reversibility as Reversibility,
    )
    from deepscm_pl.metrics.calibration import (
        IntervalCoverage as IntervalCoverage,
        NoiseCalibration as NoiseCalibration,
    )
    from deepscm_pl.metrics.ground_truth import (
        Effectiveness as Effectiveness,
        GroundTruthError as GroundTruthError,
    )
    from deepscm_pl.metrics.intervals import IntervalQuality as IntervalQuality
    from deepscm_pl.metrics.perceptual import (
        FrechetDistance as FrechetDistance,
        KernelDistance as KernelDistance,
        PerceptualDistance as PerceptualDistance,
    )
    from deepscm_pl.metrics.programs import (
        FeatureProgram as FeatureProgram,
        PairProgram as PairProgram,
        load_program as load_program,
    )
    from deepscm_pl.metrics.regions import RegionError as RegionError
    from deepscm_pl.metrics.statistics import (
        PerImageMetric as PerImageMetric,
        PerImageStatistics as PerImageStatistics,
        Statistic as Statistic,
    )

__getattr__ = first_use(__name__)
