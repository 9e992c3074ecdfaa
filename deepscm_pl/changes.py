"""Tables of what an intervention changes, in plain words: before, after, difference and percent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from deepscm_pl.escaping import for_terminal
from deepscm_pl.graph import CausalGraph
from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Variable

__all__ = [
    "NOISE",
    "ChangedVariable",
    "Changes",
    "Summary",
    "affected_by",
    "as_lines",
    "signed",
    "without_noise",
]

NOISE = 1e-6
"""Relative differences that rounding in single precision causes, at most."""
_NUMBERS = 2**20
"""Numbers that are converted to double precision at a time."""
_MOST_CLASSES = 4
"""Classes in a cell of a table, at most."""


def affected_by(graph: CausalGraph, do: Iterable[str]) -> list[str]:
    """Return the variables that an intervention sets, changes or affects, in order of the graph."""
    named = [name for name in do if name in graph]
    return [name for name in graph if name in {*named, *graph.descendants(*named)}]


@dataclass(frozen=True)
class ChangedVariable:
    """A line of a table, in words.

    Attributes:
        variable: Name of the variable.
        factual: The observed value, or the mean of several; empty without observations.
        answer: The value in the answer, or the mean of several.
        change: The difference, with a percentage where the numbers have a zero.
    """

    variable: str
    factual: str
    answer: str
    change: str


@dataclass
class _Sums:
    """Sums over the answers about one variable, in double precision."""

    count: int = 0
    factual: float | Tensor = 0.0
    answer: float | Tensor = 0.0
    square: float = 0.0
    change: float = 0.0
    different: int = 0


@dataclass
class Changes:
    """Sums of what an intervention changes, over answers that arrive in parts.

    Missing factual values (NaN) are left out.

    Args:
        variables: The variables of the model.
        names: The variables that the intervention affects; see :func:`affected_by`.

    Example:
        >>> import torch
        >>> changes = Changes({"age": Variable("age", unit="years")}, ["age"])
        >>> changes.add({"age": torch.tensor([[60.0]])}, {"age": torch.tensor([[[80.0]]])}, 1)
        >>> changes.lines()
        [ChangedVariable(variable='age', factual='60 years', answer='80 years', change='+20 years')]
    """

    variables: Mapping[str, Variable]
    names: Sequence[str]
    observations: int = 0
    _sums: dict[str, _Sums] = field(default_factory=dict)

    def add(
        self, factual: Mapping[str, Tensor], answer: Mapping[str, Tensor], observations: int = 0
    ) -> None:
        """Add answers.

        Args:
            factual: The observations, ``(N, *event)`` of each variable.
            answer: ``(P, N, *event)`` of each variable.
            observations: Number of observations that were not added before.
        """
        self.observations += observations
        for name in self.names:
            domain = self.variables[name].domain
            sums = self._sums.setdefault(name, _Sums())
            rows = max(_NUMBERS // math.prod(domain.shape), 1)
            pieces = factual[name].split(rows)
            for particle in answer[name]:
                for before, after in zip(pieces, particle.split(rows), strict=True):
                    pair = before.double().flatten(1), after.double().flatten(1)
                    self._add(sums, *pair, domain.categories)

    @staticmethod
    def _add(sums: _Sums, before: Tensor, after: Tensor, categories: int | None) -> None:
        known = ~before.isnan().any(dim=1)
        before, after = before[known], after[known]
        sums.count += len(before)
        sums.different += int((before != after).any(dim=1).sum())
        sums.change += float((after - before).abs().mean(dim=1).sum())
        if categories is not None:
            for name, values in (("factual", before), ("answer", after)):
                counts = values.flatten().long().bincount(minlength=categories)
                setattr(sums, name, getattr(sums, name) + counts)
            return
        sums.factual += float(before.mean(dim=1).sum())
        sums.answer += float(after.mean(dim=1).sum())
        sums.square += float(after.mean(dim=1).square().sum())

    def lines(self) -> list[ChangedVariable]:
        """Return a line for each variable; means over several answers."""
        return [self._line(self.variables[n], s) for n, s in self._sums.items() if s.count]

    def _line(self, variable: Variable, sums: _Sums) -> ChangedVariable:
        domain = variable.domain
        if domain.categories is not None:
            first, last = (_shares(variable, e, sums.count) for e in (sums.factual, sums.answer))
            share = f"{100 * sums.different / sums.count:.3g} %"
            changed = "changed" if sums.different == sums.count else f"{share} changed"
            return ChangedVariable(
                variable.name, first, last, changed if sums.different else "none"
            )
        before, after = (float(each) / sums.count for each in (sums.factual, sums.answer))
        if len(domain.shape) > 1:
            change = sums.change / sums.count
            each = f"{format_number(change)} per {_pixel(variable)}" if change else "none"
            first, last = (f"{format_number(value)} on average" for value in (before, after))
            return ChangedVariable(variable.name, first, last, each)
        difference = without_noise(before, after)
        digits = _digits(before, before + difference)
        first, last = (_with_unit(value, variable, digits) for value in (before, after))
        deviation = math.sqrt(max(sums.square / sums.count - after**2, 0.0))
        if self.observations == 1 and deviation > NOISE * abs(after):
            last += f" ± {format_number(deviation, 2)}"
        text = f"{signed(difference)} {variable.unit}".rstrip()
        if difference and domain.lower >= 0 and before > 0:
            text += f" ({signed(100 * difference / before, 2)} %)"
        return ChangedVariable(variable.name, first, last, text if difference else "none")


@dataclass
class Summary:
    """Moments of answers without observations, for the table of a sample.

    Args:
        variables: The variables of the model.
        names: Those in the table.
    """

    variables: Mapping[str, Variable]
    names: Sequence[str]

    def lines(self, answer: Mapping[str, Tensor]) -> Iterator[ChangedVariable]:
        """Yield a line for each variable of ``(n, *event)``: mean, and the range of 90 %."""
        for name in self.names:
            variable, values = self.variables[name], answer[name].double()
            domain = variable.domain
            flat = values.reshape(-1, math.prod(domain.shape)).mean(dim=1)
            if domain.categories is not None:
                counts = flat.long().bincount(minlength=domain.categories)
                yield ChangedVariable(name, "", _shares(variable, counts, len(flat)), "")
                continue
            mean, low, high = float(flat.mean()), *flat.quantile(flat.new_tensor([0.05, 0.95]))
            digits = _digits(float(low), float(high))
            spread = f"{format_number(float(low), digits)} to {format_number(float(high), digits)}"
            same = float(low) == float(high)
            if len(domain.shape) > 1:
                yield ChangedVariable(
                    name, "", f"{format_number(mean)} on average", "" if same else spread
                )
            else:
                text = _with_unit(mean, variable, digits)
                yield ChangedVariable(name, "", text, "" if same else spread)


def as_lines(rows: Sequence[ChangedVariable], headings: Sequence[str]) -> list[str]:
    """Format a table in aligned columns; columns without a text are left out.

    Args:
        rows: The lines.
        headings: Headings of the four columns.
    """
    table = [
        [for_terminal(cell) for cell in each]
        for each in (headings, *((r.variable, r.factual, r.answer, r.change) for r in rows))
    ]
    used = [k for k in range(len(headings)) if any(row[k] for row in table[1:])]
    widths = {k: max(len(row[k]) for row in table) for k in used}
    return ["  ".join(row[k].ljust(widths[k]) for k in used).rstrip() for row in table]


def signed(value: float, digits: int = 3) -> str:
    """Format a number with its sign, such as ``−4.2``.

    Example:
        >>> signed(-4.2), signed(1500.0), signed(0.0)
        ('−4.2', '+1500', '0')
    """
    text = format_number(abs(value), digits)
    return text if value == 0 else f"{'+' if value > 0 else '−'}{text}"


def without_noise(before: float, after: float) -> float:
    """Return a difference without the rounding errors of numbers in single precision.

    Example:
        >>> without_noise(62.3, 80.0), without_noise(812.5, 812.5002)
        (17.7, 0.0)
    """
    largest, change = max(abs(before), abs(after)), after - before
    if abs(change) <= NOISE * largest:
        return 0.0
    if not math.isfinite(largest):
        return change
    return round(change, 6 - math.floor(math.log10(largest)))


def _digits(before: float, after: float) -> int:
    """As many digits as show the difference of two numbers, from 3 to 7."""
    change, largest = abs(after - before), max(abs(before), abs(after))
    if not (change and math.isfinite(largest)):
        return 4
    return min(max(math.ceil(math.log10(largest / change)) + 2, 3), 7)


def _with_unit(value: float, variable: Variable, digits: int) -> str:
    return f"{format_number(value, digits)} {variable.unit}".rstrip()


def _pixel(variable: Variable) -> str:
    return "voxel" if len(variable.domain.shape) == 4 else "pixel"


def _shares(variable: Variable, counts: float | Tensor, total: int) -> str:
    """The classes by their shares, such as ``female 67 %, male 33 %``; one class by its name."""
    numbers = counts.tolist() if isinstance(counts, Tensor) else []
    order = sorted((k for k, n in enumerate(numbers) if n), key=lambda k: -numbers[k])
    names = [variable.format(float(k)) for k in order]
    if len(order) == 1:
        return names[0]
    shown = [
        f"{name} {100 * numbers[k] / total:.3g} %"
        for name, k in zip(names[:_MOST_CLASSES], order, strict=False)
    ]
    return ", ".join([*shown, *(["…"] if len(order) > _MOST_CLASSES else [])])
