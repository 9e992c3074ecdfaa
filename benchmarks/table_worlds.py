"""Structural causal models of tables with known noise, from which the truth of a benchmark comes.

Each world is a graph in topological order and a NumPy function per variable, x := f(u; pa), with
independent noise. The observational sample, every interventional sample and every counterfactual
of an individual follow from the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORLDS", "Column", "TableWorld", "make_world"]

Column = NDArray[np.float64]
"""Values of one variable, ``(N,)``; class indices of a discrete one."""

Columns = Mapping[str, Column]

_REFERENCE = 20_000
"""Rows from which functions are standardised, so that every variable has a spread of about one."""


@dataclass(frozen=True)
class Equation:
    """One variable of a world.

    Attributes:
        parents: Its causes.
        noise: Draws its noise, from a generator and a number of rows.
        value: The value from the noise and the parents.
        categories: Number of classes; 0 for numbers.
        positive: Whether all values are positive.
    """

    parents: tuple[str, ...]
    noise: Callable[[np.random.Generator, int], Column]
    value: Callable[[Column, Columns], Column]
    categories: int = 0
    positive: bool = False


@dataclass(frozen=True)
class TableWorld:
    """A structural causal model whose functions and noise are known.

    Attributes:
        name: Name of the world.
        equations: Variable to equation, causes before effects.
    """

    name: str
    equations: Mapping[str, Equation]

    @property
    def parents(self) -> dict[str, list[str]]:
        """The graph: the causes of each variable."""
        return {name: list(each.parents) for name, each in self.equations.items()}

    @property
    def is_continuous(self) -> bool:
        """Whether the noise of each individual, and so its counterfactuals, are identifiable."""
        return not any(each.categories for each in self.equations.values())

    def draw_noise(self, rows: int, seed: int) -> dict[str, Column]:
        """Draw the noise of some individuals."""
        generator = np.random.default_rng(seed)
        return {name: each.noise(generator, rows) for name, each in self.equations.items()}

    def values(self, noise: Columns, do: Mapping[str, float] | None = None) -> dict[str, Column]:
        """The values that follow from the noise, under an intervention if there is one."""
        found: dict[str, Column] = {}
        for name, each in self.equations.items():
            if do is not None and name in do:
                found[name] = np.full(len(noise[name]), float(do[name]))
            else:
                found[name] = each.value(noise[name], found)
        return found

    def descendants(self, name: str) -> list[str]:
        """The variables that an intervention on ``name`` may change."""
        found = {name}
        for other, each in self.equations.items():
            if found.intersection(each.parents):
                found.add(other)
        return [other for other in self.equations if other in found and other != name]


def make_world(name: str, seed: int = 0) -> TableWorld:
    """Draw a world of one of the kinds in :data:`WORLDS`."""
    return WORLDS[name](np.random.default_rng([seed, sorted(WORLDS).index(name)]))


def _gaussian(generator: np.random.Generator, rows: int) -> Column:
    return generator.standard_normal(rows)


def _laplace(generator: np.random.Generator, rows: int) -> Column:
    return generator.laplace(0.0, np.sqrt(0.5), rows)


def _uniform(generator: np.random.Generator, rows: int) -> Column:
    return generator.uniform(-np.sqrt(3), np.sqrt(3), rows)


def _skewed(generator: np.random.Generator, rows: int) -> Column:
    return generator.gamma(4.0, 0.5, rows) - 2.0


_NOISES = (_gaussian, _laplace, _uniform, _skewed)

Function = Callable[[Columns], Column]
"""A function of the parents."""


def _graph(generator: np.random.Generator, size: int, most: int = 3) -> dict[str, tuple[str, ...]]:
    """A random graph: two roots, and for every other variable one to ``most`` earlier causes."""
    names = [f"x{number}" for number in range(1, size + 1)]
    graph: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        count = 0 if number < 2 else int(generator.integers(1, min(most, number) + 1))
        chosen = np.sort(generator.choice(number, count, replace=False)) if count else []
        graph[name] = tuple(names[each] for each in chosen)
    return graph


def _standardised(function: Function, reference: Columns) -> Function:
    """A function with mean 0 and variance 1 over the world itself."""
    found = function(reference)
    mean, deviation = found.mean(), found.std()
    return lambda parents: (function(parents) - mean) / deviation


def _linear(generator: np.random.Generator, causes: tuple[str, ...]) -> Function:
    weights = generator.uniform(0.5, 1.5, len(causes)) * generator.choice([-1, 1], len(causes))
    return lambda parents: sum(
        (weight * parents[name] for weight, name in zip(weights, causes, strict=True)),
        np.zeros(()),
    )


def _smooth(generator: np.random.Generator, causes: tuple[str, ...]) -> Function:
    """A sum of a curve of each cause, and of one product of two of them."""
    curves: tuple[Callable[[Column], Column], ...] = (
        np.tanh,
        np.square,
        lambda x: np.sin(1.5 * x),
        lambda x: np.abs(x) ** 1.5 * np.sign(x) - x,
        lambda x: np.log1p(np.exp(2 * x)),
    )
    chosen = [curves[int(each)] for each in generator.integers(len(curves), size=len(causes))]
    weights = generator.uniform(0.7, 1.3, len(causes)) * generator.choice([-1, 1], len(causes))
    pair = tuple(generator.permutation(len(causes))[:2]) if len(causes) > 1 else None

    def value(parents: Columns) -> Column:
        total = sum(
            (
                weight * curve(parents[name])
                for weight, curve, name in zip(weights, chosen, causes, strict=True)
            ),
            np.zeros(()),
        )
        if pair is not None:
            total = total + 0.5 * parents[causes[pair[0]]] * parents[causes[pair[1]]]
        return total

    return value


def _build(
    name: str,
    generator: np.random.Generator,
    graph: Mapping[str, tuple[str, ...]],
    equation: Callable[[np.random.Generator, str, tuple[str, ...], Columns], Equation],
) -> TableWorld:
    """Add one equation after the other, each standardised on a reference sample of its causes."""
    equations: dict[str, Equation] = {}
    reference: dict[str, Column] = {}
    source = np.random.default_rng(0)
    for variable, causes in graph.items():
        equations[variable] = equation(generator, variable, causes, reference)
        noise = equations[variable].noise(source, _REFERENCE)
        reference[variable] = equations[variable].value(noise, reference)
    return TableWorld(name, equations)


def _additive(
    function: Callable[[np.random.Generator, tuple[str, ...]], Function], share: float
) -> Callable[[np.random.Generator, str, tuple[str, ...], Columns], Equation]:
    """x = √(1 − share) f(pa) + √share u, with noise of one of four shapes."""

    def equation(
        generator: np.random.Generator, _: str, causes: tuple[str, ...], reference: Columns
    ) -> Equation:
        noise = _NOISES[int(generator.integers(len(_NOISES)))]
        if not causes:
            return Equation(causes, noise, lambda u, _: u)
        mean = _standardised(function(generator, causes), reference)
        return Equation(
            causes, noise, lambda u, pa: np.sqrt(1 - share) * mean(pa) + np.sqrt(share) * u
        )

    return equation


def _heteroscedastic_equation(
    generator: np.random.Generator, _: str, causes: tuple[str, ...], reference: Columns
) -> Equation:
    """x = 0.8 f(pa) + 0.6 exp(0.5 g(pa)) u, with g within ±2."""
    noise = _NOISES[int(generator.integers(len(_NOISES)))]
    if not causes:
        return Equation(causes, noise, lambda u, _: u)
    mean = _standardised(_smooth(generator, causes), reference)
    scale = _standardised(_smooth(generator, causes), reference)
    return Equation(
        causes,
        noise,
        lambda u, pa: 0.8 * mean(pa) + 0.6 * np.exp(0.5 * np.clip(scale(pa), -2, 2)) * u,
    )


def _post_nonlinear_equation(
    generator: np.random.Generator, _: str, causes: tuple[str, ...], reference: Columns
) -> Equation:
    """x = h(0.8 f(log pa) + 0.6 u), with an increasing h onto the positive numbers."""
    noise = (_gaussian, _uniform)[int(generator.integers(2))]
    links: tuple[Callable[[Column], Column], ...] = (
        lambda y: np.exp(0.6 * y),
        lambda y: np.log1p(np.exp(1.5 * y)),
        lambda y: 2 / (1 + np.exp(-1.5 * y)),
    )
    link = links[int(generator.integers(len(links)))]
    if not causes:
        return Equation(causes, noise, lambda u, _: link(u), positive=True)
    smooth = _smooth(generator, causes)
    mean = _standardised(lambda pa: smooth({c: np.log(pa[c]) for c in causes}), reference)
    return Equation(
        causes, noise, lambda u, pa: link(0.8 * np.clip(mean(pa), -4, 4) + 0.6 * u), positive=True
    )


def _discrete_equation(
    generator: np.random.Generator, variable: str, causes: tuple[str, ...], reference: Columns
) -> Equation:
    """Classes by the Gumbel-max trick from the logits of the causes; every third a number."""
    number = int(variable[1:])
    if number % 3 == 0 and causes:
        mean = _standardised(_smooth(generator, causes), reference)
        return Equation(causes, _gaussian, lambda u, pa: 0.8 * mean(pa) + 0.6 * u)
    categories = 2 if number % 2 else 3
    functions = [
        _standardised(_linear(generator, causes), reference) if causes else None
        for _ in range(categories - 1)
    ]
    strengths = generator.uniform(1.0, 2.0, categories - 1)
    offsets = generator.uniform(-0.5, 0.5, categories - 1)

    def noise(source: np.random.Generator, rows: int) -> Column:
        return source.gumbel(size=(rows, categories))

    def value(u: Column, parents: Columns) -> Column:
        logits = np.zeros((u.shape[0], categories))
        for k, function in enumerate(functions):
            shift = 0.0 if function is None else strengths[k] * function(parents)
            logits[:, k + 1] = offsets[k] + shift
        return (logits + u).argmax(axis=1).astype(np.float64)

    return Equation(causes, noise, value, categories)


_SACHS: dict[str, tuple[str, ...]] = {
    "pkc": (),
    "plcg": (),
    "pka": ("pkc",),
    "pip3": ("plcg",),
    "pip2": ("plcg", "pip3"),
    "raf": ("pkc", "pka"),
    "mek": ("pkc", "pka", "raf"),
    "erk": ("pka", "mek"),
    "akt": ("pka", "erk", "pip3"),
    "jnk": ("pkc", "pka"),
    "p38": ("pkc", "pka"),
}
"""The consensus network of eleven phosphorylated proteins (Sachs et al. 2005)."""


def _sachs_equation(
    generator: np.random.Generator, _: str, causes: tuple[str, ...], reference: Columns
) -> Equation:
    """A concentration: saturating responses to activators and inhibitors, log-normal noise."""
    halves = {name: float(np.median(reference[name])) for name in causes}
    steepness = dict(zip(causes, generator.uniform(1.0, 2.5, len(causes)), strict=True))
    inhibits = dict(zip(causes, generator.random(len(causes)) < 0.3, strict=True))
    gains = dict(zip(causes, generator.uniform(1.0, 3.0, len(causes)), strict=True))
    base, width = float(generator.uniform(20, 60)), float(generator.uniform(0.25, 0.45))

    def value(u: Column, parents: Columns) -> Column:
        level = np.full(u.shape, base)
        for name in causes:
            power = (parents[name] / halves[name]) ** steepness[name]
            response = 1 / (1 + power) if inhibits[name] else power / (1 + power)
            level = level * (0.3 + gains[name] * response)
        return level * np.exp(width * u)

    return Equation(causes, _gaussian, value, positive=True)


def _random(
    name: str, size: int, equation: Callable[..., Equation]
) -> Callable[[np.random.Generator], TableWorld]:
    return lambda generator: _build(name, generator, _graph(generator, size), equation)


WORLDS: dict[str, Callable[[np.random.Generator], TableWorld]] = {
    "linear": _random("linear", 20, _additive(_linear, 0.4)),
    "additive": _random("additive", 10, _additive(_smooth, 0.3)),
    "heteroscedastic": _random("heteroscedastic", 10, _heteroscedastic_equation),
    "post-nonlinear": _random("post-nonlinear", 5, _post_nonlinear_equation),
    "discrete": _random("discrete", 8, _discrete_equation),
    "sachs": lambda generator: _build("sachs", generator, _SACHS, _sachs_equation),
}
"""Name to a function that draws a world of the kind."""
