"""Interventions of an evaluation, and their answers by model and world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.ensemble import Ensemble
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.interventions import (
    Where,
    as_change,
    format_do,
    is_constant,
    parse_do,
    read_variables,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Change, Domain, Seen, Variable

__all__ = [
    "Answer",
    "Guards",
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

    def check(self, model: ModelOnData) -> None:
        """Raise ValueError unless the intervention is possible in the model and the world."""
        model.scm.check_do(self.do)
        for name in self.do:
            if name in model.scm.image_variables:
                raise ValueError(f"do: {name} is an image; intervene on what causes it.")
            if model.world is not None and name not in model.world.attributes:
                raise ValueError(
                    f"do: the world {model.world.name} has no attribute {name!r}, so there is no "
                    f"truth to compare with; intervene on {', '.join(model.attributes)}."
                )
            if model.world is not None and name in model.world.fixed_attributes:
                raise ValueError(
                    f"do: the originals of the world {model.world.name} determine {name}, so there "
                    "is no image of another one to compare with; intervene on another variable."
                )
            check_possible(model, name, self.do[name])
            self._check_truth(model, name)

    def _check_truth(self, model: ModelOnData, name: str) -> None:
        """Raise ValueError if the answer to a change has no single truth in a known world."""
        change, world = as_change(self.do[name]), model.world
        if world is None:
            return
        if change.draws:
            raise ValueError(
                f"do({name}): model and world {world.name} would draw different values, so there "
                "is no truth to compare with; set a value, or ask deepscm counterfactual."
            )
        for each in read_variables({name: change}):
            if each not in world.attributes:
                raise ValueError(
                    f"do({name}): the change reads {each}, which the world {world.name} does not "
                    f"have; read {', '.join(model.attributes)}."
                )


@dataclass(frozen=True)
class Answer:
    """Counterfactuals under one intervention.

    Attributes:
        values: Every variable, ``(P, B, *event)``.
        possible: Rows in which the intervention is possible, ``(B,)``; the others are unchanged.
    """

    values: Mapping[str, Tensor]
    possible: Tensor


def default_questions(model: ModelOnData) -> list[Question]:
    """Set every cause of an image to a low and a high quantile, or to each category.

    Causes in the known world count, whether or not they are causes in the model.
    """
    causes = model.scm.graph.ancestors(*model.scm.image_variables) & set(model.scalars)
    known: frozenset[str] | set[str] = causes
    if model.world is not None:
        known = set(model.attributes) - set(model.world.fixed_attributes)
    questions = []
    for name in (name for name in model.scalars if name in known):
        classes = model.scm.variables[name].classes
        for value in typical_values(model, name, _DEFAULT_QUANTILES):
            text = classes[int(value)] if classes else np.format_float_positional(value, trim="-")
            questions.append(Question(f"{name}={text}", model.scm.variables))
    return questions


def typical_values(model: ModelOnData, name: str, levels: Sequence[float]) -> list[float]:
    """Return every category of a variable, or its :func:`short_quantiles`."""
    categories = model.scm[name].domain.categories
    if categories is not None:
        return [float(k) for k in range(categories)]
    return short_quantiles(model, name, levels)


def short_quantiles(model: ModelOnData, name: str, levels: Sequence[float]) -> list[float]:
    """Return quantiles of a variable with few digits, at least three.

    The rounding error is at most 1 % of the range of these quantiles, and they are possible
    in the model and the world. Levels from 0 to 1 are in ascending order.
    """
    values = model.variables[name].double().flatten().cpu()
    probabilities = torch.tensor(levels, dtype=torch.float64)
    exact = torch.quantile(values, probabilities).tolist()
    recorded = torch.quantile(values, probabilities, interpolation="nearest").tolist()
    tolerance = 0.01 * (exact[-1] - exact[0])
    domains = [model.scm[name].domain]
    if model.world is not None and name in model.world.domains:
        domains.append(model.world.domains[name])

    def is_possible(value: float) -> bool:
        number = torch.tensor([value], dtype=torch.float64)
        return all(bool(domain.contains(number).all()) for domain in domains)

    def shorten(value: float, nearest: float) -> float:
        for digits in range(3, 17):
            rounded = float(f"{value:.{digits}g}")
            if is_possible(rounded) and abs(rounded - value) <= tolerance:
                return rounded
        # Between two whole numbers or steps, only one of them is possible.
        return value if is_possible(value) else nearest

    return [shorten(*pair) for pair in zip(exact, recorded, strict=True)]


def check_possible(model: ModelOnData, name: str, value: Any) -> None:
    """Raise ValueError if a constant is not a possible value of an attribute in the world."""
    value = value.value if isinstance(value, Where) else value
    if model.world is None or not is_constant(value) or name not in model.world.domains:
        return
    domain = model.world.domains[name]
    if not bool(domain.contains(torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)).all()):
        raise ValueError(
            f"do({name}): expected {domain}, as in the world {model.world.name}, but got "
            f"{value:g}, for which there is no truth to compare with."
        )


def answer(
    scm: StructuralCausalModel | Ensemble,
    factual: Mapping[str, Tensor],
    questions: Sequence[Question],
    num_particles: int,
) -> list[Answer]:
    """Compute the counterfactuals of rows under every intervention, from the same noise."""
    size = len(next(iter(factual.values())))
    guards = [Guards(scm, question) for question in questions]
    values = scm.counterfactual(factual, [each.do for each in guards], num_particles)
    answers = []
    for k, each in enumerate(guards):
        drawn = {name: value[:, k] for name, value in values.items()}
        answers.append(Answer(drawn, each.possible(size).to(scm.fitted.device)))
    return answers


def true_attributes(
    model: ModelOnData, question: Question
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Compute the counterfactual attributes of all rows in the world, and where they are possible.

    Raises:
        ValueError: If there is no known world, or it cannot produce an attribute of a row.
    """
    world = model.world
    if world is None:
        raise ValueError("world: expected a known world, but the data set has none.")
    factual = {
        name: torch.from_numpy(column)[:, None]
        for name, column in model.columns().items()
        if name in world.scm.graph
    }
    (true,) = answer(world.scm, factual, [question], 1)
    values = {name: value[0, :, 0].numpy() for name, value in true.values.items()}
    return values, true.possible.numpy()


