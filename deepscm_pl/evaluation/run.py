"""Evaluation of a model on the second and third rung of causation, and of its noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from deepscm_pl.checks import process_count, real_number, seed_number, whole_number
from deepscm_pl.evaluation.calibration import (
    calibrate,
    calibrate_by_composition,
    calibrate_by_follow_up,
    check_follow_up,
)
from deepscm_pl.evaluation.cause_predictor import CausePredictor
from deepscm_pl.evaluation.counterfactuals import (
    Classifier,
    CounterfactualResult,
    evaluate_counterfactuals,
    true_counterfactuals,
    true_images,
)
from deepscm_pl.evaluation.cycles import evaluate_composition, evaluate_reversibility
from deepscm_pl.evaluation.densities import DensityResult, evaluate_densities
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.examples import Example, take_examples
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.evaluation.mechanism_fit import MechanismFit
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.noise import NoiseResult, evaluate_noise
from deepscm_pl.evaluation.overlap import OverlapResult, evaluate_overlap
from deepscm_pl.evaluation.questions import Question, check_possible, default_questions
from deepscm_pl.evaluation.reaction import ReactionResult, evaluate_reaction
from deepscm_pl.evaluation.sensitivity import SensitivityResult, evaluate_sensitivity
from deepscm_pl.evaluation.verdict_thresholds import VerdictThresholds
from deepscm_pl.mechanisms.latent import Coupling, LatentImageMechanism, couple_pixel_noise
from deepscm_pl.model_memory import require_memory_for
from deepscm_pl.overlap import OverlapThresholds
from deepscm_pl.reaction import ReactionThresholds
from deepscm_pl.scm import StructuralCausalModel

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "check_density_values",
    "check_questions",
    "check_settings",
    "evaluate",
]

_DETAIL_ROWS = 500
_EXAMPLE_ROWS = 4
_NO_OVERLAP = (
    "Overlap: the model of an earlier version contains no training distribution, and the training "
    "split is unknown."
)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation in Python, in YAML and on the command line.

    Args:
        interventions: As text, such as ``thickness=3``; None for a low and a high value of every
            cause of the image.
        num_particles: P, draws of the noise of each detail row; other rows have one. Intervals are
            evaluated up to the level (P − 1)/(P + 1): 19 particles for levels up to 90 %.
        detail_rows: Number of the first rows with particles, repetitions and pixel noise; None for
            500, or all if there are fewer.
        batch_size: Rows in each batch.
        density_values: Values to set or observe in densities, for each attribute; None for
            quantiles of the test split.
        density_size: Draws for each density.
        overlap_extrapolated: An answer with fewer effective training rows is extrapolated, see
            :class:`~deepscm_pl.overlap.OverlapEstimator`.
        overlap_edge: An answer with fewer effective training rows is at the edge.
        overlap_rows: Number of the first detail rows in which the error against a known world is
            measured within and beyond the training data; 0 for none.
        seed: Random seed; the state of torch's generators is restored.
        workers: Processes to render and measure with; None for one per processor.
        coupling: Coupling of the pixel noise of factual and counterfactual images, ``kept`` or
            ``renewed``; None for that of the model.
        calibration_rows: Number of the first validation rows on which intervals are calibrated;
            None for 200, or all if there are fewer, and 0 for no calibration.
        follow_up: Variables, such as age, that differ between visits of one person and cause the
            change; without a known world, intervals are calibrated on such pairs of visits.
        predict_causes: Whether to train a predictor of the causes of an image, which measures
            whether counterfactual images show what was asked; None if no world measures images.
        predictor_steps: Training steps of the predictor, at most 30 passes over the data.
        reaction_change: See :class:`~deepscm_pl.reaction.ReactionThresholds`, as the following.
        reaction_pixel_noise: The largest share of pixel noise.
        reaction_collapsed: The same if the latent does not change the image.
        reaction_response: The least share of asked changes that images show.
        reaction_skill: The least skill of a predictor.
        verdict: Limits of the verdicts.

    Raises:
        ValueError: If a number is out of its range.
    """

    interventions: list[str] | None = None
    num_particles: int = 19
    detail_rows: int | None = None
    batch_size: int = 256
    density_values: dict[str, list[float]] | None = None
    density_size: int = 10_000
    overlap_extrapolated: float = 1.0
    overlap_edge: float = 10.0
    overlap_rows: int = 32
    seed: int = 0
    workers: int | None = None
    coupling: Coupling | None = None
    calibration_rows: int | None = None
    follow_up: list[str] | None = None
    predict_causes: bool | None = None
    predictor_steps: int = 400
    reaction_change: float = ReactionThresholds.change
    reaction_pixel_noise: float = ReactionThresholds.pixel_noise
    reaction_collapsed: float = ReactionThresholds.collapsed
    reaction_response: float = ReactionThresholds.response
    reaction_skill: float = ReactionThresholds.skill
    verdict: VerdictThresholds = field(default_factory=VerdictThresholds)

    @property
    def reaction(self) -> ReactionThresholds:
        """The limits of the verdicts on the image model."""
        names = [each.name for each in fields(ReactionThresholds)]
        return ReactionThresholds(**{name: getattr(self, f"reaction_{name}") for name in names})

    def __post_init__(self) -> None:
        """Check the range of each number."""
        whole_number("predictor_steps", self.predictor_steps, least=1)
        for each in fields(ReactionThresholds):
            name = f"reaction_{each.name}"
            real_number(name, getattr(self, name), least=0, most=1)
        whole_number("num_particles", self.num_particles, least=1)
        if self.detail_rows is not None:
            whole_number("detail_rows", self.detail_rows, least=2)
        if self.calibration_rows is not None:
            whole_number("calibration_rows", self.calibration_rows, least=0)
        whole_number("batch_size", self.batch_size, least=1)
        whole_number("density_size", self.density_size, least=2)
        for name, values in (self.density_values or {}).items():
            for value in values:
                real_number(f"density_values.{name}", value)
        least = real_number("overlap_extrapolated", self.overlap_extrapolated, above=0)
        real_number("overlap_edge", self.overlap_edge, least=least)
        whole_number("overlap_rows", self.overlap_rows, least=0)
        seed_number("seed", self.seed)
        if self.workers is not None:
            process_count("workers", self.workers)


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation on the first of the ``available`` rows of a test split.

    Expensive quantities are those of the first ``detail_rows`` rows, with ``particles`` draws each.
    ``composition`` is the error in grey levels after k null interventions, by k, and
    ``composition_without_pixel_noise`` that of the latent alone; ``left_out`` lists the parts that
    were not evaluated, with reasons. ``overlap`` is None if the distribution of the training split
    is unknown. ``mechanisms`` is the fit of each mechanism in the validation split, if it is known.
    ``thresholds`` are the limits of the verdicts on these results.
    """

    rows: int
    detail_rows: int
    particles: int
    world: str | None
    available: int | None = None
    individuals: int | None = None
    densities: Sequence[DensityResult] = ()
    counterfactuals: Sequence[CounterfactualResult] = ()
    composition: Mapping[int, Estimate] = field(default_factory=dict)
    composition_without_pixel_noise: Mapping[int, Estimate] = field(default_factory=dict)
    noise: Sequence[NoiseResult] = ()
    overlap: OverlapResult | None = None
    reaction: ReactionResult | None = None
    sensitivity: Sequence[SensitivityResult] = ()
    examples: Sequence[Example] = ()
    calibration: Calibration | None = None
    mechanisms: Sequence[MechanismFit] = ()
    left_out: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    thresholds: VerdictThresholds = field(default_factory=VerdictThresholds)


def check_settings(model: ModelOnData, settings: EvaluationSettings) -> list[Question]:
    """Return the interventions to evaluate, if the settings fit the model and its rows.

    Raises:
        ValueError: If there are too few rows or too little memory, or an intervention or a value of
            a density is impossible in the model or the world.
    """
    scm, detail_rows, particles = model.scm, settings.detail_rows, settings.num_particles
    features = sum(scm[name].domain.features for name in scm.image_variables)
    rows = min(settings.batch_size, detail_rows or _DETAIL_ROWS, len(model))
    require_memory_for("num_particles", particles, 4 * particles * rows * features)
    size = settings.density_size
    require_memory_for("density_size", size, 8 * size * len(model.scalars))
    if detail_rows is not None and detail_rows > len(model):
        raise ValueError(
            f"detail_rows: expected from 2 to {len(model)}, the rows of the test split, but got "
            f"{detail_rows}; lower it, or omit it for the default."
        )
    check_density_values(model, settings.density_values)
    if settings.follow_up:
        check_follow_up(model, settings.follow_up)
    return check_questions(model, settings.interventions)


def check_questions(model: ModelOnData, texts: Sequence[str] | None) -> list[Question]:
    """Read and check interventions, by default low and high values of every cause.

    Raises:
        ValueError: If an intervention cannot be read, is impossible in the model or the world, or
            occurs twice.
    """
    if texts is None:
        questions = default_questions(model)
    else:
        questions = [Question(text, model.scm.variables) for text in texts]
    for question in questions:
        question.check(model)
    for first, second in combinations(questions, 2):
        if first.do == second.do:
            raise ValueError(
                f"interventions: expected each once, but {first.text!r} and {second.text!r} are "
                "the same; leave one out."
            )
    return questions


def check_density_values(
    model: ModelOnData, density_values: Mapping[str, Sequence[float]] | None
) -> None:
    """Raise ValueError if a variable has no density, or one of its values is impossible."""
    where = "model" if model.world is None else "model and world"
    for name, values in (density_values or {}).items():
        if name not in model.distributed:
            known = ", ".join(model.distributed) or "none, because there are no attributes"
            raise ValueError(
                f"density_values: there is no attribute {name!r} in {where}; expected {known}."
            )
        for value in values:
            model.scm.act({name: value})
            check_possible(model, name, value)


def evaluate(
    model: ModelOnData,
    settings: EvaluationSettings | None = None,
    classifier: Classifier | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
    validation: ModelOnData | None = None,
    cause_predictor: CausePredictor | None = None,
) -> Evaluation:
    """Evaluate a model on the second and the third rung, and its noise.

    Comparisons of densities and counterfactuals with the truth require a known world.

    Args:
        model: The model, the rows, and the world if known.
        settings: Interventions, values and sizes; None for the defaults.
        classifier: Function from images to class indices, for the identity.
        progress: Whether to show progress bars.
        cache_dir: Cache of the rendered truth; None for no cache.
        validation: Rows for the calibration of intervals; None for no calibration.
        cause_predictor: A predictor of the causes of the image, which measures whether images show
            what was asked; None for the reaction of pixels only.

    Raises:
        ValueError: If a number is out of range, an intervention is impossible, or originals and
            images do not match.
    """
    settings = EvaluationSettings() if settings is None else settings
    run = _Run(
        model, check_settings(model, settings), settings, classifier, progress, cache_dir,
        validation, cause_predictor,
    )  # fmt: skip
    members = (model.scm, *(model.ensemble.members if model.ensemble else ()))
    with _preserved_state(members):
        for member in members:
            couple_pixel_noise(member, settings.coupling)
        return run.evaluation()


@dataclass(frozen=True)
class _Run:
    """The parts of an evaluation, each timed and with its own random numbers."""

    model: ModelOnData
    questions: Sequence[Question]
    settings: EvaluationSettings
    classifier: Classifier | None
    progress: bool
    cache_dir: Path | None
    validation: ModelOnData | None
    cause_predictor: CausePredictor | None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def detail(self) -> int:
        """Number of rows with the expensive quantities."""
        return self.settings.detail_rows or min(_DETAIL_ROWS, len(self.model))

    @property
    def has_one_image(self) -> bool:
        """Whether the third rung can be evaluated."""
        return len(self.model.scm.image_variables) == 1

    def evaluation(self) -> Evaluation:
        """All parts, in a fixed order."""
        model, settings, detail = self.model, self.settings, self.detail
        size, seed, progress = settings.batch_size, settings.seed, self.progress
        with self._timed("densities"):
            densities = evaluate_densities(
                model, settings.density_values, settings.density_size, seed, progress
            )
        of_images = self._of_images() if self.has_one_image else {}
        with self._timed("sensitivity"):
            sensitivity = evaluate_sensitivity(model, self.questions, detail, seed, progress)
        with self._timed("noise"):
            noise = evaluate_noise(model, detail, size, progress)
        overlap = self._overlap()
        reaction: ReactionResult | None = of_images.get("reaction")
        return Evaluation(
            rows=len(model),
            detail_rows=detail,
            particles=settings.num_particles,
            world=None if model.world is None else model.world.name,
            available=model.available,
            individuals=model.individuals,
            densities=densities,
            noise=noise,
            overlap=overlap,
            sensitivity=sensitivity,
            left_out=[
                *_left_out(model, self.questions),
                *([_NO_OVERLAP] if overlap is None else []),
                *(reaction.left_out if reaction else ()),
            ],
            seconds=self.seconds,
            thresholds=settings.verdict,
            **of_images,
        )

    def _of_images(self) -> dict[str, Any]:
        """Counterfactuals, compositions and the reaction of the image, by field of the result."""
        model, detail, progress = self.model, self.detail, self.progress
        size = self.settings.batch_size
        found = self._counterfactuals() if self.questions else {}
        with self._timed("composition"):
            found["composition"] = evaluate_composition(
                model, detail, batch_size=size, progress=progress
            )
            found["composition_without_pixel_noise"] = evaluate_composition(
                model, detail, (1, 10), size, progress, without_pixel_noise=True
            )
        with self._timed("reaction"):
            found["reaction"] = evaluate_reaction(
                model, self.questions, self.cause_predictor, self.settings.reaction, detail, size,
                progress,
            )  # fmt: skip
        return found

    def _counterfactuals(self) -> dict[str, Any]:
        """Counterfactuals with calibrated intervals and examples, by field of the result."""
        model, questions, settings, detail = self.model, self.questions, self.settings, self.detail
        size, workers, progress = settings.batch_size, settings.workers, self.progress
        truths, calibration = None, None
        with self._timed("truth"):
            if model.originals is not None:
                truths = true_counterfactuals(
                    model, questions, detail, workers, progress, self.cache_dir
                )
        if self.validation is not None and settings.num_particles > 1:
            with self._timed("calibration"):
                calibration = _calibrate(
                    self.validation, questions, settings, progress, self.cache_dir
                )
        with self._timed("counterfactuals"):
            answered = evaluate_counterfactuals(
                model, questions, truths, settings.num_particles, detail, size, self.classifier,
                workers, progress, calibration,
            )  # fmt: skip
        with self._timed("reversibility"):
            cycles = evaluate_reversibility(
                model, questions, detail, batch_size=size, progress=progress
            )
        with self._timed("examples"):
            examples = take_examples(model, questions, truths, min(_EXAMPLE_ROWS, len(model)))
        return {
            "counterfactuals": [
                replace(each, reversibility=errors)
                for each, errors in zip(answered, cycles, strict=True)
            ],
            "examples": examples,
            "calibration": calibration,
        }

    def _overlap(self) -> OverlapResult | None:
        settings = self.settings
        thresholds = OverlapThresholds(settings.overlap_extrapolated, settings.overlap_edge)
        with self._timed("overlap"):
            return evaluate_overlap(
                self.model, self.questions, thresholds, min(settings.overlap_rows, self.detail),
                settings.batch_size, settings.workers, self.progress, self.cache_dir,
            )  # fmt: skip

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Time a part, with random numbers that do not depend on the parts before it."""
        torch.manual_seed(self.settings.seed)
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


