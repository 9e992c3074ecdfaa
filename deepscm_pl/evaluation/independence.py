"""Tests of conditional independence between the columns of a table, numbers and classes alike.

The test is the generalised covariance measure (Shah and Peters 2020, arXiv:1804.07203) of several
features of both variables: the residuals of their regressions on the other variables are
uncorrelated if the variables are independent given the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm, rankdata

__all__ = ["FEWEST_ROWS", "Dependence", "IndependenceTest", "MixedTable", "adjusted"]

Array = NDArray[np.float64]

FEWEST_ROWS = 30
"""The smallest number of rows of a test."""

_DRAWS = 2000  # of the largest of several correlated statistics
_MOST_CLASSES = 12  # of a variable; rarer ones are one class
_WAVES = 60  # random features of the kernel regression
_MOST_PRODUCTS = 6  # variables whose products are features, too
_PENALTIES = np.logspace(-6, 1, 15)  # per row
_SPREAD_MEAN = math.sqrt(2 / math.pi)  # of the absolute value of a standard normal number


@dataclass(frozen=True)
class MixedTable:
    """Scalar variables of independent rows.

    Args:
        columns: Values of each variable, ``(N,)``; class indices of classes, NaN where missing.
        classes: Names of the variables whose values are classes.
        labels: Labels of variables for figures, such as ``volume (ml)``.

    Raises:
        ValueError: If columns differ in length, or there are fewer than 30 rows.

    Example:
        >>> len(MixedTable({"age": np.arange(40.0), "sex": np.arange(40.0) % 2}, {"sex"}))
        40
    """

    columns: Mapping[str, Array]
    classes: Collection[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the number of rows."""
        sizes = {name: len(column) for name, column in self.columns.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"table: expected columns of one length, but got {sizes}.")
        if len(self) < FEWEST_ROWS:
            raise ValueError(
                f"rows: expected at least {FEWEST_ROWS} independent rows, the fewest from which a "
                f"dependence can be seen, but got {len(self)}; check the graph on more data."
            )

    def __len__(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), ()))

    @cached_property
    def incomplete(self) -> frozenset[str]:
        """The variables with missing values."""
        return frozenset(name for name, each in self.columns.items() if np.isnan(each).any())

    def taken(self, rows: NDArray[np.intp]) -> MixedTable:
        """Select rows."""
        columns = {name: each[rows] for name, each in self.columns.items()}
        return MixedTable(columns, self.classes, self.labels)


@dataclass(frozen=True)
class Dependence:
    """The result of one test.

    Attributes:
        p_value: The probability of a dependence at least as large, if there is none.
        correlation: The partial correlation of normal scores, or of the indicator of a class with
            the largest one.
        rows: Number of rows without missing values, which the test uses.
        is_curved: Whether the clearest dependence is that of a distance from the middle, as in a
            parabola or a spread that changes, and not one of scores or classes.
    """

    p_value: float
    correlation: float
    rows: int
    is_curved: bool = False


