"""Rung 3: counterfactuals against the truth that a known world renders."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.data import KnownWorld, measure_attributes, render_truth
from deepscm_pl.evaluation.estimate import Estimate, estimates_of, on_one_process
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Answer, Question, answer, true_attributes
from deepscm_pl.evaluation.results import (
    ChangeEstimates,
    CounterfactualResult,
    CoverageEstimates,
    EffectivenessEstimates,
    ErrorEstimates,
    IdentityEstimates,
    ImageErrors,
    IntervalEstimates,
    MeasurementErrors,
)
from deepscm_pl.metrics import (
    Effectiveness,
    GroundTruthError,
    IdentityPreservation,
    IntervalCoverage,
    IntervalQuality,
    Minimality,
    PerImageStatistics,
)
from deepscm_pl.metrics.functional import widest_level
from deepscm_pl.moments import Moments

__all__ = [
    "Classifier",
    "CounterfactualResult",
    "TrueImages",
    "Truth",
    "evaluate_counterfactuals",
    "true_counterfactuals",
    "true_images",
]

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""A function of images ``(B, C, H, W)`` in grey levels that returns class indices ``(B,)``."""

_COVERAGE_LEVELS = tuple(k / 10 for k in range(1, 10))

_MAX_MISMATCH = 12.0
"""Upper bound of the mean difference between images and rendered originals, in grey levels."""


@dataclass(frozen=True)
class TrueImages:
    """True counterfactual images of all N rows under one intervention.

    Attributes:
        images: ``(N, 1, H, W)`` or, for volumes, ``(N, 1, X, Y, Z)``, uint8.
        possible: Whether the intervention is possible in the world, ``(N,)``.
        attributes: Attributes in the world, ``(N,)`` each.
    """

    images: Tensor
    possible: Tensor
    attributes: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Truth(TrueImages):
    """True counterfactuals of all N rows under one intervention, with what they compare with.

    Attributes:
        others: True images of other originals with the same attributes, of the same shape.
        measured: Attributes measured in the first D images, ``(D,)`` each.
    """

    others: Tensor
    measured: Mapping[str, NDArray[np.float64]]


def true_counterfactuals(
    model: ModelOnData,
    questions: Sequence[Question],
    detail_rows: int,
    workers: int | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
) -> list[Truth]:
    """Render the truth under each intervention, and measure the first ``detail_rows`` images.

    Raises:
        ValueError: As of :func:`true_images`.
    """
    truths = []
    for true in true_images(model, questions, workers, progress, cache_dir):
        world, originals = _world_and_originals(model)
        # Originals with the attributes of the previous row: if all rows have equal attributes,
        # shapes (which depend on attributes) equal those of the truth.
        previous = {name: np.roll(column, 1) for name, column in true.attributes.items()}
        others = render_truth(world, originals, previous, workers, progress, cache_dir)
        first = world.without_channels(true.images[:detail_rows])
        truths.append(
            Truth(
                true.images,
                true.possible,
                true.attributes,
                torch.from_numpy(world.with_channels(np.roll(others, -1, axis=0))),
                measure_attributes(world, first, workers, progress),
            )
        )
    return truths


def true_images(
    model: ModelOnData,
    questions: Sequence[Question],
    workers: int | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
) -> Iterator[TrueImages]:
    """Render the true images under each intervention.

    Raises:
        ValueError: If the world or the originals are missing, or the originals do not belong to the
            images.
    """
    world, originals = _world_and_originals(model)
    check_originals(model)
    for question in questions:
        attributes, possible = true_attributes(model, question)
        images = render_truth(world, originals, attributes, workers, progress, cache_dir)
        values = torch.from_numpy(world.with_channels(images))
        yield TrueImages(values, torch.from_numpy(possible), attributes)


def _world_and_originals(model: ModelOnData) -> tuple[KnownWorld, NDArray[Any]]:
    if model.world is None or model.originals is None:
        raise ValueError("model: expected a world and originals, but there are none.")
    return model.world, model.originals


