"""Rung 2: densities under interventions and conditions, of the model and of a known world."""

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
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import typical_values
from deepscm_pl.graph import CausalGraph
from deepscm_pl.metrics.functional import wasserstein_distance
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variable, Variables

__all__ = ["DensityResult", "Sample", "evaluate_densities"]

_QUANTILES = (0.1, 0.5, 0.9)

_MAX_COMBINATIONS = 12
"""Largest number of densities of an effect given all of its root causes."""


@dataclass(frozen=True)
class Sample:
    """Weighted draws of one variable.

    Attributes:
        values: ``(M,)``.
        weights: ``(M,)``, with sum 1.

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
        """Number of draws of equal weights with the same precision, 1/Σw²."""
        return 1 / float(self.weights @ self.weights)

    @property
    def mean(self) -> float:
        """Weighted mean."""
        values, weights = self._weighted()
        return float(weights @ values)

    @property
    def deviation(self) -> float:
        """Weighted standard deviation."""
        values, weights = self._weighted()
        return float(weights @ (values - self.mean) ** 2) ** 0.5

    def quantile(self, probability: float) -> float:
        """Return the smallest draw with at least this cumulative weight."""
        values, weights = (each.numpy() for each in self._weighted())
        return float(np.quantile(values, probability, weights=weights, method="inverted_cdf"))

    def distance_to(self, other: Sample) -> float:
        """Return the Wasserstein distance to another sample."""
        return wasserstein_distance(self.values, other.values, self.weights, other.weights)

    def _weighted(self) -> tuple[Tensor, Tensor]:
        """Draws of positive weight; those without weight may be infinite."""
        positive = self.weights > 0
        return self.values[positive], self.weights[positive]


@dataclass(frozen=True)
class DensityResult:
    """A density of one variable in the model, and in the known world if there is one.

    Attributes:
        variable: The variable.
        given: Values that are given, by variable.
        done: Whether these values are set by an intervention instead of observed.
        model: Draws of the model.
        world: Draws of the world, if known.
        distance: Wasserstein distance of model and world, if known.
        floor: Wasserstein distance of two samples of the world, typical of a perfect model.
        variables: Variables of the model; others are continuous and have no unit.
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
        """Title with units, such as ``p(intensity | do(thickness = 3 pixels))``."""
        return self._named(self.condition)

    @property
    def key(self) -> str:
        """Title without units, such as ``p(intensity | do(thickness = 3))``."""
        return self._named(
            ", ".join(f"{name} = {format_number(value, 4)}" for name, value in self.given.items())
        )

    def _named(self, condition: str) -> str:
        return f"p({self.variable} | {f'do({condition})' if self.done else condition})"

    @property
    def condition(self) -> str:
        """The given values, such as ``age = 60 years, sex = female``."""
        return ", ".join(
            f"{name} = {self._variable(name).format(value, 4)}"
            for name, value in self.given.items()
        )

    @property
    def unit(self) -> str:
        """The unit of ``variable`` and of the distance."""
        return self._variable(self.variable).unit

    @property
    def categories(self) -> int | None:
        """Number of classes of ``variable``; None if it is continuous."""
        return self._variable(self.variable).domain.categories

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest possible value of ``variable``."""
        domain = self._variable(self.variable).domain
        return domain.lower, domain.upper

    @property
    def classes(self) -> list[str]:
        """Names or numbers of the classes of ``variable``; empty if it is continuous."""
        return [
            self._variable(self.variable).format(float(k), 4) for k in range(self.categories or 0)
        ]

    def probability(self, index: int) -> float:
        """Return the probability of a class in the model."""
        return float(self.model.weights[self.model.values == index].sum())

    def _variable(self, name: str) -> Variable:
        return self.variables.get(name, Variable(name))


def evaluate_densities(
    model: ModelOnData,
    values: Mapping[str, list[float]] | None = None,
    size: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> list[DensityResult]:
    """Sample p(i | do(t)), p(t | do(i)) and p(t | i) for each cause t and effect i in the graph.

    p(t | i) is sampled by importance: draws of the cause are weighted with the density of the
    effect given its parents. If an effect has several scalar root causes, its density given all of
    them is included, such as p(brain volume | age, sex), up to twelve combinations of values.

    With a known world, its graph is used and the model is compared with it. Otherwise the graph of
    the model is used, where p(t | do(i)) equals p(t) by construction and is omitted.

    Args:
        model: The model, and the world if known.
        values: Values to set or observe for each variable; quantiles of the test split by default.
        size: M, draws for each density.
        seed: Seed of the world's draws; the model uses torch's generator.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If a value is impossible in the model or the world.
    """
    world = model.world
    graph = model.scm.graph if world is None else world.graph
    chosen = {name: _values(model, name, values or {}) for name in model.distributed}
    queries = list(_queries(graph, chosen))
    if world is None:
        queries = [
            each
            for each in queries
            if not each.done or graph.ancestors(each.variable) & set(each.given)
        ]
    if not queries:
        return []
    generator = np.random.default_rng(seed)
    sampler = _Sampler(model.scm.restrict(model.distributed), size)
    worlds = [] if world is None else [_world(world, size, generator) for _ in range(2)]
    return [
        _compare(model, each, sampler, worlds)
        for each in tqdm(
            queries, unit="density", desc="densities", disable=None if progress else True
        )
    ]


@dataclass(frozen=True)
class _Query:
    variable: str
    given: Mapping[str, float]
    done: bool


def _queries(graph: CausalGraph, values: Mapping[str, list[float]]) -> Iterator[_Query]:
    for effect in values:
        causes = [name for name in values if name in graph.ancestors(effect)]
        for cause in causes:
            yield from (_Query(effect, {cause: value}, True) for value in values[cause])
            yield from (_Query(cause, {effect: value}, True) for value in values[effect])
            yield from (_Query(cause, {effect: value}, False) for value in values[effect])
        roots = [name for name in causes if not graph.parents[name]]
        combined = [values[name] for name in roots]
        if len(roots) > 1 and math.prod(map(len, combined)) <= _MAX_COMBINATIONS:
            for chosen in product(*combined):
                yield _Query(effect, dict(zip(roots, chosen, strict=True)), False)


def _values(model: ModelOnData, name: str, values: Mapping[str, list[float]]) -> list[float]:
    if values.get(name):
        return list(values[name])
    # A column with many equal values has equal quantiles.
    return list(dict.fromkeys(typical_values(model, name, _QUANTILES)))


class _Sampler:
    """Draws of a model, or of a world with the same attributes for every density."""

    def __init__(
        self, scm: StructuralCausalModel, size: int, attributes: Variables | None = None
    ) -> None:
        self.scm, self.size, self.attributes = scm, size, attributes

    def draw(self, query: _Query) -> Sample:
        """Sample a density."""
        if self.attributes is None:
            drawn = self.scm.intervene(query.given, self.size)
        else:
            particles = self.scm.counterfactual(self.attributes, query.given)
            drawn = {name: value[0] for name, value in particles.items()}
        log_weights = torch.zeros(self.size, dtype=torch.float64)
        for name in () if query.done else query.given:
            # Observing a variable without causes is the same as setting it.
            if self.scm.graph.parents[name]:
                parents = {parent: drawn[parent] for parent in self.scm.graph.parents[name]}
                log_weights += self.scm[name].log_prob(drawn[name], parents).double().cpu()
        values = drawn[query.variable].squeeze(-1).double().cpu()
        return Sample(values, torch.softmax(log_weights, dim=0))


def _world(world: KnownWorld, size: int, generator: np.random.Generator) -> _Sampler:
    drawn = world.sample(size, generator)
    columns = {name: torch.from_numpy(column)[:, None] for name, column in drawn.items()}
    return _Sampler(world.scm, size, columns)


def _compare(
    model: ModelOnData, query: _Query, sampler: _Sampler, worlds: Sequence[_Sampler]
) -> DensityResult:
    drawn = _possible_draws(query, sampler, "model")
    variables = model.scm.variables
    result = DensityResult(query.variable, query.given, query.done, drawn, variables=variables)
    if not worlds:
        return result
    first, second = (_possible_draws(query, each, "world") for each in worlds)
    distance, floor = drawn.distance_to(first), first.distance_to(second)
    return replace(result, world=first, distance=distance, floor=floor)


def _possible_draws(query: _Query, sampler: _Sampler, origin: str) -> Sample:
    sample = sampler.draw(query)
    if bool(sample.weights.isnan().any()):
        given = ", ".join(f"{name} = {value:g}" for name, value in query.given.items())
        raise ValueError(
            f"density_values: {given} is impossible in the {origin}; choose values that occur."
        )
    return sample
