"""The protocol of gulnazaki/counterfactual-benchmark (Melistas et al. 2024, arXiv:2403.20287)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.protocols.answering import Task, repeated_images
from deepscm_pl.evaluation.protocols.drawing import DrawnDo, of_other_bins
from deepscm_pl.evaluation.protocols.effectiveness import effectiveness_figures, mean_over_batches
from deepscm_pl.evaluation.protocols.judging import Reading, estimate_of
from deepscm_pl.evaluation.protocols.results import Figure, mean_over_seeds
from deepscm_pl.metrics import FrechetDistance, PerceptualDistance
from deepscm_pl.metrics.functional import latent_divergence_score

__all__ = ["benchmark", "benchmark_omissions", "published_statistic"]

BENCHMARK_NOTES = (
    "as published, the noise of a latent and of pixels is scaled by 0.1, so that no composition is "
    "exact; errors of composition count black pixels of a margin from 28 × 28 to 32 × 32",
    "effectiveness as published is a mean over batches, and a sigmoid is applied to what a network "
    "reads, scaled to [-1, 1], of every number except thickness",
    "bins are nine equal parts of the range of the training column; the published code divides at "
    "the means of the values in these parts",
)

_BINS = 9
_PADDED = {28: 32}
"""Sizes to which the published code pads images."""

_WITHOUT_SIGMOID = ("thickness",)


def benchmark(task: Task) -> list[Figure]:
    """Composition, effectiveness, realism and minimality."""
    metric = _frechet(task)
    dos = other_bins_dos(task)
    figures = _composition(task)
    figures += effectiveness_figures(task, dos, published_statistic)
    if metric is not None:
        figures.append(_realism(task, metric, dos))
    if task.embedding is not None:
        figures += [_minimality(task, drawn) for drawn in dos.values()]
    return figures


def benchmark_omissions(task: Task) -> list[str]:
    """Return notes on the metrics that are left out."""
    missing = {
        "the Fréchet distance": (task.features, "--features FILE, or a judge of a class"),
        "the perceptual distance": (task.perceptual, "--perceptual FILE, or a judge of a class"),
        "the latent divergence": (task.embedding, "--embedding FILE"),
    }
    return [
        f"{name} was left out; give {option}"
        for name, (network, option) in missing.items()
        if network is None
    ]


def published_statistic(task: Task, reading: Reading) -> float:
    """Return the mean over batches, after the sigmoid of the published code.

    The published evaluation applies a sigmoid to the output of each network but that of thickness.
    The network of intensity was trained without it, to read a number in [-1, 1].
    """
    value = reading.value
    is_read = reading.judge == "network" and not reading.is_class
    if is_read and reading.variable not in _WITHOUT_SIGMOID:
        column = task.column(reading.variable).double()
        low, high = float(column.min()), float(column.max())
        scaled = 2 * (value - low) / (high - low) - 1
        value = low + (scaled.sigmoid() + 1) / 2 * (high - low)
    return mean_over_batches(replace(reading, value=value).errors, task.settings.batch_size)


def other_bins_dos(task: Task) -> dict[str, list[DrawnDo]]:
    """Return the interventions for each seed, by title: values of other bins of the test column."""
    found: dict[str, list[DrawnDo]] = {}
    for seed in task.settings.seeds:
        generator = torch.Generator().manual_seed(seed)
        for name in task.causes:
            column, categories = task.model.variables[name].cpu(), task.categories[name]
            training = task.column(name)
            do = of_other_bins(name, column, training, categories, generator, _BINS)
            found.setdefault(do.title, []).append(do)
    return found


def _composition(task: Task) -> list[Figure]:
    """Errors after null interventions, their deviation over images, and perceptual distances."""
    counts, kinds = task.settings.cycles, [False, True][: 1 + task.has_published_answers]
    found = [repeated_images(task, [DrawnDo.null()], counts, each) for each in kinds]
    figures = []
    for count in counts:
        images = [each[count] for each, _ in found]
        errors = [_errors(task, each, kept) for each, (_, kept) in zip(images, found, strict=True)]
        title = f"null, {count} time{'s' if count > 1 else ''}"
        figures += _errors_of_composition(task, title, errors[0], errors[-1])
        if task.perceptual is not None:
            figures.append(_perceptual(task, title, images))
    return figures


def _errors(task: Task, images: Tensor, kept: Tensor) -> Tensor:
    """The mean absolute error of each image in grey levels, ``(N,)``, NaN where impossible."""
    change = (images - task.factual()[task.image]).abs().flatten(1).mean(dim=1)
    return change.double().where(kept, torch.nan)


def _errors_of_composition(
    task: Task, title: str, defined: Tensor, published: Tensor
) -> list[Figure]:
    height = task.model.scm[task.image].domain.shape[-1]
    padding = (height / _PADDED.get(height, height)) ** 2
    mean, other = estimate_of(defined), estimate_of(padding * published)
    deviation = Estimate(_deviation(mean), math.nan, mean.rows)
    figures = [
        ("mean absolute error", mean, other.mean),
        ("deviation over images", deviation, _deviation(other)),
    ]
    return [
        Figure(title, task.image, name, "grey levels", "", value, published=as_published, floor=0.0)
        for name, value, as_published in figures
    ]


def _deviation(found: Estimate) -> float:
    return found.standard_error * math.sqrt(found.rows)


def _perceptual(task: Task, title: str, images: Sequence[Tensor]) -> Figure:
    """The distance from the recorded images of answers as defined and, if any, as published."""
    assert task.perceptual is not None
    recorded, found = task.factual()[task.image], []
    for answers in images:
        metric = PerceptualDistance(task.perceptual)
        batches = (each.float().split(task.settings.batch_size) for each in (answers, recorded))
        for some, other in zip(*batches, strict=True):
            metric.update(some, other)
        found.append(Estimate(*metric.compute()["perceptual_distance"], len(recorded)))
    published = found[1].mean if len(found) > 1 else None
    return Figure(
        title,
        task.image,
        "perceptual distance",
        "",
        "network",
        found[0],
        published=published,
        floor=0.0,
    )


def _frechet(task: Task) -> FrechetDistance | None:
    """The distance from the training images; None without a feature network.

    Raises:
        ValueError: If there are fewer images than features, before anything is computed.
    """
    if task.features is None:
        return None
    metric, training = FrechetDistance(task.features), task.training[task.image]
    metric.require_images(len(training), len(task.model))
    for images in training.split(task.settings.batch_size):
        metric.update(images.float(), True)
    return metric


def _realism(task: Task, metric: FrechetDistance, dos: Mapping[str, list[DrawnDo]]) -> Figure:
    """The Fréchet distance of the training images to one counterfactual of each test image."""
    defined: list[Estimate] = []
    published: list[Estimate] = []
    for k, seed in enumerate(task.settings.seeds):
        generator = torch.Generator().manual_seed(seed)
        which = torch.randint(len(dos), (len(task.model),), generator=generator)
        drawn = [each[k] for each in dos.values()]
        chosen = {next(iter(do.values)): which == n for n, do in enumerate(drawn)}
        joined = {name: value for do in drawn for name, value in do.values.items()}
        both = task.both_answers(DrawnDo("do(one of all ~ another bin)", joined, chosen))
        for answer, found in zip(both, (defined, published), strict=True):
            distance = _distance(task, metric, answer[task.image])
            found.append(Estimate(distance, math.nan, len(task.model)))
    return Figure(
        "do(one of all ~ another bin)",
        task.image,
        "Fréchet distance",
        "",
        "network",
        *mean_over_seeds(defined),
        published=mean_over_seeds(published)[0].mean if task.has_published_answers else None,
        floor=_distance(task, metric, task.factual()[task.image]),
    )


def _distance(task: Task, metric: FrechetDistance, images: Tensor) -> float:
    metric.reset_generated()
    for some in images.split(task.settings.batch_size):
        metric.update(some.float(), False)
    return float(metric.compute())


def _minimality(task: Task, drawn: list[DrawnDo]) -> Figure:
    (name,) = drawn[0].values
    rows = task.factual()
    before = _embedded(task, rows[task.image])
    own = _bins_of(task, name, rows[name])
    found: list[list[Estimate]] = [[], []]
    for do in drawn:
        for k, answer in enumerate(task.both_answers(do)):
            after, other = _embedded(task, answer[task.image]), _bins_of(task, name, answer[name])
            score = latent_divergence_score(before, after, own, other, published=k == 1)
            found[k].append(estimate_of(score))
    return Figure(
        drawn[0].title,
        task.image,
        "counterfactual latent divergence",
        "",
        "network",
        *mean_over_seeds(found[0]),
        published=mean_over_seeds(found[1])[0].mean,
    )


def _embedded(task: Task, images: Tensor) -> tuple[Tensor, Tensor]:
    assert task.embedding is not None
    parts = [task.embedding(some.float()) for some in images.split(task.settings.batch_size)]
    return torch.cat([mean for mean, _ in parts]), torch.cat([scale for _, scale in parts])


def _bins_of(task: Task, name: str, column: Tensor) -> NDArray[np.int64]:
    values = column.double().flatten().cpu().numpy()
    if task.categories[name] is not None:
        return values.astype(np.int64)
    training = task.column(name)
    edges = np.linspace(float(training.min()), float(training.max()), _BINS + 1)[1:-1]
    return np.searchsorted(edges, values).astype(np.int64)
