"""Results of counterfactuals, with one estimate per field.

Fields are None where a quantity is unknown, such as the truth without a known world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deepscm_pl.evaluation.estimate import Estimate, Quantities, by_key
from deepscm_pl.evaluation.questions import Question

__all__ = [
    "ChangeEstimates",
    "CounterfactualResult",
    "CoverageEstimates",
    "EffectivenessEstimates",
    "ErrorEstimates",
    "IdentityEstimates",
    "ImageErrors",
    "IntervalEstimates",
    "MeasurementErrors",
]


@dataclass(frozen=True)
class ErrorEstimates(Quantities):
    """One measure of error against the true image.

    ``factual`` and ``stranger`` (another original with the same attributes) are baselines, see
    :class:`~deepscm_pl.metrics.GroundTruthError`.
    """

    particle_mean: Estimate | None = None
    particle: Estimate | None = None
    factual: Estimate | None = None
    stranger: Estimate | None = None


@dataclass(frozen=True)
class ImageErrors(Quantities):
    """Errors of images by measure; ratios are to the error of the unchanged factual image."""

    mean_absolute_error: ErrorEstimates = ErrorEstimates()
    peak_signal_to_noise_ratio: ErrorEstimates = ErrorEstimates()
    structural_similarity: ErrorEstimates = ErrorEstimates()
    ratio: ErrorEstimates = ErrorEstimates()


@dataclass(frozen=True)
class ChangeEstimates(Quantities):
    """Change of images in grey levels, see :class:`~deepscm_pl.metrics.Minimality`."""

    counterfactual: Estimate | None = None
    truth: Estimate | None = None
    ratio: Estimate | None = None


@dataclass(frozen=True)
class CoverageEstimates(Quantities):
    """Coverage of all and of varying pixels, by level, and the fraction of varying pixels."""

    all: Mapping[float, Estimate] = field(default_factory=dict)
    varying: Mapping[float, Estimate] = field(default_factory=dict)
    fraction_varying: Estimate | None = field(default=None, metadata={"key": "varying"})


@dataclass(frozen=True)
class MeasurementErrors(Quantities):
    """Errors of a measured attribute, see :class:`~deepscm_pl.metrics.Effectiveness`."""

    absolute_error: Estimate
    bias: Estimate
    unmeasurable: Estimate


@dataclass(frozen=True)
class EffectivenessEstimates(Quantities):
    """Errors of a measured attribute, against the intended and, if it changes, the true value.

    The noise floor is the error of measurements in true images. ``shown`` is the share of the asked
    change that images show, 1 for a perfect image model: the slope of measured changes over
    intended ones, and for classes the share of images that show another one that is asked. Images
    that cannot be measured show none.
    """

    intended: MeasurementErrors
    true: MeasurementErrors | None = None
    noise_floor: MeasurementErrors | None = None
    shown: Estimate | None = None


@dataclass(frozen=True)
class IdentityEstimates(Quantities):
    """Fraction of counterfactuals, and of their truth, with the class of the factual image."""

    kept: Estimate | None = None
    truth: Estimate | None = None


@dataclass(frozen=True)
class IntervalEstimates(Quantities):
    """Width and coverage of the particles and of calibrated intervals.

    See :class:`~deepscm_pl.metrics.IntervalQuality`. Widths are in grey levels, of varying pixels.
    """

    spread_over_error: Estimate | None = None
    width_of_particles: Estimate | None = None
    covered_all: Estimate | None = field(default=None, metadata={"key": "covered/all"})
    covered_varying: Estimate | None = field(default=None, metadata={"key": "covered/varying"})
    width: Estimate | None = None


@dataclass(frozen=True)
class CounterfactualResult(Quantities):
    """Evaluation of one intervention.

    Errors are of a single draw for each row; ``particles`` and ``coverage`` are of all particles of
    the detail rows. ``attribute_error`` and ``effectiveness`` are by attribute, ``reversibility``
    is the error in grey levels after k cycles, by k; ``intervals`` are of the detail rows. Rows in
    which the intervention is impossible are counted as ``left_out``.
    """

    question: Question
    rows: int
    left_out: int
    error: ImageErrors = ImageErrors()
    minimality: ChangeEstimates = ChangeEstimates()
    attribute_error: Mapping[str, Estimate] = field(default_factory=dict)
    particles: ImageErrors = ImageErrors()
    coverage: CoverageEstimates = CoverageEstimates()
    effectiveness: Mapping[str, EffectivenessEstimates] = field(default_factory=dict)
    identity: IdentityEstimates = IdentityEstimates()
    reversibility: Mapping[int, Estimate] = field(
        default_factory=dict, metadata={"key": "reversibility/mean_absolute_error"}
    )
    intervals: IntervalEstimates = IntervalEstimates()

    @property
    def quantities(self) -> dict[str, Estimate]:
        """All estimates by their keys in JSON, such as ``error/mean_absolute_error/particle``."""
        return by_key(self, Estimate)
