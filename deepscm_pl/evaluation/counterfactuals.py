"""Rung 3: counterfactuals against the truth that a known world renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.data import measure_attributes, render_truth
from deepscm_pl.evaluation.estimate import Estimate, alone, over_rows
from deepscm_pl.evaluation.questions import Answer, Question, answer, true_attributes
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.metrics import (
    Effectiveness,
    GroundTruthError,
    IdentityPreservation,
    IntervalCoverage,
    Minimality,
    PerImageStatistics,
)
from deepscm_pl.metrics.functional import widest_level

__all__ = [
    "COVERAGE_LEVELS",
    "Classifier",
    "CounterfactualResult",
    "Truth",
    "evaluate_counterfactuals",
    "true_counterfactuals",
]

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""From images ``(B, C, H, W)`` in grey levels to class indices ``(B,)``."""

COVERAGE_LEVELS = tuple(k / 10 for k in range(1, 10))
"""The levels of intervals at which coverage is measured, as far as the particles can tell."""

_MISMATCH = 12.0
"""Grey levels that images and originals that belong together never differ by, on average."""


@dataclass(frozen=True)
class Truth:
    """The true counterfactuals of all rows under one intervention.

    Attributes:
        attributes: Of the world, ``(N,)`` each.
        images: Rendered, ``(N, 1, *sizes)`` bytes, two sizes of images or three of volumes.
        strangers: The true images of other originals with the same attributes, of the same shape.
        measured: The attributes measured in the first rows of ``images``, ``(D,)`` each.
        inside: The rows for which the intervention is possible in the world, ``(N,)``.
    """

    attributes: Mapping[str, NDArray[np.float64]]
    images: Tensor
    strangers: Tensor
    measured: Mapping[str, NDArray[np.float64]]
    inside: Tensor


@dataclass(frozen=True)
class CounterfactualResult:
    """How well a model answered one intervention.

    Attributes:
        question: The intervention.
        rows: Rows for which what was asked for is possible.
        left_out: Rows for which it is not, of which nothing was computed.
        quantities: What was found, by name.
    """

    question: Question
    rows: int
    left_out: int
    quantities: dict[str, Estimate] = field(default_factory=dict)


def true_counterfactuals(
    subject: Subject,
    questions: Sequence[Question],
    detail_rows: int,
    workers: int | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
) -> list[Truth]:
    """The truth under each intervention, rendered and measured.

    Args:
        subject: With a world and originals.
        questions: The interventions.
        detail_rows: D, for how many of the first rows the costlier quantities are computed.
        workers: Processes to render and measure with; None takes one for each processor.
        progress: Whether to show progress bars.
        cache_dir: Where what was rendered is kept; None keeps nothing.

    Raises:
        ValueError: If the world or the originals are missing, or the originals are not those of
            the images.
    """
    world, originals = subject.world, subject.originals
    if world is None or originals is None:
        raise ValueError("subject: expected a world and originals, but there are none.")
    check_originals(subject)
    found = []
    for question in questions:
        attributes, inside = true_attributes(subject, question)
        images = render_truth(world, originals, attributes, workers, progress, cache_dir)
        # Each original with the attributes of the row before it, not each row with the original
        # after it: where all have the same attributes, the shapes are those of the truth.
        before = {name: np.roll(column, 1) for name, column in attributes.items()}
        strangers = render_truth(world, originals, before, workers, progress, cache_dir)
        measured = measure_attributes(world, images[:detail_rows], workers, progress)
        found.append(
            Truth(
                attributes,
                torch.from_numpy(images)[:, None],
                torch.from_numpy(np.roll(strangers, -1, axis=0))[:, None],
                measured,
                torch.from_numpy(inside),
            )
        )
    return found


def check_originals(subject: Subject, rows: int = 32) -> None:
    """Raise unless the originals, drawn with the factual attributes, are the factual images.

    Args:
        subject: With a world and originals.
        rows: How many of the first rows are looked at.

    Raises:
        ValueError: If they differ by much.
    """
    world, originals = subject.world, subject.originals
    if world is None or originals is None:
        return
    columns = {name: column[:rows] for name, column in subject.columns().items()}
    drawn = torch.from_numpy(world.render(originals[:rows], columns)).double()
    images = subject.variables[subject.scm.image_variables[0]][:rows, 0].double()
    error = (drawn - images).abs().mean().item()
    if error > _MISMATCH:
        raise ValueError(
            f"originals: drawn with the attributes of the test split by the world {world.name}, "
            f"they differ from its images by {error:.1f} grey levels on average; the originals are "
            "of other rows or the data is of another world. Generate the data again."
        )


