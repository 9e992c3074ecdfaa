"""The protocol of this package: measured effects, truth, cycles, untouched regions, costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.protocols.answering import Task, repeated_images
from deepscm_pl.evaluation.protocols.causal_gen import training_dos
from deepscm_pl.evaluation.protocols.cost import cost_figures
from deepscm_pl.evaluation.protocols.drawing import DrawnDo
from deepscm_pl.evaluation.protocols.effectiveness import effectiveness_figures
from deepscm_pl.evaluation.protocols.judging import estimate_of
from deepscm_pl.evaluation.protocols.rendered import has_truth, rendered, true_values
from deepscm_pl.evaluation.protocols.results import Figure, mean_over_seeds
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.interventions import is_constant
from deepscm_pl.mechanisms.latent import LatentImageMechanism
from deepscm_pl.metrics import IntervalCoverage, RegionError
from deepscm_pl.metrics.functional import bits_per_dimension

__all__ = ["ours"]

OURS_NOTES = (
    "the ratio to doing nothing is the mean absolute error against the true image, divided by "
    "that of the unchanged image",
    "untouched pixels are those that the true intervention leaves as they are, changed ones the "
    "others; a ratio of all pixels cannot tell whether both are right",
)

_LEVEL = 0.9


def ours(task: Task) -> list[Figure]:
    """Effectiveness, truth by region, coverage, cycles, bits per dimension, costs."""
    asked = _asked(task)  # before anything that takes long
    dos = training_dos(task)
    figures = effectiveness_figures(task, dos)
    for title, drawn in dos.items():
        names = list(drawn[0].values)
        if len(names) == 1 and has_truth(task, names):
            figures += _against_truth(task, title, drawn)
            figures.append(_coverage(task, drawn[0]))
        if len(names) == 1:
            figures += _cycles(task, title, drawn)
    for do in asked:
        figures += _against_truth(task, do.title, [do])
    first = next(iter(dos.values()))[0]
    return figures + _bits(task) + cost_figures(task, first)


def _asked(task: Task) -> list[DrawnDo]:
    """The interventions by constants.

    Raises:
        ValueError: If one cannot be read, is not of constants, or has no truth.
    """
    found = []
    for text in task.settings.asked:
        question = Question(text, task.model.scm.variables)
        question.check(task.model)
        if not all(is_constant(value) for value in question.do.values()):
            raise ValueError(
                f"do: expected constants, such as thickness=5, but got {text!r}; ask deepscm "
                "counterfactual for other changes."
            )
        if not has_truth(task, list(question.do)):
            raise ValueError(
                f"do: expected a known world that draws the truth of {text!r}, but the data have "
                "none; leave it out."
            )
        found.append(DrawnDo.constant(question.title, question.do, len(task.model)))
    return found


def _against_truth(task: Task, title: str, drawn: Sequence[DrawnDo]) -> list[Figure]:
    found: list[dict[str, Estimate]] = []
    recorded = task.factual()[task.image]
    for do in drawn:
        answer, truth = task.answer(do)[task.image], rendered(task, true_values(task, do))
        metric = RegionError()
        metric.update(answer.float(), truth, recorded.float())
        found.append(
            {name: Estimate(*each, len(recorded)) for name, each in metric.compute().items()}
        )
    units = {"ratio": "", "share of untouched": ""}
    figures = []
    for name in found[0]:
        defined, deviation = mean_over_seeds([each[name] for each in found])
        unit, floor = units.get(name, "grey levels"), None if "share" in name else 0.0
        quantity = "error ÷ doing nothing" if name == "ratio" else name
        figures.append(
            Figure(title, task.image, quantity, unit, "", defined, deviation, floor=floor)
        )
    return figures


def _coverage(task: Task, do: DrawnDo) -> Figure:
    """The share of changing true pixels inside central intervals of the particles."""
    settings, answering = task.settings, task.model.answering
    size = min(settings.detail_rows, len(task.model))
    truth = rendered(task, true_values(task, do))[:size]
    metric = IntervalCoverage([_LEVEL])
    step = max(1, settings.batch_size // settings.particles)
    for start in range(0, size, step):
        some = slice(start, min(start + step, size))
        rows = task.model.rows(some.start, some.stop)
        values = {name: each[some].to(rows[name]) for name, each in do.values.items()}
        drawn = answering.counterfactual(rows, values, settings.particles)[task.image]
        metric.update(drawn.cpu().float().round(), truth[some])
    found = Estimate(*metric.compute()[f"varying/{_LEVEL:g}"], size)
    return Figure(do.title, task.image, f"coverage of {_LEVEL:.0%} intervals", "", "", found)


def _cycles(task: Task, title: str, drawn: Sequence[DrawnDo]) -> list[Figure]:
    """The error after cycles there and back, for the first seed."""
    rows = min(task.settings.detail_rows, len(task.model))
    task, there = task.first(rows), drawn[0].first(rows)
    recorded = task.factual()
    back = DrawnDo(f"{title} and back", {name: recorded[name] for name in there.values}, {})
    images, kept = repeated_images(task, [there, back], task.settings.cycles)
    figures = []
    for count, each in images.items():
        error = (each - recorded[task.image]).abs().flatten(1).mean(dim=1).where(kept, torch.nan)
        quantity = f"error after {count} cycle{'s' if count > 1 else ''}"
        found = estimate_of(error)
        figures.append(Figure(title, task.image, quantity, "grey levels", "", found, floor=0.0))
    return figures


def _bits(task: Task) -> list[Figure]:
    """Bits per dimension of recorded images by bounds; none without a likelihood.

    A bound of draws of a latent is tightened by importance weighting (Burda et al. 2016,
    arXiv:1509.00519, equation 8). The bound of several models is that of their mixture.
    """
    scm, image = task.model.scm, task.image
    has_draws = isinstance(scm[image], LatentImageMechanism)
    counts = [1, task.settings.particles] if has_draws else [1]
    figures = []
    for count in counts:
        try:
            bounds = _recorded_bounds(task, count)
        except NotImplementedError:
            return []
        bits = bits_per_dimension(bounds, scm[image].domain.features)
        name = "bits per dimension" + (f", K = {count}" if count > 1 else "")
        figures.append(Figure("", image, name, "", "", estimate_of(bits)))
    return figures


def _recorded_bounds(task: Task, count: int) -> Tensor:
    """Bounds of log P of recorded images, ``(N,)``: of the mean of ``count`` weights, or of one."""
    image, parts = task.image, []
    step = max(1, task.settings.batch_size // count)
    for _, rows in task.model.batches(0, len(task.model), step):
        parents = {name: rows[name] for name in task.model.scm.graph.parents[image]}
        found = []
        for member in task.members:
            if count == 1:
                found.append(member[image].recorded_bound(rows[image], parents))
            else:
                weights = member[image].recorded_log_weights(rows[image], parents, count)
                found.append(weights.logsumexp(dim=0) - math.log(count))
        bounds = torch.stack(found).double()
        parts.append((bounds.logsumexp(dim=0) - math.log(len(bounds))).cpu())
    return torch.cat(parts)