def check_originals(model: ModelOnData, rows: int = 32) -> None:
    """Raise ValueError unless the first ``rows`` originals, once rendered, resemble the images."""
    world, originals = model.world, model.originals
    if world is None or originals is None:
        return
    columns = {name: column[:rows] for name, column in model.columns().items()}
    drawn = torch.from_numpy(world.with_channels(world.render(originals[:rows], columns))).double()
    images = model.variables[model.scm.image_variables[0]][:rows].double()
    error = (drawn - images).abs().mean().item()
    if error > _MAX_MISMATCH:
        raise ValueError(
            f"originals: drawn with the attributes of the test split by the world {world.name}, "
            f"they differ from its images by {error:.1f} grey levels on average; the originals "
            "belong to other rows, or the data to another world. Generate the data again."
        )


def evaluate_counterfactuals(
    model: ModelOnData,
    questions: Sequence[Question],
    truths: Sequence[Truth] | None,
    num_particles: int,
    detail_rows: int,
    batch_size: int = 256,
    classifier: Classifier | None = None,
    workers: int | None = None,
    progress: bool = True,
    calibration: Calibration | None = None,
) -> list[CounterfactualResult]:
    """Evaluate interventions on the rows of a test split.

    Each row has one draw of the noise, and the first ``detail_rows`` have ``num_particles``. Each
    row is encoded once, regardless of the number of interventions. Without ``truths``, quantities
    that need the truth are missing; without a ``classifier``, those of identity; without a
    ``calibration``, those of calibrated intervals.
    """
    levels = [level for level in _COVERAGE_LEVELS if level <= widest_level(num_particles)]
    meters = [
        _Meter(
            model,
            question,
            None if truths is None else truths[k],
            classifier,
            levels,
            calibration if num_particles > 1 else None,
        )
        for k, question in enumerate(questions)
    ]
    parts = ((num_particles, 0, detail_rows), (1, detail_rows, len(model)))
    with tqdm(
        total=len(model), unit="image", desc="counterfactuals", disable=None if progress else True
    ) as bar:
        for part, (particles, start, stop) in enumerate(parts):
            for first, factual in model.batches(start, stop, batch_size):
                answers = answer(model.answering, factual, questions, particles)
                image = factual[model.scm.image_variables[0]]
                classes = None if classifier is None else classifier(image)
                for meter, each in zip(meters, answers, strict=True):
                    meter.update(first, factual, each, part == 0, classes)
                bar.update(len(image))
    return [meter.result(workers, progress) for meter in meters]


