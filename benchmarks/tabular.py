"""Interventions and counterfactuals of tables, beside DoWhy's gcm and causal normalising flows.

Prints one JSON line per world and method: errors relative to the standard deviation of the
variable that an intervention affects, seconds to fit, and microseconds per counterfactual.

    pip install dowhy causalflows
    OMP_NUM_THREADS=1 python benchmarks/tabular.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from statistics import mean
from time import perf_counter

import numpy as np
from scipy.stats import wasserstein_distance
from table_learners import LEARNERS, Learner
from table_worlds import WORLDS, Column, TableWorld, make_world
from tqdm import tqdm

_TRUTH = 20_000
"""Rows from which true interventional means and distributions are computed."""

_LOW, _HIGH = 0.1, 0.9
"""Quantiles of a variable to which interventions set it."""

_TIMED_ROWS = 1000
"""Individuals in the question whose time is measured."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--learners", nargs="+", choices=list(LEARNERS), default=list(LEARNERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=2000, help="rows of the table")
    arguments = parser.parse_args()
    jobs = [(w, n) for w in arguments.worlds for n in arguments.learners]
    with tqdm(total=len(jobs) * len(arguments.seeds), disable=None) as bar:
        for world, learner in jobs:
            found = []
            for seed in arguments.seeds:
                found.append(_errors(make_world(world, seed), learner, arguments.rows, seed))
                bar.update()
            line = {
                name: round(mean(each[name] for each in found), 4)
                if all(each[name] is not None for each in found)
                else None
                for name in found[0]
            }
            print(json.dumps({"world": world, "method": learner, **line}), flush=True)


def _errors(world: TableWorld, method: str, rows: int, seed: int) -> dict[str, float | None]:
    """Fit a method to a world and compare its answers with the truth."""
    table = world.values(world.draw_noise(rows, seed=1000 + seed))
    learner: Learner = LEARNERS[method](world, seed)
    start = perf_counter()
    learner.fit(table)
    seconds = perf_counter() - start
    interventional = _interventional(world, learner, table)
    counterfactual, each = None, None
    if learner.answers_counterfactuals and world.is_continuous:
        counterfactual, each = _counterfactual(world, learner, table)
    return {
        **interventional,
        "counterfactual": counterfactual,
        "seconds_to_fit": seconds,
        "microseconds_per_counterfactual": each,
    }


def _questions(
    world: TableWorld, table: Mapping[str, Column]
) -> Iterator[tuple[str, float, float]]:
    """Each variable that has effects, with a low and a high value."""
    for name, equation in world.equations.items():
        if world.descendants(name):
            if equation.categories:
                yield name, 0.0, equation.categories - 1.0
            else:
                low, high = np.quantile(table[name], [_LOW, _HIGH])
                yield name, float(low), float(high)


def _interventional(
    world: TableWorld, learner: Learner, table: Mapping[str, Column]
) -> dict[str, float | None]:
    """Errors of means, distributions and effects under each intervention."""
    noise = world.draw_noise(_TRUTH, seed=77)
    means, distributions, effects = [], [], []
    for name, low, high in _questions(world, table):
        truth = [world.values(noise, {name: value}) for value in (low, high)]
        found = [learner.intervene({name: value}, _TRUTH) for value in (low, high)]
        for effect in world.descendants(name):
            spread = table[effect].std()
            categories = world.equations[effect].categories
            pairs = [(a[effect], b[effect]) for a, b in zip(found, truth, strict=True)]
            differences = [(_summary(a, categories) - _summary(b, categories)) for a, b in pairs]
            scale = 1.0 if categories else spread
            means += [float(np.abs(each).mean() / scale) for each in differences]
            effects.append(float(np.abs(differences[1] - differences[0]).mean() / scale))
            distributions += [_distance(a, b, categories, spread) for a, b in pairs]
    return {"mean": mean(means), "distribution": mean(distributions), "effect": mean(effects)}


def _summary(values: Column, categories: int) -> Column:
    """The mean of a number, or the probability of each class."""
    if not categories:
        return np.array([values.mean()])
    return np.array([(values == k).mean() for k in range(categories)])


def _distance(found: Column, truth: Column, categories: int, spread: float) -> float:
    """The total variation of classes; of numbers the Wasserstein distance in deviations."""
    if categories:
        difference = _summary(found, categories) - _summary(truth, categories)
        return float(np.abs(difference).sum() / 2)
    return float(wasserstein_distance(found, truth)) / spread


def _counterfactual(
    world: TableWorld, learner: Learner, table: Mapping[str, Column]
) -> tuple[float, float]:
    """Root mean square error of individuals, and microseconds for each answer."""
    noise = world.draw_noise(_TIMED_ROWS, seed=99)
    factual = world.values(noise)
    errors, times = [], []
    for name, low, high in _questions(world, table):
        for value in (low, high):
            start = perf_counter()
            found = learner.counterfactual(factual, {name: value})
            times.append((perf_counter() - start) / _TIMED_ROWS)
            truth = world.values(noise, {name: value})
            errors += [
                float(np.sqrt(np.mean((found[each] - truth[each]) ** 2)) / table[each].std())
                for each in world.descendants(name)
            ]
    return mean(errors), 1e6 * float(np.median(times))


if __name__ == "__main__":
    main()
