"""A few rows to look at, under every intervention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.evaluation.counterfactuals import Truth
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.figures import captions

__all__ = ["Example", "describe_rows", "take_examples"]


@dataclass(frozen=True)
class Example:
    """Some rows under one intervention.

    Attributes:
        title: What was done.
        images: What the model says, ``(R, C, H, W)`` or volumes ``(R, C, X, Y, Z)`` in grey
            levels; the factual if nothing was done, and black where what was asked for is not
            possible.
        truth: The true images, likewise; None where they are not known.
        possible: The rows in which what was asked for is possible, ``(R,)``.
    """

    title: str
    images: Tensor
    truth: Tensor | None
    possible: Tensor


def describe_rows(subject: Subject, rows: int) -> list[str]:
    """What the first ``rows`` rows are, in lines: which they are, and their scalar variables."""
    values = {name: subject.variables[name][:rows] for name in subject.scalars}
    described = captions(subject.scm, values) or [""] * rows
    return [f"test {row}\n{text}".rstrip() for row, text in enumerate(described)]


def take_examples(
    subject: Subject, questions: Sequence[Question], truths: Sequence[Truth] | None, rows: int
) -> list[Example]:
    """The first ``rows`` rows: the factual, then a single draw of every counterfactual."""
    image = subject.scm.image_variables[0]
    factual = subject.rows(0, rows)
    everywhere = torch.ones(rows, dtype=torch.bool)
    examples = [Example("factual", factual[image].cpu(), None, everywhere)]
    for k, answered in enumerate(answer(subject.scm, factual, questions, 1)):
        inside = answered.inside.cpu()
        if truths is not None:
            inside = inside & truths[k].inside[:rows]
        shown = inside.view(-1, *[1] * (factual[image].dim() - 1))
        drawn = torch.where(shown, answered.values[image][0].cpu(), 0)
        truth = None
        if truths is not None:
            truth = torch.where(shown, truths[k].images[:rows].to(drawn), 0)
        examples.append(Example(questions[k].title, drawn, truth, inside))
    return examples