class IndependenceTest:
    r"""Conditional independence of variables of a table.

    Features of a number are its normal score s and \|s\|, those of a class are the indicators of
    all classes. They are regressed on the conditioning variables by a ridge regression with their
    scores, squares, products and random Fourier features, whose penalty has the smallest
    leave-one-out error. The statistic is the largest standardised covariance between leave-one-out
    residuals; its p-value accounts for the correlation of the features. Regressions are shared
    between tests.

    Args:
        table: The rows.
        seed: Seed of random features and p-values.

    Example:
        >>> cause = np.random.default_rng(0).normal(size=(2, 500))
        >>> test = IndependenceTest(MixedTable({"x": cause[0], "z": cause[1], "y": cause[0] ** 2}))
        >>> test("x", "z").p_value > 0.05, test("x", "y").p_value < 1e-9
        (True, True)
    """

    def __init__(self, table: MixedTable, seed: int = 0) -> None:
        self.table, self.seed = table, seed
        self._regressions: dict[tuple[frozenset[str], frozenset[str]], _Regression] = {}
        self._residuals: dict[tuple[str, frozenset[str], frozenset[str]], Array] = {}
        self._found: dict[tuple[frozenset[str], frozenset[str]], Dependence] = {}

    def __call__(self, first: str, second: str, given: Collection[str] = ()) -> Dependence:
        """Test whether two variables are independent given others.

        Raises:
            ValueError: If fewer than 30 rows have values of all these variables.
        """
        key = frozenset((first, second)), frozenset(given)
        if key not in self._found:
            one, other = sorted((first, second))
            self._found[key] = self._test(one, other, key[1])
        return self._found[key]

    def _test(self, first: str, second: str, given: frozenset[str]) -> Dependence:
        missing = self.table.incomplete & {first, second, *given}
        rows = self._rows(missing)
        if len(rows) < FEWEST_ROWS:
            raise ValueError(
                f"rows: expected at least {FEWEST_ROWS} rows with values of "
                f"{', '.join([first, second, *sorted(given)])}, but got {len(rows)}; leave out a "
                "variable with many missing values."
            )
        left = self.residuals(first, given, missing)
        right = self.residuals(second, given, missing)
        products = (left[:, :, None] * right[:, None, :]).reshape(len(rows), -1)
        spread = products.std(axis=0)
        used = spread > 1e-9
        if not used.any():
            return Dependence(1.0, 0.0, len(rows))
        scores = math.sqrt(len(rows)) * products[:, used].mean(axis=0) / spread[used]
        largest = float(np.abs(scores).max())
        scale = np.sqrt((left**2).mean(axis=0)[:, None] * (right**2).mean(axis=0)[None, :])
        means = products.mean(axis=0).reshape(scale.shape)
        correlations = np.divide(means, scale, out=np.zeros_like(means), where=scale > 1e-9)
        # Of scores only; the other feature of a number has no sign.
        shown = correlations[
            : None if first in self.table.classes else 1,
            : None if second in self.table.classes else 1,
        ].flatten()
        correlation = float(shown[np.abs(shown).argmax()])
        p_value = self._p_value(products[:, used], largest)
        place = np.flatnonzero(used)[np.abs(scores).argmax()]
        names = zip(np.unravel_index(place, scale.shape), (first, second), strict=True)
        curved = any(k == 1 and name not in self.table.classes for k, name in names)
        return Dependence(p_value, correlation, len(rows), curved)

    def _p_value(self, products: Array, largest: float) -> float:
        """The probability that the largest of correlated normal statistics is larger."""
        count = products.shape[1]
        bound = min(1.0, float(2 * count * norm.sf(largest)))
        if count == 1 or bound < 1 / _DRAWS:
            return bound
        related = np.atleast_2d(np.corrcoef(products, rowvar=False)) + 1e-9 * np.eye(count)
        generator = np.random.default_rng(self.seed)
        draws = generator.normal(size=(_DRAWS, count)) @ np.linalg.cholesky(related).T
        larger = int((np.abs(draws).max(axis=1) >= largest).sum())
        return min(bound, (larger + 1) / (_DRAWS + 1))

    def residuals(self, name: str, given: Collection[str], missing: Collection[str] = ()) -> Array:
        """Leave-one-out residuals of the features of a variable, ``(rows, features)``.

        Args:
            name: The variable.
            given: The variables that predict it.
            missing: Variables whose missing values exclude a row.
        """
        key = name, frozenset(given), frozenset(missing)
        if key not in self._residuals:
            rows = self._rows(missing)
            features = _features(self.table.columns[name][rows], name in self.table.classes)
            self._residuals[key] = self._regression(key[1], key[2], rows).residuals(features)
        return self._residuals[key]

    def _rows(self, missing: Collection[str]) -> NDArray[np.intp]:
        complete = np.ones(len(self.table), dtype=bool)
        for name in missing:
            complete &= ~np.isnan(self.table.columns[name])
        return np.flatnonzero(complete)

    def _regression(
        self, given: frozenset[str], missing: frozenset[str], rows: NDArray[np.intp]
    ) -> _Regression:
        key = given, missing
        if key not in self._regressions:
            names = sorted(given)
            inputs = [
                _features(self.table.columns[name][rows], name in self.table.classes)
                for name in names
            ]
            inputs = [
                each if name in self.table.classes else each[:, :1]
                for name, each in zip(names, inputs, strict=True)
            ]
            self._regressions[key] = _Regression.of(inputs, len(rows), self.seed)
        return self._regressions[key]


def _features(column: Array, is_class: bool) -> Array:
    """Centred features of a variable without missing values, ``(rows, features)``."""
    if is_class:
        classes, counts = np.unique(column, return_counts=True)
        kept = classes[np.argsort(-counts)[:_MOST_CLASSES]]
        indicators = (column[:, None] == kept).astype(np.float64)
        # The indicators of two classes are opposite.
        indicators = indicators[:, :1] if len(kept) == 2 else indicators
        return indicators - indicators.mean(axis=0)
    scores = ndtri((rankdata(column) - 0.5) / len(column))
    scores = scores - scores.mean()
    return np.stack([scores, np.abs(scores) - _SPREAD_MEAN], axis=1)


@dataclass(frozen=True)
class _Regression:
    """A ridge regression with a fixed design matrix; None for a constant."""

    design: Array | None
    values: Array | None

    @classmethod
    def of(cls, inputs: Sequence[Array], rows: int, seed: int) -> _Regression:
        if not inputs:
            return cls(None, None)
        joined = np.concatenate(inputs, axis=1)
        features = [joined, joined**2]
        if joined.shape[1] <= _MOST_PRODUCTS:
            first, second = np.triu_indices(joined.shape[1], 1)
            features.append(joined[:, first] * joined[:, second])
        generator = np.random.default_rng(seed)
        width = math.sqrt(2 * joined.shape[1])
        directions = generator.normal(size=(joined.shape[1], _WAVES)) / width
        directions[:, ::2] *= 3  # two widths of the kernel
        phases = generator.uniform(0, 2 * math.pi, _WAVES)
        features.append(np.cos(joined @ directions + phases))
        design = np.concatenate(features, axis=1)
        design = design - design.mean(axis=0)
        spread = design.std(axis=0)
        design = design[:, spread > 1e-9] / spread[spread > 1e-9]
        if not design.shape[1]:  # constants
            return cls(None, None)
        values, vectors = np.linalg.eigh(design.T @ design / rows)
        kept = values > 1e-10 * values[-1]
        return cls(design @ vectors[:, kept], values[kept])

    def residuals(self, targets: Array) -> Array:
        centred = targets - targets.mean(axis=0)
        if self.design is None or self.values is None:
            return centred
        rows = len(targets)
        projected = self.design.T @ centred / rows
        squares = self.design**2
        best, least = centred, np.full(targets.shape[1], np.inf)
        for penalty in _PENALTIES:
            shrunk = 1 / (self.values + penalty)
            leverage = (squares @ shrunk + 1) / rows
            found = (centred - self.design @ (shrunk[:, None] * projected)) / (
                1 - np.minimum(leverage, 0.99)
            )[:, None]
            errors = (found**2).sum(axis=0)
            best = np.where(errors < least, found, best)
            least = np.minimum(errors, least)
        return best


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests by the method of Holm (1979).

    Example:
        >>> adjusted([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(each) for each in found]
