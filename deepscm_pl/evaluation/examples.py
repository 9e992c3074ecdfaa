"""A few rows to look at, under every intervention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepscm_pl.evaluation.counterfactuals import Truth
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.evaluation.subject import Subject

__all__ = ["Example", "describe_rows", "take_examples"]


@dataclass(frozen=True)
class Example:
    """Some rows under one intervention.

    Attributes:
        title: What was done.
        images: What the model says, ``(R, C, H, W)`` in grey levels; the factual if nothing was
            done, and black where what was asked for is not possible.
        truth: The true images, likewise; None where they are not known.
        possible: The rows in which what was asked for is possible, ``(R,)``.
    """

    title: str
    images: Tensor
    truth: Tensor | None
    possible: Tensor


def describe_rows(subject: Subject, rows: int) -> list[str]:
    """What the first ``rows`` rows are, in lines: which they are, and their scalar variables."""
    texts = []
    for row in range(rows):
        lines = [f"test {row}"]
        for name in subject.scalars:
            value = float(subject.variables[name][row])
            lines.append(f"{name} {value:.3g} {subject.unit(name)}".rstrip())
        texts.append("\n".join(lines))
    return texts


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
        shown = inside[:, None, None, None]
        drawn = torch.where(shown, answered.values[image][0].cpu(), 0)
        truth = None
        if truths is not None:
            truth = torch.where(shown, truths[k].images[:rows].to(drawn), 0)
        examples.append(Example(questions[k].title, drawn, truth, inside))
    return examples
