"""Interventions of an evaluation, and their answers by model and world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variable

__all__ = [
    "Answer",
    "Question",
    "answer",
    "check_possible",
    "default_questions",
    "short_quantiles",
    "true_attributes",
    "typical_values",
]

_DEFAULT_QUANTILES = (0.1, 0.9)


@dataclass(frozen=True)
class Question:
    """An intervention and its text.

    Args:
        text: Such as ``thickness=3`` or ``thickness+=1, intensity=100``.
        variables: Variables of the model; None for any names, with numbers only.

    Attributes:
        do: The intervention.

    Raises:
        ValueError: If the text cannot be read, or contains an unknown variable or class.

    Example:
        >>> question = Question("thickness=3", {"thickness": Variable("thickness", unit="pixels")})
        >>> question.do, question.title
        ({'thickness': 3.0}, 'do(thickness = 3 pixels)')
    """

    text: str
    variables: Mapping[str, Variable] | None = field(default=None, compare=False)
    do: Mapping[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "do", parse_do(self.text, self.variables))

    @property
    def title(self) -> str:
        """Title in tables and figures, such as ``do(thickness + 1)``."""
        return format_do(self.do, self.variables)

    def check(self, subject: Subject) -> None:
        """Raise ValueError unless the intervention is possible in the model and the world."""
        subject.scm.act(self.do)
        for name in self.do:
            if name in subject.scm.image_variables:
                raise ValueError(f"do: {name} is an image; intervene on what causes it.")
            if subject.world is not None and name not in subject.world.attributes:
                raise ValueError(
                    f"do: the world {subject.world.name} has no attribute {name!r}, so there is no "
                    f"truth to compare with; intervene on {', '.join(subject.attributes)}."
                )
            check_possible(subject, name, self.do[name])


@dataclass(frozen=True)
class Answer:
    """Counterfactuals under one intervention.

    Attributes:
        values: Every variable, ``(P, B, *event)``.
        possible: Rows in which the intervention is possible, ``(B,)``; the others are unchanged.
    """

    values: Mapping[str, Tensor]
    possible: Tensor


def default_questions(subject: Subject) -> list[Question]:
    """Set every cause of an image to a low and a high quantile, or to each category.

    Causes in the known world count, whether or not they are causes in the model.
    """
    causes = subject.scm.graph.ancestors(*subject.scm.image_variables) & set(subject.scalars)
    known = causes if subject.world is None else set(subject.attributes)
    questions = []
    for name in (name for name in subject.scalars if name in known):
        classes = subject.scm.variables[name].classes
        for value in typical_values(subject, name, _DEFAULT_QUANTILES):
            text = classes[int(value)] if classes else np.format_float_positional(value, trim="-")
            questions.append(Question(f"{name}={text}", subject.scm.variables))
    return questions


def typical_values(subject: Subject, name: str, levels: Sequence[float]) -> list[float]:
    """Return every category of a variable, or its :func:`short_quantiles`."""
    categories = subject.scm[name].domain.categories
    if categories is not None:
        return [float(k) for k in range(categories)]
    return short_quantiles(subject, name, levels)


def short_quantiles(subject: Subject, name: str, levels: Sequence[float]) -> list[float]:
    """Return quantiles of a variable with few digits, at least three.

    The rounding error is at most 1 % of the range of these quantiles, and rounded values are
    possible in the model and the world.

    Args:
        subject: The rows.
        name: The variable.
        levels: From 0 to 1, in ascending order.
    """
    values = subject.variables[name].double().flatten().cpu()
    exact = torch.quantile(values, torch.tensor(levels, dtype=torch.float64)).tolist()
    tolerance = 0.01 * (exact[-1] - exact[0])

    def shorten(value: float) -> float:
        for digits in range(3, 17):
            rounded = float(f"{value:.{digits}g}")
            if abs(rounded - value) <= tolerance and _is_possible(subject, name, rounded):
                return rounded
        return value

    return [shorten(value) for value in exact]


def check_possible(subject: Subject, name: str, value: Any) -> None:
    """Raise ValueError if a constant is not a possible value of an attribute in the world."""
    if subject.world is None or callable(value) or name not in subject.world.domains:
        return
    domain = subject.world.domains[name]
    if not bool(domain.contains(torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)).all()):
        raise ValueError(
            f"do({name}): expected {domain}, as in the world {subject.world.name}, but got "
            f"{value:g}, for which there is no truth to compare with."
        )


def _is_possible(subject: Subject, name: str, value: float) -> bool:
    world = subject.world
    domains = [subject.scm[name].domain]
    if world is not None and name in world.domains:
        domains.append(world.domains[name])
    number = torch.tensor([value], dtype=torch.float64)
    return all(bool(domain.contains(number).all()) for domain in domains)


def answer(
    scm: StructuralCausalModel,
    factual: Mapping[str, Tensor],
    questions: Sequence[Question],
    num_particles: int,
) -> list[Answer]:
    """Compute the counterfactuals of rows under every intervention, from the same noise."""
    size = len(next(iter(factual.values())))
    guarded = [
        {
            name: _Guarded(each, scm[name].domain) if callable(each) else each
            for name, each in question.do.items()
        }
        for question in questions
    ]
    values = scm.counterfactual(factual, guarded, num_particles)
    answers = []
    for k, do in enumerate(guarded):
        possible = torch.ones(size, dtype=torch.bool)
        for each in do.values():
            if isinstance(each, _Guarded):
                possible = possible & each.possible
        drawn = {name: value[:, k] for name, value in values.items()}
        answers.append(Answer(drawn, possible.to(scm.fitted.device)))
    return answers


def true_attributes(
    subject: Subject, question: Question
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Compute the counterfactual attributes of all rows in the world, and where they are possible.

    Raises:
        ValueError: If there is no known world, or it cannot produce an attribute of a row.
    """
    world = subject.world
    if world is None:
        raise ValueError("world: expected a known world, but the data set has none.")
    factual = {
        name: torch.from_numpy(column)[:, None]
        for name, column in subject.columns().items()
        if name in world.scm.graph
    }
    (true,) = answer(world.scm, factual, [question], 1)
    values = {name: value[0, :, 0].numpy() for name, value in true.values.items()}
    return values, true.possible.numpy()


class _Guarded:
    """A function that keeps values unchanged where it would leave a domain, and records where."""

    def __init__(self, function: Callable[[Any], Any], domain: Domain) -> None:
        self.function, self.domain = function, domain
        self.possible = torch.ones(1, dtype=torch.bool)

    def __call__(self, value: Tensor) -> Tensor:
        changed = self.function(value)
        possible = self.domain.contains(changed)
        rows = possible.reshape(-1, possible.shape[-2] if possible.dim() > 1 else len(possible))
        self.possible = rows.all(dim=0).cpu()
        return torch.where(possible, changed, value)
