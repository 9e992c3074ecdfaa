"""Overlap of the questions of an evaluation with the training data, and the error by overlap."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.data import render_truth
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer, true_attributes
from deepscm_pl.interventions import read_variables
from deepscm_pl.overlap import VERDICTS, OverlapEstimator, OverlapThresholds
from deepscm_pl.training_distribution import TrainingDistribution

__all__ = ["OverlapBin", "OverlapError", "OverlapResult", "evaluate_overlap"]

_PLACES = tuple(k / 6 for k in range(-3, 10))
"""Values to set, as shares of the range of the training split: half a range beyond both ends."""
_FEWEST_ROWS = 1e-3
"""The upper limit of the first interval of effective numbers of rows; the others are decades."""


@dataclass(frozen=True)
class OverlapBin:
    """Mean absolute error of answers whose effective number of training rows is in an interval."""

    low: float
    high: float
    error: Estimate


@dataclass(frozen=True)
class OverlapError:
    """Mean absolute error of one variable against the truth, by overlap with the training data.

    Standard errors are those of independent rows of the test split, each with several answers.

    Attributes:
        variable: The image or an attribute, under interventions on its causes.
        unit: Unit of the error.
        by_verdict: The error of the answers with each verdict.
        unchanged: The error of the factual value for the same answers.
        by_rows: The error by effective number of training rows, in ascending order.
    """

    variable: str
    unit: str
    by_verdict: Mapping[str, Estimate]
    unchanged: Mapping[str, Estimate]
    by_rows: Sequence[OverlapBin]


@dataclass(frozen=True)
class OverlapResult:
    """Overlap of an evaluation.

    Attributes:
        thresholds: Limits of the verdicts.
        by_row: For each intervention, by its text, the index of the verdict on each row into
            :data:`~deepscm_pl.overlap.VERDICTS`, ``(N,)``; −1 where it is impossible.
        errors: Errors against the truth, of each affected variable; empty without a known world.
        asked: The interventions of ``errors``, in each of ``rows`` rows.
    """

    thresholds: OverlapThresholds
    by_row: Mapping[str, Tensor]
    errors: Sequence[OverlapError] = ()
    asked: Sequence[str] = ()
    rows: int = 0

    @property
    def verdicts(self) -> dict[str, dict[str, int]]:
        """For each intervention, by its text, the number of rows with each verdict."""
        return {
            text: {verdict: int((found == k).sum()) for k, verdict in enumerate(VERDICTS)}
            for text, found in self.by_row.items()
        }

    def total(self, verdict: str) -> int:
        """Count the answers with a verdict under all interventions."""
        return sum(counts[verdict] for counts in self.verdicts.values())


def evaluate_overlap(
    model: ModelOnData,
    questions: Sequence[Question],
    thresholds: OverlapThresholds | None = None,
    rows: int = 32,
    batch_size: int = 256,
    workers: int | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
) -> OverlapResult | None:
    """Count the verdicts on each question, and measure the error against the truth by verdict.

    The error is that of single answers to interventions on each continuous cause in a known world,
    from half the range of the training split below its smallest value to half above its largest.
    A model of an earlier version is compared with the training split of the data.

    Args:
        model: The model, and the world if known.
        questions: The interventions whose verdicts are counted.
        thresholds: Limits of the verdicts; None for the defaults.
        rows: Number of the first rows whose error is measured; 0 for none.
        batch_size: Rows in each batch.
        workers: Processes to render with; None for one per processor.
        progress: Whether to show a progress bar.
        cache_dir: Cache of the rendered truth; None for no cache.

    Returns:
        The result, or None if the training distribution is unknown.
    """
    kept = _training_distribution(model)
    if kept is None:
        return None
    estimator = OverlapEstimator(model.scm, thresholds, distribution=kept)
    hidden = None if progress else True
    by_row = {
        each.text: _verdicts(model, estimator, each, batch_size)
        for each in tqdm(questions, desc="overlap", disable=hidden)
    }
    result = OverlapResult(estimator.thresholds, by_row)
    size = min(rows, len(model))
    if model.world is None or not size:
        return result
    part = _first_rows(model, size)
    truths = _with_images(part, _true_answers(part, kept), workers, progress, cache_dir)
    found = _measure(part, estimator, truths, batch_size, progress)
    asked = [truth.question.text for truth in truths]
    return replace(result, errors=list(_errors(part, found)), asked=asked, rows=size)


def _training_distribution(model: ModelOnData) -> TrainingDistribution | None:
    kept = model.scm.training_distribution
    if kept.is_known or not model.training:
        return kept if kept.is_known else None
    computed = TrainingDistribution(kept.domains)
    computed.fit(model.training)
    return computed.to(model.scm.fitted.device)


def _verdicts(
    model: ModelOnData, estimator: OverlapEstimator, question: Question, batch_size: int
) -> Tensor:
    """The verdict on each answer, from scalar variables only where possible; −1 for impossible."""
    graph, images = model.scm.graph, set(model.scm.image_variables)
    scalars = [name for name in model.scalars if not graph.ancestors(name) & images]
    is_scalar = set(read_variables(question.do)) <= set(scalars)
    scm = model.scm.restrict(scalars) if is_scalar else model.scm
    found = []
    for _, factual in model.batches(0, len(model), batch_size):
        observed = {name: factual[name] for name in scm.graph.nodes}
        (answered,) = answer(scm, observed, [question], 1)
        values = {name: value[0] for name, value in answered.values.items()}
        verdict = estimator.estimate(values, question.do, quantiles=False).verdict
        found.append(verdict.masked_fill(~answered.possible.cpu(), -1))
    return torch.cat(found)


def _first_rows(model: ModelOnData, size: int) -> ModelOnData:
    """The first rows, with originals only if the model has a single image, which they determine."""
    drawn = model.originals if len(model.scm.image_variables) == 1 else None
    return replace(
        model,
        variables={name: value[:size] for name, value in model.variables.items()},
        originals=None if drawn is None else drawn[:size],
        other_attributes={name: each[:size] for name, each in model.other_attributes.items()},
    )


def _sweep(model: ModelOnData, kept: TrainingDistribution) -> Iterator[Question]:
    """Interventions on each continuous cause, within and beyond the training data."""
    if model.world is None:
        return
    for name in model.attributes:
        domain = kept.domains[name]
        if domain.categories is not None or not _affected(model, name):
            continue
        low, high = kept.limits(name)
        for place in _PLACES:
            number = float(f"{low + place * (high - low):.3g}")
            value = torch.tensor([number], dtype=torch.float64)
            domains = (domain, model.world.domains[name])
            if all(bool(each.contains(value).all()) for each in domains):
                text = np.format_float_positional(number, trim="-")
                yield Question(f"{name}={text}", model.scm.variables)


def _affected(model: ModelOnData, cause: str) -> list[str]:
    """Variables whose true values under an intervention are known, and may differ."""
    changed = model.scm.graph.descendants(cause)
    if model.world is not None:
        changed = changed | model.world.graph.descendants(cause)
    continuous = [n for n in model.attributes if model.scm[n].domain.categories is None]
    images = model.scm.image_variables if model.originals is not None else ()
    return [name for name in (*images, *continuous) if name in changed and name != cause]


@dataclass(frozen=True)
class _TrueAnswer:
    """The answer of the world to an intervention on one cause.

    Attributes:
        values: Attributes, and the image in ``usable`` rows if it can be rendered.
        usable: Rows in which the intervention is possible, and the image can be rendered, ``(R,)``.
    """

    question: Question
    values: Mapping[str, NDArray[Any]]
    usable: NDArray[np.bool_]


def _true_answers(model: ModelOnData, kept: TrainingDistribution) -> list[_TrueAnswer]:
    world, found = model.world, []
    for question in _sweep(model, kept):
        try:
            values, usable = true_attributes(model, question)
        except ValueError:  # the world has no finite answer at such a value
            continue
        for name, domain in world.domains.items() if world is not None else ():
            usable = usable & domain.contains(torch.from_numpy(values[name])).numpy()
        if usable.any():
            found.append(_TrueAnswer(question, values, usable))
    return found


def _with_images(
    model: ModelOnData,
    truths: Sequence[_TrueAnswer],
    workers: int | None,
    progress: bool,
    cache_dir: Path | None,
) -> list[_TrueAnswer]:
    """Render all images at once, so that several processes share the work."""
    world, originals = model.world, model.originals
    if world is None or originals is None or not truths:
        return list(truths)
    columns = {
        name: np.concatenate([each.values[name][each.usable] for each in truths])
        for name in world.attributes
    }
    rows = np.concatenate([originals[each.usable] for each in truths])
    images = render_truth(world, rows, columns, workers, progress, cache_dir)
    images = world.with_channels(images)
    ends = np.cumsum([each.usable.sum() for each in truths])[:-1]
    (name,) = model.scm.image_variables
    return [
        replace(each, values={**each.values, name: part})
        for each, part in zip(truths, np.split(images, ends), strict=True)
    ]


def _measure(
    model: ModelOnData,
    estimator: OverlapEstimator,
    truths: Sequence[_TrueAnswer],
    batch_size: int,
    progress: bool,
) -> dict[str, NDArray[np.float64]]:
    """Compare single answers of the model with the truth.

    Returns:
        For each affected variable verdict, effective rows, error, error of the factual value, and
        row of the test split of each answer, ``(answers, 5)``. Answers that overflow are left out.
    """
    found: dict[str, list[Tensor]] = defaultdict(list)
    scm, size = model.scm, len(model)
    with tqdm(
        total=size * len(truths), desc="error by overlap", disable=None if progress else True
    ) as bar:
        for first, factual in model.batches(0, size, batch_size):
            count = min(batch_size, size - first)
            noise = scm.abduct(factual)
            for truth in truths:
                bar.update(count)
                ((cause, value),) = truth.question.do.items()
                changed = scm.graph.descendants(cause) | {cause}
                kept = {name: each[None] for name, each in factual.items() if name not in changed}
                try:
                    answered = scm.act({cause: value}).predict(noise, kept)
                except ValueError:  # overflow
                    continue
                values = {name: each[0].expand_as(factual[name]) for name, each in answered.items()}
                overlap = estimator.estimate(values, [cause], quantiles=False)
                usable = torch.from_numpy(truth.usable[first : first + count])
                rows = (torch.arange(count) + first)[usable]
                start = int(truth.usable[:first].sum())
                for name in _affected(model, cause):
                    true = torch.from_numpy(truth.values[name]).double()
                    if name in scm.image_variables:
                        true = true[start : start + len(rows)]
                    else:
                        true = true[rows, None]
                    both = (values[name], factual[name])
                    errors = [
                        (each.double().cpu()[usable] - true).abs().flatten(1).mean(dim=1)
                        for each in both
                    ]
                    columns = (overlap.verdict[usable], overlap.rows[usable], *errors, rows)
                    found[name].append(torch.stack([each.double() for each in columns], dim=1))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _errors(model: ModelOnData, found: Mapping[str, NDArray[np.float64]]) -> Iterator[OverlapError]:
    limits = _FEWEST_ROWS * 10.0 ** np.arange(13)
    for name, answers in found.items():
        verdict, rows, error, unchanged, row = answers.T
        groups = {text: verdict == k for k, text in enumerate(VERDICTS) if (verdict == k).any()}
        place = np.digitize(rows, limits)
        bins = [
            OverlapBin(
                float(limits[k - 1]) if k else 0.0,
                float(limits[k]),
                _mean(error[place == k], row[place == k]),
            )
            for k in np.unique(place)
        ]
        yield OverlapError(
            name,
            model.unit(name),
            {text: _mean(error[group], row[group]) for text, group in groups.items()},
            {text: _mean(unchanged[group], row[group]) for text, group in groups.items()},
            bins,
        )


def _mean(values: NDArray[np.float64], rows: NDArray[np.float64]) -> Estimate:
    """The mean, with a standard error that is robust to the dependence of values of one row."""
    mean = float(values.mean())
    _, group = np.unique(rows, return_inverse=True)
    sums = np.bincount(group, values - mean)
    error = float(np.sqrt(np.square(sums).sum())) / len(values)
    return Estimate(mean, error if len(sums) > 1 else math.nan, len(values))
