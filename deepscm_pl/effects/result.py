"""Estimates with bootstrap intervals, and the results of questions about effects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.effects.outcome import Outcome
from deepscm_pl.effects.units import Columns, EffectQuestion
from deepscm_pl.numerals import format_number

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["EffectEstimate", "Effects", "FunctionOfMeans", "Replicates", "ratio"]

FunctionOfMeans = Callable[[Columns], Any]
"""From the means of columns to an estimate, elementwise over replicates."""


def ratio(numerator: str, denominator: str, factor: float = 1.0) -> FunctionOfMeans:
    """The ratio of the means of two columns."""
    return lambda mean: factor * mean[numerator] / mean[denominator]


_AT_A_TIME = 2**22
"""Numbers of bootstrap weights in memory at a time, at most."""


@dataclass(frozen=True)
class EffectEstimate:
    """A number with its interval.

    Attributes:
        value: The estimate; of several models, their weighted mean.
        low: Lower end of the interval.
        high: Upper end of the interval.
        rows: Number of rows that it is based on.
        members: The estimate of each model.
        unit: Its unit; empty for probabilities and numbers without one.
    """

    value: float
    low: float
    high: float
    rows: int
    members: tuple[float, ...] = ()
    unit: str = ""

    def __str__(self) -> str:
        value, low, high = (format_number(each, 4) for each in (self.value, self.low, self.high))
        unit = f" {self.unit}" if self.unit else ""
        return f"{value}{unit} ({low} to {high})"


class Replicates:
    """Means of the columns of all models, of all rows and of bootstrap replicates.

    Rows are resampled and, if there are several, models as well. Estimates are functions of these
    means, so that all estimates of one question have the same replicates.

    Args:
        question: The models, the seed, and the level of intervals.
        columns: Numbers ``(N,)`` of each row by name, for each model.
        clusters: For each model, arrays ``(N,)`` of the numbers, from 0, of those that are
            resampled: a row counts as often as all of its numbers are drawn. By default each row is
            resampled alone.

    Example:
        >>> from deepscm_pl.effects.units import EffectSettings
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> scm = StructuralCausalModel("a", {"a": AffineFlow})
        >>> question = EffectQuestion.of(scm, ["a"], EffectSettings(seed=1))
        >>> found = Replicates(question, [{"a": np.array([1.0, 2.0, 6.0])}])
        >>> found.estimate(lambda mean: mean["a"]).value
        3.0
    """

    def __init__(
        self,
        question: EffectQuestion,
        columns: Sequence[Columns],
        clusters: Sequence[Sequence[NDArray[np.int64]]] | None = None,
    ) -> None:
        settings = question.settings
        self.level, self.weights = settings.level, np.array(question.ensemble.weights)
        generator = np.random.default_rng([settings.seed, 1])
        self.names = list(columns[0])
        tables = [np.stack([each[name] for name in self.names], axis=1) for each in columns]
        self.rows = len(tables[0])
        kinds = [[np.arange(len(each))] for each in tables] if clusters is None else clusters
        # (models, 1 + replicates, columns), first that of all rows.
        self.means = np.stack(
            [
                _means(table, some, settings.replicates, generator)
                for table, some in zip(tables, kinds, strict=True)
            ]
        )
        shares = generator.multinomial(len(tables), self.weights, settings.replicates)
        self.shares = np.concatenate([self.weights[None], shares / len(tables)])

    def estimate(
        self, statistic: FunctionOfMeans, rows: int | None = None, unit: str = ""
    ) -> EffectEstimate:
        """The estimate of a statistic of the means, with its interval.

        Args:
            statistic: From the mean of each column, an array, to the estimate, elementwise.
            rows: Number of rows behind it; all, by default.
            unit: The unit.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            mixed = np.einsum("rm,mrc->rc", self.shares, self.means)
            found = np.asarray(statistic(self._named(mixed)), dtype=np.float64)
            members = np.asarray(statistic(self._named(self.means[:, 0])), dtype=np.float64)
        tail = (1 - self.level) / 2
        usable = found[1:][np.isfinite(found[1:])]
        low, high = np.quantile(usable, [tail, 1 - tail]) if len(usable) else (math.nan,) * 2
        return EffectEstimate(
            float(found[0]),
            float(low),
            float(high),
            self.rows if rows is None else rows,
            tuple(members.tolist()),
            unit,
        )

    def _named(self, means: NDArray[np.float64]) -> Columns:
        return dict(zip(self.names, means.T, strict=True))


