"""Conformal calibration of the intervals of particles, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import whole_number
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.evaluation.counterfactuals import TrueImages
from deepscm_pl.evaluation.intervals import (
    GROUPS,
    Calibration,
    IntervalFactor,
    coupling_of,
    group_of,
    scale_of,
)
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.metrics.functional.conformal import conformal_factor, rows_needed
from deepscm_pl.moments import Moments

__all__ = [
    "calibrate",
    "calibrate_by_composition",
    "calibrate_by_follow_up",
    "check_follow_up",
    "follow_up_pairs",
]


def calibrate(
    model: ModelOnData,
    questions: Sequence[Question],
    truths: Sequence[TrueImages],
    num_particles: int,
    level: float = 0.9,
    batch_size: int = 256,
    progress: bool = True,
) -> Calibration | None:
    """Calibrate the intervals of images under some interventions on rows with a known truth.

    The result is None if no intervention has enough rows in which it is possible and pixels vary.

    Args:
        model: The model and calibration rows, which neither training nor evaluation uses.
        questions: The interventions.
        truths: The truth of each.
        num_particles: P, at least 2.
        level: The share of pixels that the intervals are to hold.
        batch_size: Rows in each batch.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If there is no truth, fewer than two particles, or fewer rows than the level
            needs.
    """
    whole_number("num_particles", num_particles, least=2)
    needed = rows_needed(level)
    if not truths:
        raise ValueError(
            "calibration: expected the truth of each intervention, but there is none; only a known "
            "world has it."
        )
    if len(model) < needed:
        raise ValueError(
            f"calibration: intervals of {level:g} need at least {needed} rows, but there are "
            f"{len(model)}; use more validation rows."
        )
    parts: list[list[_Part]] = [[] for _ in questions]
    name = model.scm.image_variables[0]
    for first, factual in _batches(model, batch_size, progress):
        answers = answer(model.answering, factual, questions, num_particles)
        rows = slice(first, first + len(factual[name]))
        for part, truth, each in zip(parts, truths, answers, strict=True):
            possible = each.possible.cpu() & truth.possible[rows]
            found = each.values[name].cpu()[:, possible]
            true = truth.images[rows][possible]
            part.append(_part_of(found, true, factual[name].cpu()[possible]))
    factors = [
        factor
        for question, part in zip(questions, parts, strict=True)
        for factor in _factors(question.title, tuple(question.do), part, level)
    ]
    if not factors:
        return None
    world = "" if model.world is None else f" of the world {model.world.name}"
    source = f"{len(model)} validation rows{world}"
    return Calibration(
        level, num_particles, _members(model), factors, source, coupling_of(model.scm)
    )


def calibrate_by_follow_up(
    model: ModelOnData,
    variables: Sequence[str],
    num_particles: int,
    level: float = 0.9,
    batch_size: int = 256,
    progress: bool = True,
) -> Calibration:
    """Calibrate intervals by later rows of the same persons: the observed outcome of a change.

    The counterfactual of the first visit of a person, with ``variables`` set to the values of a
    later visit, is compared with the image of that visit. A visit is a set of rows of one person
    with equal values of ``variables``; its k-th row belongs to the k-th row of another visit.

    Args:
        model: The model and calibration rows with identifiers.
        variables: The variables that differ between visits and cause the change, such as ``age``.
        num_particles: P, at least 2.
        level: The share of pixels that the intervals are to hold.
        batch_size: Rows in each batch.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If a variable is unknown, or there are fewer pairs than the level needs.
    """
    whole_number("num_particles", num_particles, least=2)
    earlier, later = follow_up_pairs(model, variables, level)
    image = model.scm.image_variables[0]
    after = {name: value[later] for name, value in model.variables.items()}
    before = {name: value[earlier] for name, value in model.variables.items()}
    pairs = replace(model, variables=before, originals=None)
    parts = []
    for first, factual in _batches(pairs, batch_size, progress):
        rows = slice(first, first + len(factual[image]))
        do = {name: after[name][rows].to(factual[name]) for name in variables}
        found = model.answering.counterfactual(factual, do, num_particles)[image].cpu()
        parts.append(_part_of(found, after[image][rows], factual[image].cpu()))
    title = f"do({', '.join(variables)} = that of a later visit)"
    factors = list(_factors(title, tuple(variables), parts, level))
    source = f"{len(earlier)} pairs of visits in the validation split"
    return Calibration(
        level, num_particles, _members(model), factors, source, coupling_of(model.scm)
    )


def check_follow_up(model: ModelOnData, variables: Sequence[str]) -> None:
    """Raise ValueError unless there are visits of persons, and each variable is a scalar."""
    if model.identifiers is None:
        raise ValueError(
            "follow_up: expected data with several visits of a person, but the data module gives "
            "no identifiers of persons; leave follow_up out."
        )
    for name in variables:
        if name not in model.scalars:
            raise ValueError(
                f"follow_up: expected some of {', '.join(model.scalars)}, but got {name!r}."
            )


def follow_up_pairs(
    model: ModelOnData, variables: Sequence[str], level: float = 0.9
) -> tuple[list[int], list[int]]:
    """Return the rows of first visits, and for each the row of a later visit.

    Raises:
        ValueError: As of :func:`check_follow_up`, or if there are too few pairs for the level.
    """
    check_follow_up(model, variables)
    earlier, later = _pairs(model, variables)
    if len(earlier) < rows_needed(level):
        raise ValueError(
            f"follow_up: intervals of {level:g} need at least {rows_needed(level)} pairs of visits "
            f"of one person, but the validation split has {len(earlier)}; leave follow_up out."
        )
    return earlier, later


def calibrate_by_composition(
    model: ModelOnData,
    num_particles: int,
    level: float = 0.9,
    batch_size: int = 256,
    progress: bool = True,
) -> Calibration | None:
    """Calibrate intervals of the reconstruction, with new pixel noise, by the observed images.

    These factors lack the error of interventions, so that intervals are lower bounds. They need no
    truth, but a latent; the result is None for models without, or with too few rows.
    """
    scm, image = model.scm, model.scm.image_variables[0]
    members = _members(model)
    if len(model) < rows_needed(level) or num_particles < 2 * members:
        return None
    answering = model.ensemble or Ensemble([scm])
    shares = zip(answering.members, answering.share(num_particles), strict=True)
    counts = [(member, count) for member, count in shares if count]
    parts = []
    for _, factual in _batches(model, batch_size, progress):
        drawn = []
        for member, count in counts:
            noise = member.abduct(factual, count)
            if "z" not in noise[image]:
                return None
            batch = (count, len(factual[image]))
            new = {**noise[image], "u": member[image].sample_noise(torch.Size(batch))["u"]}
            kept = {name: value for name, value in factual.items() if name != image}
            drawn.append(member.predict({**noise, image: new}, kept)[image])
        parts.append(_part_of(torch.cat(drawn).cpu(), factual[image].cpu(), factual[image].cpu()))
    factors = list(_factors("no intervention", (), parts, level))
    if not factors:
        return None
    source = f"the reconstruction of {len(model)} validation images"
    coupling = coupling_of(scm)
    return Calibration(level, num_particles, members, factors, source, coupling, is_complete=False)


_Part = tuple[Tensor, Tensor, Tensor, Tensor]
"""Errors, scales, groups, and which pixels vary, ``(rows, *event)`` each."""


def _batches(
    model: ModelOnData, size: int, progress: bool
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    with tqdm(
        total=len(model), unit="image", desc="calibration", disable=None if progress else True
    ) as bar:
        for first, factual in model.batches(0, len(model), size):
            yield first, factual
            bar.update(len(next(iter(factual.values()))))


def _part_of(particles: Tensor, truth: Tensor, factual: Tensor) -> _Part:
    truth, moments = truth.to(particles), Moments.of(particles)
    error, varying = (moments.mean - truth).abs(), (particles != truth).any(dim=0)
    return error, scale_of(moments), group_of(moments, factual), varying


def _members(model: ModelOnData) -> int:
    return 1 if model.ensemble is None else len(model.ensemble.members)


def _pairs(model: ModelOnData, variables: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows of first visits, and for each the row of a later visit."""
    visits: dict[str, dict[tuple[float, ...], list[int]]] = {}
    columns = [model.variables[name].flatten().tolist() for name in variables]
    for row, person in enumerate(model.identifiers or ()):
        key = tuple(column[row] for column in columns)
        visits.setdefault(person, {}).setdefault(key, []).append(row)
    earlier: list[int] = []
    later: list[int] = []
    for each in visits.values():
        first, *others = each.values()
        for other in others:
            if len(other) == len(first):
                earlier += first
                later += other
    return earlier, later


def _factors(
    title: str, variables: tuple[str, ...], parts: Sequence[_Part], level: float
) -> Iterator[IntervalFactor]:
    errors, scales, groups, varying = (torch.cat(each) for each in zip(*parts, strict=True))
    for k, group in enumerate(GROUPS):
        mask = (groups == k) & varying
        rows = int(mask.flatten(1).any(dim=1).sum())
        if rows >= rows_needed(level):
            factor = conformal_factor(errors, scales, level, mask)
            yield IntervalFactor(title, variables, group, factor, rows)
