"""Effectiveness: whether counterfactual images show the causes that were asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.protocols.answering import Task
from deepscm_pl.evaluation.protocols.drawing import DrawnDo
from deepscm_pl.evaluation.protocols.judging import Reading, estimate_of, readings_of
from deepscm_pl.evaluation.protocols.results import Figure, mean_over_seeds

__all__ = [
    "Statistic",
    "effectiveness_figures",
    "f1_score",
    "mean_error",
    "mean_f1",
    "mean_over_batches",
]

Statistic: TypeAlias = Callable[[Task, Reading], float]
"""A figure of what a judge read."""


def effectiveness_figures(
    task: Task, dos: Mapping[str, Sequence[DrawnDo]], published: Statistic | None = None
) -> list[Figure]:
    """Judge every cause of the image in the counterfactuals under several interventions.

    The target of an intervened variable is its value, that of another one its counterfactual value.

    Args:
        task: The task.
        dos: For each title an intervention for each seed.
        published: The statistic of published code, for the images of :meth:`Task.both_answers`;
            None for none.
    """
    rows = task.factual()
    recorded = readings(task, rows[task.image], rows)
    figures: list[Figure] = []
    for title, drawn in dos.items():
        defined, others = [], []
        for do in drawn:
            answer, other = task.both_answers(do) if published else (task.answer(do),) * 2
            defined.append(readings(task, answer[task.image], answer))
            same = other is answer
            others.append(defined[-1] if same else readings(task, other[task.image], other))
        for key, own in recorded.items():
            of_key = [each[key] for each in defined], [each[key] for each in others]
            figures += _figures(task, title, own, *of_key, published)
    return figures


def readings(
    task: Task, images: Tensor, targets: Mapping[str, Tensor]
) -> dict[tuple[str, str], Reading]:
    """Return what each judge reads of each cause, by (variable, kind of judge)."""
    found: dict[tuple[str, str], Reading] = {}
    for judge in task.judges:
        own = readings_of(judge, images, targets, task.categories)
        found |= {(name, judge.kind): each for name, each in own.items() if name in task.causes}
    return found


def _figures(
    task: Task,
    title: str,
    recorded: Reading,
    defined: Sequence[Reading],
    others: Sequence[Reading],
    published: Statistic | None,
) -> Iterator[Figure]:
    """The error, or the accuracy and, of two classes, the F1 score: as defined and as published."""
    name = recorded.variable
    yield _figure(task, title, recorded, (defined, others), mean_error, published)
    if task.categories[name] == 2:
        batched = None if published in (None, mean_error) else mean_f1
        yield _figure(task, title, recorded, (defined, others), f1_score, batched)


def _figure(
    task: Task,
    title: str,
    recorded: Reading,
    seeds: tuple[Sequence[Reading], Sequence[Reading]],
    statistic: Statistic,
    published: Statistic | None,
) -> Figure:
    name, is_class = recorded.variable, recorded.is_class
    is_f1 = statistic is f1_score
    estimates = [
        Estimate(f1_score(task, each), math.nan, len(each.value))
        if is_f1
        else estimate_of(each.errors)
        for each in seeds[0]
    ]
    found = [] if published is None else [published(task, each) for each in seeds[1]]
    changes_floor = published not in (None, statistic)
    return Figure(
        title,
        name,
        "F1 score" if is_f1 else "accuracy" if is_class else "mean absolute error",
        "" if is_class else task.model.unit(name),
        recorded.judge,
        *mean_over_seeds(estimates),
        published=sum(found) / len(found) if found else None,
        floor=statistic(task, recorded),
        published_floor=published(task, recorded) if published and changes_floor else None,
    )


def mean_error(task: Task, reading: Reading) -> float:
    """Return the mean error, or the accuracy, over images that can be judged."""
    return estimate_of(reading.errors).mean


def mean_over_batches(values: Tensor, batch: int) -> float:
    """Return the mean of the means of batches, which weighs the images of a small last batch more.

    Example:
        >>> mean_over_batches(torch.tensor([1.0, 1.0, 4.0]), batch=2)
        2.5
    """
    means = torch.stack([part.double().nanmean() for part in values.split(batch)])
    return float(means.nanmean())


def f1_score(task: Task, reading: Reading) -> float:
    """Return 2TP / (2TP + FP + FN) of class 1 of two; 0 without any of it.

    Example:
        >>> read, true = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
        >>> round(f1_score(None, Reading("sex", "network", read, true, is_class=True)), 3)
        0.667
    """
    value, target = reading.value == 1, reading.target == 1
    both, either = int((value & target).sum()), int(value.sum() + target.sum())
    return 2 * both / either if either else 0.0


def mean_f1(task: Task, reading: Reading) -> float:
    """Return the mean of the F1 scores of batches."""
    batch = task.settings.batch_size
    parts = zip(reading.value.split(batch), reading.target.split(batch), strict=True)
    scores = [
        f1_score(task, Reading(reading.variable, reading.judge, value, target, is_class=True))
        for value, target in parts
    ]
    return sum(scores) / len(scores)