def _calibrate(
    validation: ModelOnData,
    questions: Sequence[Question],
    settings: EvaluationSettings,
    progress: bool,
    cache_dir: Path | None,
) -> Calibration | None:
    """Calibrate intervals by the best truth that is available."""
    particles, size = settings.num_particles, settings.batch_size
    if validation.originals is not None:
        truths = list(true_images(validation, questions, settings.workers, progress, cache_dir))
        return calibrate(
            validation, questions, truths, particles, batch_size=size, progress=progress
        )
    if settings.follow_up:
        return calibrate_by_follow_up(
            validation, settings.follow_up, particles, batch_size=size, progress=progress
        )
    return calibrate_by_composition(validation, particles, batch_size=size, progress=progress)


def _left_out(model: ModelOnData, questions: Sequence[Question]) -> list[str]:
    reasons = []
    if model.incomplete:
        rows = f"{model.incomplete:,} rows of the test split with missing values"
        reasons.append(
            f"Complete rows: there are too few, and the values of {rows} are inferred by the "
            "model, so that its agreement with the data is overstated."
            if model.is_inferred
            else f"{rows}: they are in the bounds only."
        )
    images = len(model.scm.image_variables)
    if model.world is None:
        reasons.append("The truth of rungs 2 and 3: the data set has no known world.")
        if effects := [n for n in model.scalars if n not in model.distributed]:
            reasons.append(f"Rung 2 of {', '.join(effects)}: effects of an image.")
    if images != 1:
        reasons.append(
            f"Rung 3: it is evaluated on one image, but the model has {images or 'none'}."
        )
    elif not questions:
        reasons.append("Rung 3: there is no intervention to ask about; set `interventions`.")
    elif model.world is not None and model.originals is None:
        reasons.append(f"The truth of rung 3: {model.why_no_originals}")
    return reasons


@contextmanager
def _preserved_state(members: Sequence[StructuralCausalModel]) -> Iterator[None]:
    """Evaluate without dropout, and restore random states, modes and couplings afterwards."""
    device = members[0].fitted.device
    devices = [device] if device.type == "cuda" else []
    modules = [module for member in members for module in member.modules()]
    modes = [(module, module.training) for module in modules]
    couplings = [
        (each, each.coupling) for each in modules if isinstance(each, LatentImageMechanism)
    ]
    for member in members:
        member.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for vae, coupling in couplings:
            vae.coupling = coupling