def evaluate_counterfactuals(
    subject: Subject,
    questions: Sequence[Question],
    truths: Sequence[Truth] | None,
    num_particles: int,
    detail_rows: int,
    batch_size: int = 256,
    classifier: Classifier | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[CounterfactualResult]:
    """How well a model answers interventions on the rows of a test split.

    One draw of the noise answers for every row, ``num_particles`` for the first ``detail_rows``.
    Each row is encoded once, whatever the number of interventions.

    Args:
        subject: The model and the rows.
        questions: The interventions.
        truths: The truth under each; None where it is not known.
        num_particles: P, draws of the noise of the detail rows.
        detail_rows: Rows that are looked at with particles.
        batch_size: Rows at a time.
        classifier: Of the identity of an image, if there is one.
        workers: Processes to measure with; None takes one for each processor.
        progress: Whether to show progress bars.

    Returns:
        A result for each intervention, in order.
    """
    levels = [level for level in COVERAGE_LEVELS if level <= widest_level(num_particles)]
    meters = [
        _Meter(subject, question, None if truths is None else truths[k], classifier, levels)
        for k, question in enumerate(questions)
    ]
    with tqdm(
        total=len(subject), unit="image", desc="counterfactuals", disable=not progress
    ) as bar:
        for detail, (start, stop) in (
            (True, (0, detail_rows)),
            (False, (detail_rows, len(subject))),
        ):
            for first, factual in subject.batches(start, stop, batch_size):
                particles = num_particles if detail else 1
                answers = answer(subject.scm, factual, questions, particles)
                image = factual[subject.scm.image_variables[0]]
                classes = None if classifier is None else classifier(image)
                for meter, each in zip(meters, answers, strict=True):
                    meter.update(first, factual, each, detail, classes)
                bar.update(len(next(iter(factual.values()))))
    return [meter.result(workers, progress) for meter in meters]


class _Meter:
    """All that is measured of one intervention, batch by batch."""

    def __init__(
        self,
        subject: Subject,
        question: Question,
        truth: Truth | None,
        classifier: Classifier | None,
        levels: Sequence[float],
    ) -> None:
        self.subject, self.question, self.truth = subject, question, truth
        self.classifier = classifier
        self.image = subject.scm.image_variables[0]
        device = subject.scm.fitted.device
        self.error = alone(GroundTruthError(), device)
        self.detailed_error = alone(GroundTruthError(strangers=False), device)
        self.minimality = alone(Minimality(), device)
        self.coverage = alone(IntervalCoverage(levels), device) if levels else None
        self.identity = alone(IdentityPreservation(), device)
        self.true_identity = alone(IdentityPreservation(), device)
        self.followers = _followers(subject, question)
        self.attribute_error = (
            alone(PerImageStatistics(self.followers), device) if self.followers else None
        )
        self.inside: list[Tensor] = []
        self.images: list[Tensor] = []
        self.attributes: dict[str, list[Tensor]] = {name: [] for name in subject.measured}
        self.detail_rows = 0

    def update(
        self,
        first: int,
        factual: Mapping[str, Tensor],
        answered: Answer,
        detail: bool,
        classes: Tensor | None = None,
    ) -> None:
        """Add a batch of rows that begins with the row ``first``, with the factual classes."""
        rows = slice(first, first + len(answered.inside))
        inside = answered.inside
        if self.truth is not None:
            inside = inside & self.truth.inside[rows].to(inside.device)
        self.inside.append(inside.cpu())
        if not bool(inside.any()):
            return
        images = answered.values[self.image][:, inside]
        observed = factual[self.image][inside]
        self.images.append(images[0].round().clamp(0, 255).byte().cpu())
        for name, parts in self.attributes.items():
            parts.append(answered.values[name][0, inside].cpu())
        self.detail_rows += len(observed) if detail else 0
        if self.truth is not None:
            self._compare(self.truth, rows, inside, images, observed, answered, detail)
        if classes is not None:
            self._identify(rows, inside, images, classes[inside])

    def _compare(
        self,
        truth: Truth,
        rows: slice,
        inside: Tensor,
        images: Tensor,
        observed: Tensor,
        answered: Answer,
        detail: bool,
    ) -> None:
        true_images = truth.images[rows].to(images)[inside]
        strangers = truth.strangers[rows].to(images)[inside]
        self.error.update(images[:1], true_images, observed, strangers)
        self.minimality.update(images[:1], observed, true_images)
        if self.attribute_error is not None:
            self.attribute_error.update(
                {
                    name: (
                        answered.values[name][0, inside, 0]
                        - torch.from_numpy(truth.attributes[name][rows]).to(images)[inside]
                    ).abs()
                    for name in self.followers
                }
            )
        if detail:
            self.detailed_error.update(images, true_images, observed)
            if self.coverage is not None:
                self.coverage.update(images, true_images)

    def _identify(self, rows: slice, inside: Tensor, images: Tensor, classes: Tensor) -> None:
        if self.classifier is None:
            return
        before = classes[:, None]
        after = self.classifier(images[0])[None, :, None]
        self.identity.update(after, before, before)
        if self.truth is not None:
            true_images = self.truth.images[rows].to(images)[inside]
            self.true_identity.update(self.classifier(true_images)[None, :, None], before, before)

    def result(self, workers: int | None, progress: bool) -> CounterfactualResult:
        """What was found over all rows."""
        inside = torch.cat(self.inside)
        rows = int(inside.sum())
        result = CounterfactualResult(self.question, rows, len(inside) - rows)
        if rows == 0:
            return result
        if self.truth is not None:
            result.quantities.update(self._errors(rows))
            result.quantities.update(self._effectiveness(self.truth, inside, workers, progress))
        if self.classifier is not None:
            found = self.identity.compute()
            result.quantities.update(over_rows({"identity/kept": found["kept"]}, rows))
            if self.truth is not None:
                found = self.true_identity.compute()
                result.quantities.update(over_rows({"identity/truth": found["kept"]}, rows))
        return result

    def _errors(self, rows: int) -> dict[str, Estimate]:
        found = over_rows(self.error.compute(), rows, "error/")
        # One draw is all there is beyond the detail rows; its mean is itself.
        found = {name: value for name, value in found.items() if "particle_mean" not in name}
        found.update(over_rows(self.minimality.compute(), rows, "minimality/"))
        if self.attribute_error is not None:
            found.update(over_rows(self.attribute_error.compute(), rows, "attribute_error/"))
        if self.detail_rows:
            detailed = self.detailed_error.compute()
            kept = {n: v for n, v in detailed.items() if "particle" in n}
            found.update(over_rows(kept, self.detail_rows, "particles/"))
            if self.coverage is not None:
                found.update(over_rows(self.coverage.compute(), self.detail_rows, "coverage/"))
        return found

    def _effectiveness(
        self, truth: Truth, inside: Tensor, workers: int | None, progress: bool
    ) -> dict[str, Estimate]:
        world = self.subject.world
        if world is None:
            return {}
        images = torch.cat(self.images)[:, 0].numpy()
        measured = measure_attributes(world, images, workers, progress)
        detail = inside[: len(next(iter(truth.measured.values())))]
        found: dict[str, Estimate] = {}
        for name, parts in self.attributes.items():
            values = torch.from_numpy(measured[name])
            intended = torch.cat(parts).double().squeeze(-1)
            true = torch.from_numpy(truth.attributes[name])
            prefix = f"effectiveness/{name}"
            found.update(_effectiveness(f"{prefix}/intended/", values, intended))
            if name in self.followers:
                found.update(_effectiveness(f"{prefix}/true/", values, true[inside]))
            if bool(detail.any()):
                floor = torch.from_numpy(truth.measured[name])[detail]
                wanted = true[: len(detail)][detail]
                found.update(_effectiveness(f"{prefix}/noise_floor/", floor, wanted))
        return found


def _followers(subject: Subject, question: Question) -> list[str]:
    """The attributes that change with what is done, by the model's graph or by the world's."""
    changed = subject.scm.graph.descendants(*question.do)
    if subject.world is not None:
        changed = changed | subject.world.graph.descendants(*question.do)
    return [n for n in subject.attributes if n in changed - question.do.keys()]


def _effectiveness(prefix: str, measured: Tensor, intended: Tensor) -> dict[str, Estimate]:
    metric = alone(Effectiveness(), measured.device)
    metric.update(measured[None, :, None], intended[:, None])
    return over_rows(metric.compute(), len(measured), prefix)