class Guards:
    """An intervention whose functions change nothing in rows where they would leave a domain.

    Attributes:
        do: The intervention.
    """

    def __init__(self, scm: StructuralCausalModel | Ensemble, question: Question) -> None:
        self.do: dict[str, Any] = dict(question.do)
        self._guarded = [
            _Guarded(as_change(each), scm[name].domain)
            for name, each in self.do.items()
            if not is_constant(each)
        ]
        changed = [name for name, each in self.do.items() if not is_constant(each)]
        self.do |= dict(zip(changed, self._guarded, strict=True))

    def possible(self, size: int) -> Tensor:
        """Return the rows in which the last answer was possible, ``(size,)``."""
        possible = torch.ones(size, dtype=torch.bool)
        for guarded in self._guarded:
            possible = possible & guarded.recorded[-1]
        return possible


class _Guarded(Change):
    """A change that keeps values unchanged where it would leave a domain, and records where."""

    def __init__(
        self, change: Change, domain: Domain, recorded: list[Tensor] | None = None
    ) -> None:
        self.change, self.domain = change, domain
        self.recorded = [torch.ones(1, dtype=torch.bool)] if recorded is None else recorded
        self.reads, self.factual, self.before = change.reads, change.factual, change.before
        self.draws, self.uses_value = change.draws, change.uses_value

    def with_draws(self, draws: Sequence[Any]) -> _Guarded:
        """Replace the distributions; both record in the same list."""
        return _Guarded(self.change.with_draws(draws), self.domain, self.recorded)

    def apply(self, value: Tensor, seen: Seen) -> Tensor:
        changed = self.change.apply(value, seen).to(value.dtype)
        possible = self.domain.contains(changed)
        rows = possible.reshape(-1, possible.shape[-2] if possible.dim() > 1 else len(possible))
        self.recorded[:] = [rows.all(dim=0).cpu()]
        return torch.where(possible, changed, value)
