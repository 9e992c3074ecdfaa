"""Composition and reversibility: what has to hold whatever the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.estimate import Estimate, alone, over_rows
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.metrics import Composition, Reversibility
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["evaluate_composition", "evaluate_reversibility"]

_Step: TypeAlias = Callable[
    [StructuralCausalModel, Mapping[str, Tensor]], tuple[dict[str, Tensor], Tensor]
]
"""From a model and values to the next values, and the rows in which the step was possible."""


def evaluate_composition(
    subject: Subject,
    rows: int,
    repetitions: Sequence[int] = (1, 10),
    batch_size: int = 256,
    progress: bool = True,
) -> dict[str, Estimate]:
    """Error of the first ``rows`` images after k null interventions, each drawn anew.

    A null intervention infers all noise and computes every variable from it again: nothing is kept
    as it was.

    Args:
        subject: The model and the rows.
        rows: How many rows to look at.
        repetitions: The numbers k.
        batch_size: Rows at a time.
        progress: Whether to show a progress bar.
    """
    image = subject.scm.image_variables[0]
    metric = alone(Composition(repetitions), subject.scm.fitted.device)
    counted = 0
    with tqdm(total=rows, unit="image", desc="composition", disable=not progress) as bar:
        for _, factual in subject.batches(0, rows, batch_size):
            after, alive = _repeat(subject.scm, factual, repetitions, _null)
            kept = {k: values[image][alive][None] for k, values in after.items()}
            if bool(alive.any()):
                metric.update(factual[image][alive], kept)
            counted += int(alive.sum())
            bar.update(len(alive))
    return over_rows(metric.compute(), counted, "composition/") if counted else {}


def evaluate_reversibility(
    subject: Subject,
    questions: Sequence[Question],
    rows: int,
    repetitions: Sequence[int] = (1, 10),
    batch_size: int = 256,
    progress: bool = True,
) -> list[dict[str, Estimate]]:
    """Error of the first ``rows`` images after k cycles there and back, for each intervention.

    Back means that what was intervened on is set to its factual value. Rows in which the
    intervention is not possible, or leads to a value that the model holds impossible, are left out.

    Args:
        subject: The model and the rows.
        questions: The interventions.
        rows: How many rows to look at.
        repetitions: The numbers k.
        batch_size: Rows at a time.
        progress: Whether to show a progress bar.

    Returns:
        For each intervention what was found; nothing where no row was left.
    """
    image = subject.scm.image_variables[0]
    found: list[dict[str, Estimate]] = []
    total = rows * len(questions)
    with tqdm(total=total, unit="image", desc="reversibility", disable=not progress) as bar:
        for question in questions:
            metric = alone(Reversibility(repetitions), subject.scm.fitted.device)
            counted = 0
            for _, factual in subject.batches(0, rows, batch_size):
                cycle = _Cycle(question, factual)
                after, alive = _repeat(subject.scm, factual, repetitions, cycle)
                kept = {k: values[image][alive][None] for k, values in after.items()}
                if bool(alive.any()):
                    metric.update(factual[image][alive], kept)
                counted += int(alive.sum())
                bar.update(len(alive))
            found.append(over_rows(metric.compute(), counted, "reversibility/") if counted else {})
    return found


class _Cycle:
    """An intervention, then its reversal."""

    def __init__(self, question: Question, factual: Mapping[str, Tensor]) -> None:
        self.question = question
        self.back = {name: factual[name] for name in question.do}

    def __call__(
        self, scm: StructuralCausalModel, values: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        there = answer(scm, values, [self.question], 1)[0]
        changed = {name: value[0] for name, value in there.values.items()}
        possible = there.inside & _possible(scm, changed)
        safe = _replace_rows(possible, changed, values)
        back = scm.counterfactual(safe, self.back)
        return {name: value[0] for name, value in back.items()}, possible


def _null(
    scm: StructuralCausalModel, values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    noise = scm.abduct(values)
    again = {name: value[0] for name, value in scm.predict(noise).items()}
    return again, torch.ones(len(next(iter(values.values()))), dtype=torch.bool).to(
        scm.fitted.device
    )


def _repeat(
    scm: StructuralCausalModel,
    factual: Mapping[str, Tensor],
    repetitions: Sequence[int],
    step: _Step,
) -> tuple[dict[int, dict[str, Tensor]], Tensor]:
    """The values after each number of repetitions, and the rows that were possible throughout."""
    values: dict[str, Tensor] = dict(factual)
    after = {}
    alive = torch.ones(len(next(iter(factual.values()))), dtype=torch.bool).to(scm.fitted.device)
    for k in range(1, max(repetitions) + 1):
        values, possible = step(scm, values)
        alive = alive & possible & _possible(scm, values)
        values = _replace_rows(alive, values, factual)
        if k in repetitions:
            after[k] = values
    return after, alive


def _possible(scm: StructuralCausalModel, values: Mapping[str, Tensor]) -> Tensor:
    """The rows in which every value may be observed: rounding can put one on an open bound."""
    inside = [scm[name].domain.contains(values[name]).flatten(1).all(dim=1) for name in values]
    return torch.stack(inside).all(dim=0)


def _replace_rows(
    rows: Tensor, values: Mapping[str, Tensor], otherwise: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {
        name: torch.where(rows.view(-1, *[1] * (value.dim() - 1)), value, otherwise[name])
        for name, value in values.items()
    }
