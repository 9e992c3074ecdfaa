"""Example images under every intervention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.evaluation.counterfactuals import Truth
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.figures import captions

__all__ = ["Example", "describe_rows", "take_examples"]


@dataclass(frozen=True)
class Example:
    """Some rows under one intervention.

    Attributes:
        title: The intervention, or ``factual``.
        images: Images of the model, ``(R, C, H, W)`` or volumes ``(R, C, X, Y, Z)``, in grey
            levels; black where the intervention is impossible.
        truth: The true images, of the same shape; None if unknown.
        possible: Rows in which the intervention is possible, ``(R,)``.
    """

    title: str
    images: Tensor
    truth: Tensor | None
    possible: Tensor


def describe_rows(model: ModelOnData, rows: int) -> list[str]:
    """Describe each of the first ``rows`` rows by its index and scalar variables, line by line."""
    values = {name: model.variables[name][:rows] for name in model.scalars}
    described = captions(model.scm, values) or [""] * rows
    return [f"test {row}\n{text}".rstrip() for row, text in enumerate(described)]


def take_examples(
    model: ModelOnData, questions: Sequence[Question], truths: Sequence[Truth] | None, rows: int
) -> list[Example]:
    """Return the first ``rows`` factual images, then a single draw of every counterfactual."""
    image = model.scm.image_variables[0]
    factual = model.rows(0, rows)
    examples = [Example("factual", factual[image].cpu(), None, torch.ones(rows, dtype=torch.bool))]
    for k, answered in enumerate(answer(model.scm, factual, questions, 1)):
        possible = answered.possible.cpu()
        if truths is not None:
            possible = possible & truths[k].possible[:rows]
        shown = possible.view(-1, *[1] * (factual[image].dim() - 1))
        drawn = torch.where(shown, answered.values[image][0].cpu(), 0)
        truth = None
        if truths is not None:
            truth = torch.where(shown, truths[k].images[:rows].to(drawn), 0)
        examples.append(Example(questions[k].title, drawn, truth, possible))
    return examples
