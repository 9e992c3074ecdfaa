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
    "MeasurementErrors",
]


@dataclass(frozen=True)
class ErrorEstimates(Quantities):
    """One measure of error against the true image, for the model and for two baselines.

    Attributes:
        particle_mean: Of the mean of the particles.
        particle: Of a single particle.
        factual: Of the unchanged factual image.
        stranger: Of the true image of another original with the same attributes.
    """

    particle_mean: Estimate | None = None
    particle: Estimate | None = None
    factual: Estimate | None = None
    stranger: Estimate | None = None


@dataclass(frozen=True)
class ImageErrors(Quantities):
    """Errors of images, see :class:`~deepscm_pl.metrics.GroundTruthError`."""

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
    """Coverage by level, see :class:`~deepscm_pl.metrics.IntervalCoverage`.

    Attributes:
        all: Over all pixels.
        varying: Over the pixels that vary.
        fraction_varying: Fraction of the pixels that vary.
    """

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
    """Errors of an attribute measured in counterfactual images.

    Attributes:
        intended: Against the value that the model intended.
        true: Against the true value, if the attribute follows the intervention.
        noise_floor: Of the attribute measured in true images, against the true value.
    """

    intended: MeasurementErrors
    true: MeasurementErrors | None = None
    noise_floor: MeasurementErrors | None = None


@dataclass(frozen=True)
class IdentityEstimates(Quantities):
    """Fraction of images with the predicted class of the factual image.

    Attributes:
        kept: Of counterfactual images.
        truth: Of true counterfactual images.
    """

    kept: Estimate | None = None
    truth: Estimate | None = None


@dataclass(frozen=True)
class CounterfactualResult(Quantities):
    """Evaluation of one intervention.

    Attributes:
        question: The intervention.
        rows: Number of rows for which the intervention is possible.
        left_out: Number of the other rows, which are ignored.
        error: Errors of a single draw for each row.
        minimality: Change of the images.
        attribute_error: Error of each attribute that follows the intervention.
        particles: Errors of particles for the detail rows.
        coverage: Coverage by particles for the detail rows.
        effectiveness: Of each measured attribute.
        identity: Of the classes of images.
        reversibility: Error after k cycles, in grey levels, by k.
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

    @property
    def quantities(self) -> dict[str, Estimate]:
        """All estimates by their keys in JSON, such as ``error/mean_absolute_error/particle``."""
        return by_key(self, Estimate)
