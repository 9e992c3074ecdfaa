"""Conformal calibration of the intervals of particles, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import whole_number
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.evaluation.counterfactuals import Truth
from deepscm_pl.evaluation.intervals import (
    GROUPS,
    Calibration,
    IntervalFactor,
    group_of,
    scale_of,
)
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.metrics.functional.conformal import conformal_factor, rows_needed

__all__ = ["calibrate"]


def calibrate(
    model: ModelOnData,
    questions: Sequence[Question],
    truths: Sequence[Truth],
    num_particles: int,
    level: float = 0.9,
    batch_size: int = 256,
    progress: bool = True,
) -> Calibration:
    """Calibrate the intervals of images under some interventions on rows with a known truth.

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
    parts: list[list[tuple[Tensor, ...]]] = [[] for _ in questions]
    name = model.scm.image_variables[0]
    with tqdm(
        total=len(model), unit="image", desc="calibration", disable=None if progress else True
    ) as bar:
        for first, factual in model.batches(0, len(model), batch_size):
            answers = answer(model.answering, factual, questions, num_particles)
            rows = slice(first, first + len(factual[name]))
            for part, truth, each in zip(parts, truths, answers, strict=True):
                possible = each.possible.cpu() & truth.possible[rows]
                found = each.values[name].cpu()[:, possible]
                true = truth.images[rows][possible].to(found)
                observed = factual[name].cpu()[possible]
                error = (found.mean(dim=0) - true).abs()
                varying = (found != true).any(dim=0)
                part.append((error, scale_of(found), group_of(found, observed), varying))
            bar.update(len(factual[name]))
    factors = [
        factor
        for question, part in zip(questions, parts, strict=True)
        for factor in _factors(
            question, [torch.cat(each) for each in zip(*part, strict=True)], level
        )
    ]
    if not factors:
        raise ValueError(
            f"calibration: no intervention has {needed} rows with a truth; use more "
            "validation rows."
        )
    members = len(model.answering.members) if isinstance(model.answering, Ensemble) else 1
    source = f"{len(model)} validation rows of the world {model.world.name if model.world else ''}"
    return Calibration(level, num_particles, members, factors, source.strip())


def _factors(
    question: Question, values: Sequence[Tensor], level: float
) -> Iterator[IntervalFactor]:
    errors, scales, groups, varying = values
    for k, group in enumerate(GROUPS):
        mask = groups == k
        if group == "equal":
            mask = mask & varying
        rows = int(mask.flatten(1).any(dim=1).sum())
        if rows >= rows_needed(level):
            factor = conformal_factor(errors, scales, level, mask)
            yield IntervalFactor(question.title, tuple(question.do), group, factor, rows)
