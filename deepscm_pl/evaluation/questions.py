"""The interventions that a model is asked about."""

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
    """An intervention, as it was written.

    Args:
        text: Such as ``thickness=3`` or ``thickness+=1, intensity=100``.
        variables: Of the model; None for any variable, with numbers only.

    Attributes:
        do: The intervention.

    Raises:
        ValueError: If the text cannot be read, or names a variable or class that is not there.

    Example:
        >>> asked = Question("thickness=3", {"thickness": Variable("thickness", unit="pixels")})
        >>> asked.do, asked.title
        ({'thickness': 3.0}, 'do(thickness = 3 pixels)')
    """

    text: str
    variables: Mapping[str, Variable] | None = field(default=None, compare=False)
    do: Mapping[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "do", parse_do(self.text, self.variables))

    @property
    def title(self) -> str:
        """As tables and pictures call it, such as ``do(thickness + 1)``."""
        return format_do(self.do, self.variables)

    def check(self, subject: Subject) -> None:
        """Raise unless the model, and the world if it is known, can be asked.

        Raises:
            ValueError: Naming the variable, what was expected and what came.
        """
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
    """What a model says of one intervention.

    Attributes:
        values: Every variable, ``(P, B, *event)``.
        inside: The rows in which what was asked for is possible, ``(B,)``; in the others nothing
            was done.
    """

    values: Mapping[str, Tensor]
    inside: Tensor


def default_questions(subject: Subject) -> list[Question]:
    """do(...) at a low and a high quantile of every cause of an image, and every category.

    A cause is one by the graph of the model or, where it is known, in the world.
    """
    causes = subject.scm.graph.ancestors(*subject.scm.image_variables) & set(subject.scalars)
    known = causes if subject.world is None else set(subject.attributes)
    return [
        Question(f"{name}={_as_text(subject, name, value)}", subject.scm.variables)
        for name in subject.scalars
        if name in known
        for value in typical_values(subject, name, _DEFAULT_QUANTILES)
    ]


def _as_text(subject: Subject, name: str, value: float) -> str:
    names = subject.scm.variables[name].classes
    return names[int(value)] if names else np.format_float_positional(value, trim="-")


def typical_values(subject: Subject, name: str, levels: Sequence[float]) -> list[float]:
    """Every category of a variable, or quantiles as :func:`short_quantiles` gives them."""
    categories = subject.scm[name].domain.categories
    if categories is not None:
        return [float(k) for k in range(categories)]
    return short_quantiles(subject, name, levels)


def short_quantiles(subject: Subject, name: str, levels: Sequence[float]) -> list[float]:
    """Quantiles of a variable in few digits: at least three, and as many as keep them apart.

    What is left out is at most a hundredth of the range between the lowest and the highest, and
    leads to no value that the model or the world holds impossible.

    Args:
        subject: The rows.
        name: Of the variable.
        levels: From 0 to 1, ascending.
    """
    values = subject.variables[name].double().flatten().cpu()
    exact = torch.quantile(values, torch.tensor(levels, dtype=torch.float64)).tolist()
    tolerance = 0.01 * (exact[-1] - exact[0])

    def short(value: float) -> float:
        for digits in range(3, 17):
            rounded = float(f"{value:.{digits}g}")
            if abs(rounded - value) <= tolerance and _is_possible(subject, name, rounded):
                return rounded
        return value

    return [short(value) for value in exact]


def check_possible(subject: Subject, name: str, value: Any) -> None:
    """Raise where the world, if it is known, holds a constant value of an attribute impossible.

    Raises:
        ValueError: Naming the attribute, what the world's values are and what came.
    """
    if subject.world is None or callable(value) or name not in subject.world.domains:
        return
    domain = subject.world.domains[name]
    if not bool(domain.contains(torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)).all()):
        raise ValueError(
            f"do({name}): expected {domain}, as the world {subject.world.name} has it, "
            f"but got {value:g}; there is no truth to compare with."
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
    """The counterfactuals of some rows under every intervention, from the same noise."""
    guarded = [
        {name: _guard(each, scm[name].domain) for name, each in question.do.items()}
        for question in questions
    ]
    values = scm.counterfactual(factual, guarded, num_particles)
    size = len(next(iter(factual.values())))
    return [
        Answer(
            {name: value[:, k] for name, value in values.items()},
            _inside(do, size).to(scm.fitted.device),
        )
        for k, do in enumerate(guarded)
    ]


def true_attributes(
    subject: Subject, question: Question
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """The counterfactual attributes of all rows in the world, and the rows where they exist.

    Raises:
        ValueError: If the world is not known, or does not produce an attribute of a row.
    """
    world = subject.world
    if world is None:
        raise ValueError("world: expected a world that is known, but the data set has none.")
    factual = {
        name: torch.from_numpy(column)[:, None]
        for name, column in subject.columns().items()
        if name in world.scm.graph
    }
    (true,) = answer(world.scm, factual, [question], 1)
    values = {name: value[0, :, 0].numpy() for name, value in true.values.items()}
    return values, true.inside.numpy()


class _Guarded:
    """h where it stays within a domain; elsewhere the value stays and the row is remembered."""

    def __init__(self, function: Callable[[Any], Any], domain: Domain) -> None:
        self.function, self.domain = function, domain
        self.inside = torch.ones(1, dtype=torch.bool)

    def __call__(self, value: Tensor) -> Tensor:
        changed = self.function(value)
        inside = self.domain.contains(changed)
        rows = inside.reshape(-1, inside.shape[-2] if inside.dim() > 1 else len(inside))
        self.inside = rows.all(dim=0).cpu()
        return torch.where(inside, changed, value)


def _guard(intervention: Any, domain: Domain) -> Any:
    return _Guarded(intervention, domain) if callable(intervention) else intervention


def _inside(do: Mapping[str, Any], size: int) -> Tensor:
    inside = torch.ones(size, dtype=torch.bool)
    for each in do.values():
        if isinstance(each, _Guarded):
            inside = inside & each.inside
    return inside