def _means(
    table: NDArray[np.float64],
    clusters: Sequence[NDArray[np.int64]],
    replicates: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Means of the columns ``(N, C)`` of all rows and of replicates, ``(1 + replicates, C)``."""
    found = [table.mean(axis=0, keepdims=True)]
    sizes = [int(each.max()) + 1 for each in clusters]
    step = max(1, _AT_A_TIME // max(len(table), *sizes))
    for first in range(0, replicates, step):
        count = min(step, replicates - first)
        weights = np.ones((count, len(table)))
        for cluster, size in zip(clusters, sizes, strict=True):
            drawn = generator.multinomial(size, np.full(size, 1 / size), count)
            weights *= drawn[:, cluster]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(weights @ table / weights.sum(axis=1, keepdims=True))
    return np.concatenate(found)


@dataclass(frozen=True)
class Effects:
    """The estimates of a question, with notes.

    Attributes:
        title: The question in words.
        outcome: What the estimates are about.
        estimates: The estimates by name.
        notes: Sentences about their meaning, such as the reason why an effect is zero.
        level: Probability of the intervals.
        drawn: The names that :meth:`plot` draws; all if it is empty.
        rows: Columns ``(N,)`` of numbers or texts, one entry for each observation, if any.

    Example:
        >>> outcome = Outcome("x", ("x",), lambda values: values["x"][:, 0], "x", "mm")
        >>> estimate = EffectEstimate(2.0, 1.5, 2.5, 100, unit="mm")
        >>> Effects("effect of a", outcome, {"effect": estimate})
        effect of a
        <BLANKLINE>
                value  95 % interval  rows
        effect   2 mm     1.5 to 2.5   100
    """

    title: str
    outcome: Outcome
    estimates: Mapping[str, EffectEstimate]
    notes: tuple[str, ...] = ()
    level: float = 0.95
    drawn: tuple[str, ...] = ()
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> EffectEstimate:
        """The estimate of a name."""
        return self.estimates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.estimates)

    def __len__(self) -> int:
        return len(self.estimates)

    def table(self, most: int = 40) -> str:
        """The first estimates as a table of text."""
        header = ["", "value", f"{100 * self.level:g} % interval", "rows"]
        several = any(len(set(each.members)) > 1 for each in self.estimates.values())
        header += ["models"] if several else []
        lines = [header]
        for name, each in list(self.estimates.items())[:most]:
            unit = f" {each.unit}" if each.unit else ""
            cells = [name, f"{format_number(each.value, 4)}{unit}"]
            cells += [f"{format_number(each.low, 4)} to {format_number(each.high, 4)}"]
            cells += [f"{each.rows:,}"]
            cells += [", ".join(format_number(m) for m in each.members)] if several else []
            lines.append(cells)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join(
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            )
            for line in lines
        )
        more = len(self.estimates) - most
        return f"{text}\n… and {more} more" if more > 0 else text

    def __repr__(self) -> str:
        return "\n".join([self.title, "", self.table(), *(f"{note}" for note in self.notes)])

    def to_frame(self) -> pandas.DataFrame:
        """The estimates as a frame with a row for each, by name."""
        import pandas

        return pandas.DataFrame(
            [self._cells(each) for each in self.estimates.values()],
            index=pandas.Index(list(self.estimates), name="estimate"),
        )

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        from html import escape

        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(self.title)}</p>{self.to_frame().to_html()}{notes}"

    @staticmethod
    def _cells(each: EffectEstimate) -> dict[str, Any]:
        several = {f"model {k}": value for k, value in enumerate(each.members, 1)}
        return {
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "unit": each.unit,
            "rows": each.rows,
            **(several if len(several) > 1 else {}),
        }

    def describe(self) -> dict[str, Any]:
        """The result as plain data for JSON, without the rows."""
        return {
            "question": self.title,
            "outcome": self.outcome.label,
            "unit": self.outcome.unit or None,
            "level": self.level,
            "estimates": {name: self._cells(each) for name, each in self.estimates.items()},
            "notes": list(self.notes),
        }

    def plot(self) -> Figure:
        """Draw the estimates with their intervals."""
        from deepscm_pl.figures import draw_estimates

        names = self.drawn or tuple(self.estimates)
        units = dict.fromkeys(self.estimates[name].unit for name in names)
        unit = next(iter(units)) if len(units) == 1 else ""
        return draw_estimates(
            {name: self.estimates[name] for name in names},
            self.title,
            f"{self.outcome.label}{unit and f' ({unit})'}",
        )
