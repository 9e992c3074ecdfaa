"""Composition and reversibility: axioms that need no known world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Estimate, estimates_of, on_one_process
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.metrics import Composition, Reversibility
from deepscm_pl.scm import StructuralCausalModel

__all__ = [
    "evaluate_composition",
    "evaluate_reversibility",
    "possible_rows",
    "replace_rows",
]

_Step: TypeAlias = Callable[
    [StructuralCausalModel, Mapping[str, Tensor], Mapping[str, Tensor]],
    tuple[dict[str, Tensor], Tensor],
]
"""From a model, factual and current values to the next values and the rows where they exist."""


def evaluate_composition(
    model: ModelOnData,
    rows: int,
    repetitions: Sequence[int] = (1, 10),
    batch_size: int = 256,
    progress: bool = True,
    without_pixel_noise: bool = False,
) -> dict[int, Estimate]:
    """Measure the error of the first ``rows`` images after repeated null interventions.

    A null intervention infers all noise and computes every variable from it, the image included.
    Pixel noise that is inferred exactly makes the error zero, whatever the model has learned.
    Without pixel noise, the image is that of its inferred latent alone, encoded anew in each
    repetition (:meth:`~deepscm_pl.mechanisms.Mechanism.reconstruct`); mechanisms without a latent
    have no such error.

    Returns:
        The error in grey levels by number of repetitions; empty if no row is possible throughout.
    """
    with tqdm(
        total=rows, unit="image", desc="composition", disable=None if progress else True
    ) as bar:
        metric = Composition(repetitions)
        step = _without_pixel_noise if without_pixel_noise else _null
        return _repeated_errors(model, metric, step, rows, batch_size, bar.update)


def evaluate_reversibility(
    model: ModelOnData,
    questions: Sequence[Question],
    rows: int,
    repetitions: Sequence[int] = (1, 10),
    batch_size: int = 256,
    progress: bool = True,
) -> list[dict[int, Estimate]]:
    """Measure the error of the first ``rows`` images after repeated cycles of each intervention.

    A cycle is an intervention followed by one that restores the factual values of its variables.
    Rows in which a cycle is impossible in the model are ignored.

    Returns:
        For each intervention the error in grey levels by number of cycles; empty without rows.
    """
    total = rows * len(questions)
    with tqdm(
        total=total, unit="image", desc="reversibility", disable=None if progress else True
    ) as bar:
        return [
            _repeated_errors(
                model,
                Reversibility(repetitions),
                partial(_cycle, question),
                rows,
                batch_size,
                bar.update,
            )
            for question in questions
        ]


def _repeated_errors(
    model: ModelOnData,
    metric: Composition | Reversibility,
    step: _Step,
    rows: int,
    batch_size: int,
    advance: Callable[[int], object],
) -> dict[int, Estimate]:
    scm, image = model.scm, model.scm.image_variables[0]
    metric = on_one_process(metric, scm.fitted.device)
    counted = 0
    for _, factual in model.batches(0, rows, batch_size):
        after, kept = _repeat(scm, factual, metric.repetitions, step)
        if bool(kept.any()):
            images = {k: values[image][kept][None] for k, values in after.items()}
            metric.update(factual[image][kept], images)
        counted += int(kept.sum())
        advance(len(kept))
    if not counted:
        return {}
    found = estimates_of(metric.compute(), counted)
    return {k: found[f"mean_absolute_error/{k}"] for k in metric.repetitions}


def _null(
    scm: StructuralCausalModel, factual: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    predicted = {name: value[0] for name, value in scm.predict(scm.abduct(values)).items()}
    return predicted, _all_rows(scm, values)


def _without_pixel_noise(
    scm: StructuralCausalModel, factual: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    image = scm.image_variables[0]
    parents = {name: values[name] for name in scm.graph.parents[image]}
    reconstructed = {**values, image: scm[image].reconstruct(values[image], parents)}
    return reconstructed, _all_rows(scm, values)


def _cycle(
    question: Question,
    scm: StructuralCausalModel,
    factual: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], Tensor]:
    answered = answer(scm, values, [question], 1)[0]
    changed = {name: value[0] for name, value in answered.values.items()}
    possible = answered.possible & possible_rows(scm, changed)
    changed = replace_rows(possible, changed, values)
    restored = scm.counterfactual(changed, {name: factual[name] for name in question.do})
    return {name: value[0] for name, value in restored.items()}, possible


def _repeat(
    scm: StructuralCausalModel,
    factual: Mapping[str, Tensor],
    repetitions: Sequence[int],
    step: _Step,
) -> tuple[dict[int, dict[str, Tensor]], Tensor]:
    """Values after each number of repetitions, and the rows that were possible throughout."""
    values = dict(factual)
    after = {}
    kept = _all_rows(scm, factual)
    for k in range(1, max(repetitions) + 1):
        values, possible = step(scm, factual, values)
        kept = kept & possible & possible_rows(scm, values)
        values = replace_rows(kept, values, factual)
        if k in repetitions:
            after[k] = values
    return after, kept


def _all_rows(scm: StructuralCausalModel, values: Mapping[str, Tensor]) -> Tensor:
    size = len(next(iter(values.values())))
    return torch.ones(size, dtype=torch.bool, device=scm.fitted.device)


def possible_rows(scm: StructuralCausalModel, values: Mapping[str, Tensor]) -> Tensor:
    """Return the rows with all values in their domains; rounding can reach an open bound."""
    inside = [scm[name].domain.contains(values[name]).flatten(1).all(dim=1) for name in values]
    return torch.stack(inside).all(dim=0)


def replace_rows(
    rows: Tensor, values: Mapping[str, Tensor], otherwise: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return ``values`` in the chosen rows, and ``otherwise`` in the others."""
    return {
        name: torch.where(rows.view(-1, *[1] * (value.dim() - 1)), value, otherwise[name])
        for name, value in values.items()
    }
