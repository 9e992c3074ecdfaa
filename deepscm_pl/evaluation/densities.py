"""Rung 2: densities under interventions and conditions, against a world where one is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.data import KnownWorld
from deepscm_pl.evaluation.questions import typical_values
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.graph import CausalGraph
from deepscm_pl.metrics.functional import wasserstein_distance
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variable, Variables

__all__ = ["DensityResult", "Sample", "evaluate_densities"]

_QUANTILES = (0.1, 0.5, 0.9)

_MOST_TOGETHER = 12
"""Combinations of values of first causes, beyond which nobody would look at their densities."""


@dataclass(frozen=True)
class Sample:
    """Draws of one variable.

    Attributes:
        values: ``(M,)``.
        weights: ``(M,)``, of sum 1.

    Example:
        >>> sample = Sample(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.5, 0.25, 0.25]))
        >>> sample.mean, sample.quantile(0.1), sample.quantile(0.9)
        (2.25, 1.0, 3.0)
        >>> round(sample.effective_size, 2)
        2.67
    """

    values: Tensor
    weights: Tensor

    @property
    def effective_size(self) -> float:
        """How many draws of equal weights would say as much, 1/Σw²."""
        return 1 / float(self.weights @ self.weights)

    @property
    def mean(self) -> float:
        """Of the draws by their weights."""
        counted = self.weights > 0
        return float(self.weights[counted] @ self.values[counted])

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        counted = self.weights > 0
        return float(self.weights[counted] @ (self.values[counted] - self.mean) ** 2) ** 0.5

    def quantile(self, share: float) -> float:
        """The draw up to which a share of all weight lies."""
        values, order = self.values.sort()
        cumulative = self.weights[order].cumsum(dim=0)
        place = int(torch.searchsorted(cumulative, share * float(cumulative[-1])))
        return float(values[min(place, len(values) - 1)])


@dataclass(frozen=True)
class DensityResult:
    """One density of the model, and of the world if that is known.

    Attributes:
        variable: What is distributed.
        given: What is given, and its value.
        done: Whether that is set by an intervention, not observed.
        model: Draws of the model.
        world: Draws of the world; None without one.
        distance: Wasserstein distance of both; None without a world.
        floor: The distance of two samples of the world, which no model can be blamed for; None
            without one.
        variables: Of the model; what is not there has no unit and is continuous.
    """

    variable: str
    given: Mapping[str, float]
    done: bool
    model: Sample
    world: Sample | None = None
    distance: float | None = None
    floor: float | None = None
    variables: Mapping[str, Variable] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """p(intensity | do(thickness = 3 pixels))."""
        return self._named(self.condition)

    @property
    def key(self) -> str:
        """p(intensity | do(thickness = 3)): what other runs call it, too, whatever the units."""
        return self._named(
            ", ".join(f"{name} = {format_number(value, 4)}" for name, value in self.given.items())
        )

    def _named(self, condition: str) -> str:
        return f"p({self.variable} | {f'do({condition})' if self.done else condition})"

    @property
    def condition(self) -> str:
        """What is given, such as ``age = 60 years, sex = female``."""
        return ", ".join(
            f"{name} = {self._as_text(name, value)}" for name, value in self.given.items()
        )

    @property
    def unit(self) -> str:
        """The unit of ``variable`` and of the distance."""
        return self._known(self.variable).unit

    @property
    def categories(self) -> int | None:
        """How many classes ``variable`` has; None if it is continuous."""
        return self._known(self.variable).domain.categories

    @property
    def classes(self) -> list[str]:
        """The classes of ``variable``, by their names or numbers; none if it is continuous."""
        return [self._as_text(self.variable, float(k)) for k in range(self.categories or 0)]

    def probability(self, of: int) -> float:
        """Of a class of ``variable`` in the model."""
        return float(self.model.weights[self.model.values == of].sum())

    def _as_text(self, name: str, value: float) -> str:
        return self._known(name).format(value, 4)

    def _known(self, name: str) -> Variable:
        return self.variables.get(name, Variable(name))


def evaluate_densities(
    subject: Subject,
    values: Mapping[str, list[float]] | None = None,
    size: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> list[DensityResult]:
    """For each cause t and effect i of the graph: p(i | do(t)), p(t | do(i)), p(t | i).

    The last is by importance: the cause is drawn without regard to the effect and weighted with the
    density of the effect given its parents. Where an effect has several first causes, which have no
    causes themselves, also its density given all of them that are single numbers, such as
    p(brain volume | age, sex), unless there are more than twelve combinations of their values.

    With a known world the graph is the world's, and the model is compared with it. Without one it
    is the model's, in which p(t | do(i)) is p(t) whatever was learned, and is left out.

    Args:
        subject: The model, and the world if it is known.
        values: For each variable the values that it is set to, or observed at; where there are
            none, quantiles of the test split.
        size: M, draws for each density.
        seed: Of the world's draws; the model's come from torch.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If a value is impossible.
    """
    world = subject.world
    graph = subject.scm.graph if world is None else world.graph
    chosen = {name: _values(subject, name, values or {}) for name in subject.distributed}
    asked = list(_asked(graph, chosen))
    if world is None:
        asked = [each for each in asked if not (each.done and _cannot_move(each, graph))]
    if not asked:
        return []
    generator = np.random.default_rng(seed)
    model = _Model(subject.scm.restrict(subject.distributed), size)
    worlds = [] if world is None else [_world(world, size, generator) for _ in range(2)]
    return [
        _compare(subject, each, model, worlds)
        for each in tqdm(asked, unit="density", desc="densities", disable=not progress)
    ]


@dataclass(frozen=True)
class _Asked:
    variable: str
    given: Mapping[str, float]
    done: bool


def _asked(graph: CausalGraph, values: Mapping[str, list[float]]) -> Iterator[_Asked]:
    for effect in values:
        for cause in values:
            if cause not in graph.ancestors(effect):
                continue
            yield from (_Asked(effect, {cause: value}, True) for value in values[cause])
            yield from (_Asked(cause, {effect: value}, True) for value in values[effect])
            yield from (_Asked(cause, {effect: value}, False) for value in values[effect])
        first = [name for name in values if name in graph.ancestors(effect)]
        first = [name for name in first if not graph.parents[name]]
        together = [values[name] for name in first]
        if len(first) > 1 and math.prod(map(len, together)) <= _MOST_TOGETHER:
            for chosen in product(*together):
                yield _Asked(effect, dict(zip(first, chosen, strict=True)), False)


def _cannot_move(asked: _Asked, graph: CausalGraph) -> bool:
    """Whether what is distributed does not follow what is given."""
    return not graph.ancestors(asked.variable) & set(asked.given)


def _values(subject: Subject, name: str, values: Mapping[str, list[float]]) -> list[float]:
    if values.get(name):
        return list(values[name])
    # Quantiles of a column with many equal values are equal.
    return list(dict.fromkeys(typical_values(subject, name, _QUANTILES)))


class _Model:
    """Draws of a model, or of a world from the same attributes for every density."""

    def __init__(
        self, scm: StructuralCausalModel, size: int, attributes: Variables | None = None
    ) -> None:
        self.scm, self.size, self.attributes = scm, size, attributes

    def draw(self, asked: _Asked) -> Sample:
        """Draws of what is asked."""
        if self.attributes is None:
            drawn = self.scm.intervene(asked.given, self.size)
        else:
            particles = self.scm.counterfactual(self.attributes, asked.given)
            drawn = {name: value[0] for name, value in particles.items()}
        weights = torch.zeros(self.size, dtype=torch.float64)
        for name in _weighing(asked, self.scm.graph):
            parents = {parent: drawn[parent] for parent in self.scm.graph.parents[name]}
            weights += self.scm[name].log_prob(drawn[name], parents).double().cpu()
        return _sample(drawn[asked.variable].squeeze(-1), weights)


def _world(world: KnownWorld, size: int, generator: np.random.Generator) -> _Model:
    drawn = world.sample(size, generator)
    columns = {name: torch.from_numpy(column)[:, None] for name, column in drawn.items()}
    return _Model(world.scm, size, columns)


def _weighing(asked: _Asked, graph: CausalGraph) -> list[str]:
    """What is observed, and so tells of its causes: without causes, it is as if it were set."""
    return [] if asked.done else [name for name in asked.given if graph.parents[name]]


def _sample(values: Tensor, log_weights: Tensor) -> Sample:
    weights = torch.softmax(log_weights.double().cpu(), dim=0)
    return Sample(values.double().cpu(), weights)


def _compare(
    subject: Subject, asked: _Asked, model: _Model, worlds: Sequence[_Model]
) -> DensityResult:
    own = model.draw(asked)
    _check_explained(asked, own, "model")
    alone = DensityResult(
        asked.variable,
        asked.given,
        asked.done,
        own,
        variables=subject.scm.variables,
    )
    if not worlds:
        return alone
    world, other = (each.draw(asked) for each in worlds)
    _check_explained(asked, world, "world")
    return replace(
        alone, world=world, distance=_distance(own, world), floor=_distance(world, other)
    )


def _check_explained(asked: _Asked, sample: Sample, who: str) -> None:
    if bool(sample.weights.isnan().any()):
        raise ValueError(
            f"density_values: {_as_text(asked.given)} is impossible in the {who}; choose values "
            "that occur."
        )


def _as_text(given: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in given.items())


def _distance(first: Sample, second: Sample) -> float:
    return wasserstein_distance(first.values, second.values, first.weights, second.weights).item()
