"""Reaction of images to interventions: whether they show what was asked, on data of any kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.cause_predictor import CausePredictor
from deepscm_pl.evaluation.estimate import Estimate, Quantities, by_key
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.reaction import (
    ImageReaction,
    ReactionThresholds,
    image_reactions,
    without_pixel_noise,
)

__all__ = ["CauseReaction", "QuestionReaction", "ReactionResult", "evaluate_reaction"]


@dataclass(frozen=True)
class CauseReaction(Quantities):
    """Reaction of the image to one cause, which is set to its value in another test row.

    Attributes:
        change: Root mean square change of the image, divided by that of two test images.
        skill: Share of the error of the best constant that the predictor of the cause removes on
            the validation split. None without a predictor, as are the following.
        floor: Error of the predictor in test images: mean absolute, or the share of wrong classes.
        error: The same in counterfactual images, against the value that was asked. For a predictor
            with little skill, it and the following are None.
        r_squared: Share of the variance of asked values that the shown ones explain,
            1 − Σ(shown − asked)² / Σ(asked − mean)²; None for classes.
        response: Share of an asked change that the image shows: the slope of shown changes over
            asked ones; for classes (p − p₀) / (p₁ − p₀), where the asked class is read in a share p
            of the answers and p₀ of the test images, and the own class in p₁ of the test images.
    """

    change: Estimate
    skill: Estimate | None = None
    floor: Estimate | None = None
    error: Estimate | None = None
    r_squared: Estimate | None = None
    response: Estimate | None = None


@dataclass(frozen=True)
class QuestionReaction(Quantities):
    """Images under one intervention.

    Attributes:
        pixel_noise: Share of the answers that pixel noise carries, and not the decoder:
            Σ(x − m)² / Σ(x − x̄)² over rows and pixels, with the answers x, the same without pixel
            noise m, and the mean answer x̄. None for models without a latent.
        shown: For each cause with a predictor, its error against the value of the answer.
    """

    question: Question
    pixel_noise: Estimate | None = None
    shown: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class ReactionResult(Quantities):
    """Reaction of the image of a model to interventions.

    Attributes:
        image: Name of the image.
        causes: By cause.
        questions: By intervention.
        pixel_noise: As in :class:`QuestionReaction`, of the test images.
        verdicts: Sentences about what the image does not react to; empty if all is well.
        left_out: Causes that the predictor cannot read, with reasons.
        measured: Changes and the share of pixel noise, the larger of draws and of test images.
        thresholds: Limits of the verdicts.
    """

    image: str
    causes: Mapping[str, CauseReaction] = field(metadata={"key": "cause"})
    questions: Sequence[QuestionReaction]
    pixel_noise: Estimate | None
    verdicts: Sequence[str]
    left_out: Sequence[str]
    measured: ImageReaction | None = None
    thresholds: ReactionThresholds = field(default_factory=ReactionThresholds)

    @property
    def quantities(self) -> dict[str, Estimate]:
        """All estimates by their keys in JSON, such as ``thickness=3/shown/intensity``."""
        found = by_key(self, Estimate)
        for each in self.questions:
            found |= by_key(each, Estimate, each.question.text)
        return found


def evaluate_reaction(
    model: ModelOnData,
    questions: Sequence[Question],
    predictor: CausePredictor | None = None,
    thresholds: ReactionThresholds | None = None,
    rows: int | None = None,
    batch_size: int = 256,
    progress: bool = True,
) -> ReactionResult:
    """Measure whether the image shows what was asked, and how much of it is pixel noise.

    Args:
        model: A model of one image, and the rows.
        questions: Interventions.
        predictor: A predictor of the causes of the image; None for changes of pixels only.
        thresholds: Limits of the verdicts; None for the defaults.
        rows: Number of the first rows that are evaluated; None for all.
        batch_size: Rows in each batch.
        progress: Whether to show a progress bar.
    """
    limits = thresholds or ReactionThresholds()
    rows = len(model) if rows is None else rows
    skill = {} if predictor is None else predictor.skill
    read = [name for name in skill if skill[name] >= limits.skill]
    meter = _Meter(model, questions, predictor, rows)
    with tqdm(total=rows, unit="image", desc="reaction", disable=None if progress else True) as bar:
        for first, factual in model.batches(0, rows, batch_size):
            meter.update(first, factual)
            bar.update(len(factual[meter.image]))
    causes = {name: meter.cause(name, skill.get(name), name in read) for name in meter.causes}
    answered = [meter.question(k, read) for k in range(len(questions))]
    pixel_noise = meter.factual.pixel_noise()
    asked = dict.fromkeys([*causes, *(name for each in questions for name in each.do)])
    measured = _measured(model, causes, pixel_noise)
    return ReactionResult(
        meter.image,
        causes,
        answered,
        pixel_noise,
        _verdicts(measured, list(asked), causes, limits),
        [
            f"Reaction to {name}: its predictor removes {100 * max(value, 0):.0f} % of the error "
            f"of a constant on the validation split, less than {100 * limits.skill:.0f} %."
            for name, value in skill.items()
            if name not in read
        ],
        measured,
        limits,
    )


def _measured(
    model: ModelOnData, causes: Mapping[str, CauseReaction], pixel_noise: Estimate | None
) -> ImageReaction:
    """The reaction of draws of the model, with what was measured on test images."""
    (reaction,) = image_reactions(model.scm)
    shares = [reaction.pixel_noise, None if pixel_noise is None else min(pixel_noise.mean, 1.0)]
    known = [share for share in shares if share is not None and not math.isnan(share)]
    changes = {**reaction.changes, **{name: each.change.mean for name, each in causes.items()}}
    return replace(reaction, changes=changes, pixel_noise=max(known, default=None))


def _verdicts(
    measured: ImageReaction,
    asked: Sequence[str],
    causes: Mapping[str, CauseReaction],
    limits: ReactionThresholds,
) -> list[str]:
    # What an image shows is a better criterion than how far its pixels change.
    responses = {name: each.response for name, each in causes.items() if each.response is not None}
    found = measured.verdicts([name for name in asked if name not in responses], limits)
    for name, response in responses.items():
        if response.mean < limits.response:
            found.append(
                f"{measured.image}: the image does not react to {name}; of the changes that are "
                f"asked, it shows {100 * max(response.mean, 0):.0f} %"
            )
    return found


class _Images:
    """Sums over images x, and over the same without pixel noise m."""

    def __init__(self) -> None:
        self.count, self.difference = 0, 0.0
        self.total: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0
        self.has_medians = False

    def update(self, images: Tensor, medians: Tensor | None) -> None:
        images = images.double()
        self.count += len(images)
        self.total = self.total + images.sum(dim=0)
        self.squares = self.squares + images.square().sum(dim=0)
        if medians is not None:
            self.has_medians = True
            self.difference += float((images - medians.double()).square().sum())

    @property
    def deviation(self) -> float:
        """Σ(x − x̄)² over images and pixels."""
        squares = torch.as_tensor(self.squares)
        mean_squares = torch.as_tensor(self.total).square() / max(self.count, 1)
        return float((squares - mean_squares).clamp(min=0).sum())

    @property
    def variance(self) -> float:
        """The variance over images, averaged over pixels."""
        return self.deviation / max(self.count * torch.as_tensor(self.total).numel(), 1)

    def pixel_noise(self) -> Estimate | None:
        if not (self.has_medians and self.deviation > 0):
            return None
        return Estimate(self.difference / self.deviation, math.nan, self.count)


class _Meter:
    """Images, readings and values of all questions, batch by batch."""

    def __init__(
        self,
        model: ModelOnData,
        questions: Sequence[Question],
        predictor: CausePredictor | None,
        rows: int,
    ) -> None:
        self.model, self.questions, self.predictor, self.rows = model, questions, predictor, rows
        (self.image,) = model.scm.image_variables
        above = model.scm.graph.ancestors(self.image)
        self.causes = [name for name in model.scalars if name in above]
        self.factual = _Images()
        self.answers = [_Images() for _ in questions]
        self.changed = dict.fromkeys(self.causes, 0.0)
        self.changed_rows = dict.fromkeys(self.causes, 0)
        self.actual: dict[str, list[Tensor]] = {name: [] for name in self.causes}
        self.asked: dict[str, list[Tensor]] = {name: [] for name in self.causes}
        self.read: dict[str, list[Tensor]] = {name: [] for name in self.causes}
        self.shown: dict[str, list[Tensor]] = {name: [] for name in self.causes}
        self.errors: list[dict[str, list[Tensor]]] = [
            {name: [] for name in self.causes} for _ in questions
        ]

    def update(self, first: int, factual: Mapping[str, Tensor]) -> None:
        scm, observed = self.model.scm, factual[self.image]
        mechanism, parents = scm[self.image], scm.graph.parents[self.image]
        noise = mechanism.abduct_recorded(observed, {name: factual[name] for name in parents})
        medians = without_pixel_noise(mechanism, noise)

        def without(values: Mapping[str, Tensor]) -> Tensor | None:
            if medians is None:
                return None
            return mechanism.quantise(mechanism(medians, {name: values[name] for name in parents}))

        self.factual.update(observed, without(factual))
        self._update_causes(first, factual)
        answers = answer(scm, factual, self.questions, 1) if self.questions else []
        for k, answered in enumerate(answers):
            possible = answered.possible
            if not bool(possible.any()):
                continue
            values = {name: each[0] for name, each in answered.values.items()}
            causes = {name: values[name] for name in parents}
            drawn, median = mechanism.quantise(mechanism(noise, causes)), without(values)
            self.answers[k].update(drawn[possible], None if median is None else median[possible])
            for name, read in self._read(values[self.image][possible]).items():
                self.errors[k][name].append(self._error(name, read, values[name][possible, 0]))

    def _update_causes(self, first: int, factual: Mapping[str, Tensor]) -> None:
        observed = factual[self.image]
        size = len(observed)
        # Adjacent rows may be slices of one subject.
        others = (torch.arange(first, first + size) + self.rows // 2) % self.rows
        dos = [{name: self.model.variables[name][others].to(factual[name])} for name in self.causes]
        values = self.model.scm.counterfactual(factual, dos) if dos else {}
        read = self._read(observed)
        for k, name in enumerate(self.causes):
            asked, actual = dos[k][name][:, 0], factual[name][:, 0]
            differs = asked != actual
            images = values[self.image][0, k][differs]
            difference = images.double() - observed[differs].double()
            self.changed[name] += float(difference.square().sum())
            self.changed_rows[name] += int(differs.sum())
            self.actual[name].append(actual[differs].double().cpu())
            self.asked[name].append(asked[differs].double().cpu())
            if self.predictor is not None and bool(differs.any()):
                self.read[name].append(read[name][differs].cpu())
                self.shown[name].append(self.predictor.read(images)[name].cpu())

    def _read(self, images: Tensor) -> dict[str, Tensor]:
        return {} if self.predictor is None else self.predictor.read(images)

    def _error(self, name: str, read: Tensor, value: Tensor) -> Tensor:
        """The absolute error, or whether the class is wrong, of each image."""
        if self.model.scm[name].domain.categories is not None:
            return (read != value).double().cpu()
        return (read - value).abs().double().cpu()

    def cause(self, name: str, skill: float | None, is_read: bool) -> CauseReaction:
        features, rows = self.model.scm[self.image].domain.features, self.changed_rows[name]
        square = self.changed[name] / max(rows * features, 1)
        variance = self.factual.variance
        change = math.sqrt(square / (2 * variance)) if rows and variance > 0 else math.nan
        found = CauseReaction(Estimate(change, math.nan, rows))
        if skill is None or not rows:
            return found
        actual, asked = torch.cat(self.actual[name]), torch.cat(self.asked[name])
        read, shown = torch.cat(self.read[name]), torch.cat(self.shown[name])
        floor = Estimate.of(self._error(name, read, actual))
        found = replace(found, skill=Estimate(skill, math.nan, rows), floor=floor)
        if not is_read:
            return found
        error = Estimate.of(self._error(name, shown, asked))
        if self.model.scm[name].domain.categories is not None:
            before = float((read == asked).double().mean())
            possible = 1 - floor.mean - before
            response = (1 - error.mean - before) / possible if possible > 0 else math.nan
            return replace(found, error=error, response=Estimate(response, math.nan, rows))
        step = asked - actual
        response = float(((shown - read) * step).sum() / step.square().sum())
        spread = (asked - asked.mean()).square().sum()
        r_squared = float(1 - (shown - asked).square().sum() / spread)
        return replace(
            found,
            error=error,
            r_squared=Estimate(r_squared, math.nan, rows),
            response=Estimate(response, math.nan, rows),
        )

    def question(self, k: int, read: Sequence[str]) -> QuestionReaction:
        shown = {
            name: Estimate.of(torch.cat(self.errors[k][name]))
            for name in read
            if self.errors[k][name]
        }
        return QuestionReaction(self.questions[k], self.answers[k].pixel_noise(), shown)
