"""Overlap of the questions of an evaluation with the training data, and the error by overlap."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.data import render_truth
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer, true_attributes
from deepscm_pl.overlap import VERDICTS, Overlap, OverlapEstimator, OverlapThresholds
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
    rows: int = 64,
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
    asked = list(_sweep(part, kept))
    found = _Errors(part, estimator)
    for question in tqdm(asked, desc="error by overlap", disable=hidden):
        found.add(question, workers, cache_dir)
    return replace(result, errors=found.result(), asked=found.asked, rows=size)


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
    scm = model.scm.restrict(scalars) if question.do.keys() <= set(scalars) else model.scm
    found = []
    for _, factual in model.batches(0, len(model), batch_size):
        observed = {name: factual[name] for name in scm.graph.nodes}
        (answered,) = answer(scm, observed, [question], 1)
        values = {name: value[0] for name, value in answered.values.items()}
        verdict = estimator.estimate(values, question.do, quantiles=False).verdict
        found.append(verdict.masked_fill(~answered.possible.cpu(), -1))
    return torch.cat(found)


def _first_rows(model: ModelOnData, size: int) -> ModelOnData:
    return replace(
        model,
        variables={name: value[:size] for name, value in model.variables.items()},
        originals=None if model.originals is None else model.originals[:size],
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


class _Errors:
    """Errors of single answers, with the overlap of each."""

    def __init__(self, model: ModelOnData, estimator: OverlapEstimator) -> None:
        self.model, self.estimator = model, estimator
        self.asked: list[str] = []
        self._found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, question: Question, workers: int | None, cache_dir: Path | None) -> None:
        """Compare the answers to a question with the truth, in the rows in which both exist."""
        model, world = self.model, self.model.world
        (cause,) = question.do
        if world is None:
            return
        factual = model.rows(0, len(model))
        try:
            true, can_be_true = true_attributes(model, question)
            (answered,) = answer(model.scm, factual, [question], 1)
        except ValueError:  # no finite answer of the world or the model at such a value
            return
        usable = can_be_true & answered.possible.cpu().numpy()
        for name, domain in world.domains.items():
            usable &= domain.contains(torch.from_numpy(true[name])).numpy()
        if not usable.any():
            return
        self.asked.append(question.text)
        values = {name: value[0] for name, value in answered.values.items()}
        overlap = self.estimator.estimate(values, question.do, quantiles=False)
        for name in _affected(model, cause):
            truth = torch.from_numpy(true[name])[:, None] if name in true else None
            if truth is None and model.originals is not None:
                drawn = {key: column[usable] for key, column in true.items()}
                images = render_truth(
                    world, model.originals[usable], drawn, workers, False, cache_dir
                )
                truth = torch.zeros(values[name].shape, dtype=torch.float64)
                truth[torch.from_numpy(usable)] = torch.from_numpy(images)[:, None].double()
            if truth is not None:
                self._keep(name, values[name], factual[name], truth, overlap, usable)

    def _keep(
        self,
        name: str,
        value: Tensor,
        factual: Tensor,
        truth: Tensor,
        overlap: Overlap,
        usable: NDArray[np.bool_],
    ) -> None:
        def error(other: Tensor) -> Tensor:
            return (other.double().cpu() - truth).abs().flatten(1).mean(dim=1)

        row = torch.arange(len(value))
        columns = (overlap.verdict, overlap.rows, error(value), error(factual), row)
        kept = torch.stack([each.double() for each in columns], dim=1)
        self._found[name].append(kept.numpy()[usable])

    def result(self) -> list[OverlapError]:
        """Average the errors of each variable."""
        return [self._error(name, np.concatenate(parts)) for name, parts in self._found.items()]

    def _error(self, name: str, kept: NDArray[np.float64]) -> OverlapError:
        verdict, rows, error, unchanged, row = kept.T
        groups = {text: verdict == k for k, text in enumerate(VERDICTS) if (verdict == k).any()}
        limits = _FEWEST_ROWS * 10.0 ** np.arange(13)
        place = np.digitize(rows, limits)
        return OverlapError(
            name,
            self.model.unit(name),
            {text: _mean(error[group], row[group]) for text, group in groups.items()},
            {text: _mean(unchanged[group], row[group]) for text, group in groups.items()},
            [
                OverlapBin(
                    float(limits[k - 1]) if k else 0.0,
                    float(limits[k]),
                    _mean(error[place == k], row[place == k]),
                )
                for k in np.unique(place).tolist()
            ],
        )


def _mean(values: NDArray[np.float64], rows: NDArray[np.float64]) -> Estimate:
    """The mean, with a standard error that is robust to the dependence of values of one row."""
    mean = float(values.mean())
    _, group = np.unique(rows, return_inverse=True)
    sums = np.bincount(group, values - mean)
    error = float(np.sqrt(np.square(sums).sum())) / len(values)
    return Estimate(mean, error if len(sums) > 1 else math.nan, len(values))