class _Meter:
    """All metrics of one intervention, updated batch by batch."""

    def __init__(
        self,
        model: ModelOnData,
        question: Question,
        truth: Truth | None,
        classifier: Classifier | None,
        levels: Sequence[float],
        calibration: Calibration | None,
    ) -> None:
        self.model, self.question, self.truth = model, question, truth
        self.classifier, self.calibration = classifier, calibration
        self.image = model.scm.image_variables[0]
        device = model.scm.fitted.device
        self.error = on_one_process(GroundTruthError(), device)
        self.detailed_error = on_one_process(GroundTruthError(strangers=False), device)
        self.minimality = on_one_process(Minimality(), device)
        self.coverage = on_one_process(IntervalCoverage(levels), device) if levels else None
        self.intervals = on_one_process(IntervalQuality(), device) if levels else None
        self.identity = on_one_process(IdentityPreservation(), device)
        self.true_identity = on_one_process(IdentityPreservation(), device)
        self.effects = _effects(model, question)
        self.attribute_error = (
            on_one_process(PerImageStatistics(self.effects), device) if self.effects else None
        )
        self.possible: list[Tensor] = []
        self.images: list[Tensor] = []
        self.attributes: dict[str, list[Tensor]] = {name: [] for name in model.measured}
        self.detail_rows = 0

    def update(
        self,
        first: int,
        factual: Mapping[str, Tensor],
        answered: Answer,
        detail: bool,
        classes: Tensor | None,
    ) -> None:
        """Add a batch of rows that begins with the row ``first``, with the factual classes."""
        possible = answered.possible
        rows = slice(first, first + len(possible))
        if self.truth is not None:
            possible = possible & self.truth.possible[rows].to(possible.device)
        self.possible.append(possible.cpu())
        if not bool(possible.any()):
            return
        images = answered.values[self.image][:, possible]
        observed = factual[self.image][possible]
        self.images.append(images[0].round().clamp(0, 255).byte().cpu())
        for name, parts in self.attributes.items():
            parts.append(answered.values[name][0, possible].cpu())
        self.detail_rows += len(observed) if detail else 0
        if self.truth is not None:
            true_images = self.truth.images[rows].to(images)[possible]
            others = self.truth.others[rows].to(images)[possible]
            self.error.update(images[:1], true_images, observed, others)
            self.minimality.update(images[:1], observed, true_images)
            if detail:
                self.detailed_error.update(images, true_images, observed)
                if self.coverage is not None:
                    self.coverage.update(images, true_images)
                if self.intervals is not None:
                    half = self._half_width(images, observed)
                    self.intervals.update(images, true_images, half)
        if self.truth is not None and self.attribute_error is not None:
            errors = {}
            for name in self.effects:
                true = torch.from_numpy(self.truth.attributes[name][rows]).to(images)[possible]
                errors[name] = (answered.values[name][0, possible, 0] - true).abs()
            self.attribute_error.update(errors)
        if self.classifier is not None and classes is not None:
            before = classes[possible][:, None]
            after = self.classifier(images[0])[None, :, None]
            self.identity.update(after, before, before)
            if self.truth is not None:
                after = self.classifier(true_images)[None, :, None]
                self.true_identity.update(after, before, before)

    def _half_width(self, images: Tensor, factual: Tensor) -> Tensor:
        if self.calibration is None:
            return torch.zeros_like(factual)
        question = self.question
        moments = Moments.of(images)
        return self.calibration.half_width(question.title, tuple(question.do), moments, factual)

    def result(self, workers: int | None, progress: bool) -> CounterfactualResult:
        """Compute the result over all rows."""
        possible = torch.cat(self.possible)
        rows = int(possible.sum())
        left_out = len(possible) - rows
        if rows == 0:
            return CounterfactualResult(self.question, rows, left_out)
        identity = self._identity(rows)
        if self.truth is None:
            return CounterfactualResult(self.question, rows, left_out, identity=identity)
        # A row beyond the detail rows has a single draw, which is its own mean.
        error = {
            key: value
            for key, value in estimates_of(self.error.compute(), rows).items()
            if not key.endswith("/particle_mean")
        }
        attribute_error: dict[str, Estimate] = {}
        if self.attribute_error is not None:
            attribute_error = estimates_of(self.attribute_error.compute(), rows)
        particles, coverage, intervals = self._details()
        return CounterfactualResult(
            self.question,
            rows,
            left_out,
            _image_errors(error),
            ChangeEstimates(**estimates_of(self.minimality.compute(), rows)),
            attribute_error,
            particles,
            coverage,
            self._effectiveness(self.truth, possible, workers, progress),
            identity,
            intervals=intervals,
        )

    def _identity(self, rows: int) -> IdentityEstimates:
        if self.classifier is None:
            return IdentityEstimates()
        kept = estimates_of(self.identity.compute(), rows)["kept"]
        if self.truth is None:
            return IdentityEstimates(kept, None)
        return IdentityEstimates(kept, estimates_of(self.true_identity.compute(), rows)["kept"])

    def _details(self) -> tuple[ImageErrors, CoverageEstimates, IntervalEstimates]:
        """The quantities of the rows with several particles."""
        particles, coverage, intervals = ImageErrors(), CoverageEstimates(), IntervalEstimates()
        if not self.detail_rows:
            return particles, coverage, intervals
        detailed = estimates_of(self.detailed_error.compute(), self.detail_rows)
        particles = _image_errors(
            {key: value for key, value in detailed.items() if not key.endswith("/factual")}
        )
        if self.coverage is not None:
            coverage = _coverage(self.coverage, self.detail_rows)
        if self.intervals is not None:
            found = estimates_of(self.intervals.compute(), self.detail_rows)
            known = ("spread_over_error", "width_of_particles")
            intervals = IntervalEstimates(
                **{
                    name.replace("/", "_"): value
                    for name, value in found.items()
                    if self.calibration is not None or name in known
                }
            )
        return particles, coverage, intervals

    def _effectiveness(
        self, truth: Truth, possible: Tensor, workers: int | None, progress: bool
    ) -> dict[str, EffectivenessEstimates]:
        world = self.model.world
        if world is None:
            return {}
        images = world.without_channels(torch.cat(self.images))
        measured = measure_attributes(world, images, workers, progress)
        detail = possible[: len(next(iter(truth.measured.values())))]
        results = {}
        for name, parts in self.attributes.items():
            values = torch.from_numpy(measured[name])
            true = torch.from_numpy(truth.attributes[name])
            is_effect, floor = name in self.effects, None
            if bool(detail.any()):
                measured_truth = torch.from_numpy(truth.measured[name])[detail]
                floor = _measurement_errors(measured_truth, true[: len(detail)][detail])
            intended = torch.cat(parts).double().squeeze(-1)
            factual = self.model.variables[name].cpu().double().squeeze(-1)[possible]
            is_class = self.model.scm[name].domain.categories is not None
            results[name] = EffectivenessEstimates(
                _measurement_errors(values, intended),
                _measurement_errors(values, true[possible]) if is_effect else None,
                floor,
                _share_shown(values, intended, factual, is_class),
            )
        return results


def _share_shown(
    measured: Tensor, intended: Tensor, factual: Tensor, is_class: bool
) -> Estimate | None:
    """The share of an asked change that images show, over N rows; None if none is asked."""
    rows = intended != factual
    if not bool(rows.any()):
        return None
    # What cannot be measured shows no change.
    measured = torch.where(measured.isnan(), factual, measured)[rows]
    asked = (intended - factual)[rows]
    if is_class:
        return Estimate.of((measured == intended[rows]).double())
    share = ((measured - factual[rows]) * asked).sum() / asked.square().sum()
    return Estimate(float(share), math.nan, int(rows.sum()))


def _effects(model: ModelOnData, question: Question) -> list[str]:
    """Attributes that are effects of the intervention in the graph of the model or the world."""
    changed = model.scm.graph.descendants(*question.do)
    if model.world is not None:
        changed = changed | model.world.graph.descendants(*question.do)
    return [n for n in model.attributes if n in changed - question.do.keys()]


def _image_errors(estimates: Mapping[str, Estimate]) -> ImageErrors:
    measures: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for key, value in estimates.items():
        measure, kind = key.split("/")
        measures[measure][kind] = value
    return ImageErrors(**{name: ErrorEstimates(**found) for name, found in measures.items()})


def _coverage(metric: IntervalCoverage, rows: int) -> CoverageEstimates:
    found = estimates_of(metric.compute(), rows)
    return CoverageEstimates(
        {level: found[f"all/{level:g}"] for level in metric.levels},
        {level: found[f"varying/{level:g}"] for level in metric.levels},
        found["varying"],
    )


def _measurement_errors(measured: Tensor, intended: Tensor) -> MeasurementErrors:
    metric = on_one_process(Effectiveness(), measured.device)
    metric.update(measured[None, :, None], intended[:, None])
    return MeasurementErrors(**estimates_of(metric.compute(), len(measured)))
