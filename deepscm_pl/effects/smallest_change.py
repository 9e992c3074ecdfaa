"""The smallest change of chosen causes that reaches a wanted outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import real_number
from deepscm_pl.effects.outcome import Condition, Outcome, check_known
from deepscm_pl.effects.units import EffectQuestion, EffectSettings, Model, Units, ensemble_of
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variable

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["SmallestChange", "SmallestChanges", "smallest_changes"]

_DIRECTIONS, _RADII, _ROUNDS, _HALVINGS = 96, 32, 8, 12
_FEWEST_DRAWS = 4_000
_DRAWN = 40
"""Observations in a picture, at most."""
_CLASS_COST = 1.0
"""The distance of a change of class, in standard deviations."""


@dataclass(frozen=True)
class SmallestChange:
    """The smallest change of the causes of one observation.

    Attributes:
        reached: Whether the outcome is reached.
        distance: Length of the change, in standard deviations of the training data.
        before: The values of the causes without the change.
        after: Their values with it, which may differ as well because other causes change.
        changed: The causes that are shifted or exchanged.
        outcome: The outcome with the change: the nearest one if it is not reached.
        is_beyond: Whether a value is outside of the range of the training data.
    """

    reached: bool
    distance: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    changed: tuple[str, ...]
    outcome: float
    is_beyond: bool = False


@dataclass(frozen=True)
class SmallestChanges:
    """The smallest changes of some observations.

    Attributes:
        title: The question in words.
        variables: The causes and the outcome.
        outcome: The quantity that is to reach the goal.
        changes: One for each observation, by its name.
        notes: Sentences about their meaning.
    """

    title: str
    variables: Mapping[str, Variable]
    outcome: Outcome
    changes: Mapping[str, SmallestChange]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> SmallestChange:
        """The change of an observation."""
        return self.changes[name]

    def sentences(self, most: int = 20) -> list[str]:
        """A sentence for each of the first observations."""
        found = [self._sentence(name, each) for name, each in list(self.changes.items())[:most]]
        more = len(self.changes) - most
        return [*found, *([f"… and {more} more"] if more > 0 else [])]

    def _sentence(self, name: str, each: SmallestChange) -> str:
        reached = f"{self.outcome.label} {format_number(each.outcome, 4)} {self.outcome.unit}"
        if each.reached and each.distance == 0:
            return f"{name}: no change is needed ({reached.strip()})."
        changes = ", ".join(
            f"{self.variables[n].spoken} from {self.variables[n].format(each.before[n], 4)} to "
            f"{self.variables[n].format(each.after[n], 4)}"
            for n in each.changed
        )
        if not each.reached:
            nearest = f"with {changes}" if changes else "without a change"
            return f"{name}: cannot be reached; the nearest is {reached.strip()}, {nearest}."
        beyond = ", beyond the training data" if each.is_beyond else ""
        return (
            f"{name}: {changes}; {format_number(each.distance)} standard deviations{beyond} "
            f"({reached.strip()})."
        )

    def __repr__(self) -> str:
        return "\n".join([self.title, "", *self.sentences(), *self.notes])

    def columns(self) -> dict[str, list[Any]]:
        """Columns of a table: the observation, the change of each cause, and the outcome."""
        found: dict[str, list[Any]] = {"observation": list(self.changes)}
        changes = list(self.changes.values())
        for name in changes[0].before if changes else ():
            variable = self.variables[name]
            for when in ("before", "after"):
                values = [getattr(each, when)[name] for each in changes]
                found[f"{name}_{when}"] = [
                    variable.format(value) if variable.classes else value for value in values
                ]
        found |= {
            "distance": [each.distance for each in changes],
            "reached": [each.reached for each in changes],
            "outcome": [each.outcome for each in changes],
            "beyond_training_data": [each.is_beyond for each in changes],
        }
        return found

    def to_frame(self) -> pandas.DataFrame:
        """The changes as a frame with a row for each observation."""
        import pandas

        return pandas.DataFrame(self.columns()).set_index("observation")

    def plot(self) -> Figure:
        """Draw the causes before and after the changes of the first 40 observations."""
        from deepscm_pl.figures import draw_changes

        some = dict(list(self.changes.items())[:_DRAWN])
        names = next(iter(some.values())).before
        return draw_changes(
            {
                self.variables[name].label: [
                    (each.before[name], each.after[name]) for each in some.values()
                ]
                for name in names
            },
            list(some),
            self.title,
            {self.variables[name].label: self.variables[name].classes for name in names},
        )

    def describe(self) -> dict[str, Any]:
        """The changes as plain data for JSON."""
        columns = self.columns()
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {"question": self.title, "changes": rows, "notes": list(self.notes)}


def smallest_changes(
    model: Model,
    goal: str,
    causes: Sequence[str],
    observed: Any,
    row_names: Sequence[str] | None = None,
    farthest: float = 5.0,
    settings: EffectSettings | None = None,
) -> SmallestChanges:
    """Find the smallest change of some causes with which each observation reaches a goal.

    Numbers are shifted, classes are exchanged; causes that are not chosen respond as usual. The
    distance is the length of the shifts in standard deviations of the training data, where a change
    of class counts as one. Values stay inside their domains. A direct search over directions finds
    the change; it is not guaranteed to be the smallest if the outcome is far from monotone.

    Args:
        model: The model, or several, whose mean outcome has to reach the goal.
        goal: A condition of one variable, such as ``"volume >= 1000"`` or ``"sick=no"``. A number
            that is to equal a value is reached from its side. Of several particles and models, the
            mean has to fulfil it, and a class has to be the more probable one.
        causes: The variables that may be changed.
        observed: Observations, as of :func:`~deepscm_pl.effects.average_effect`.
        row_names: A name for each observation; labels of a data frame or numbers by default.
        farthest: The largest shift of each number, in standard deviations.
        settings: Particles and seed.

    Raises:
        ValueError: If a name is unknown, the goal cannot be read, or a cause is an image, the
            outcome itself, or no cause of it.

    Example:
        >>> from functools import partial
        >>> from torch.distributions import AffineTransform
        >>> from deepscm_pl.mechanisms import Known
        >>> twice = partial(Known, layers=lambda pa: [AffineTransform(2 * pa["a"], 1.0)])
        >>> noise = partial(Known, layers=lambda pa: [AffineTransform(0.0, 1.0)])
        >>> scm = StructuralCausalModel("a -> b", {"a": noise, "b": twice})
        >>> row = {"a": torch.tensor([[0.0]]), "b": torch.tensor([[0.5]])}
        >>> found = smallest_changes(scm, "b >= 2", ["a"], row)
        >>> round(found["0"].after["a"], 2)
        0.75
    """
    variables = ensemble_of(model).variables
    wanted = _Goal.read(goal, variables)
    names = _checked_causes(causes, wanted, model)
    real_number("farthest", farthest, above=0)
    question = EffectQuestion.of(model, [wanted.outcome.names[0], *names], settings, observed)
    search = _Search.of(question, wanted, names, farthest)
    rows = question.row_names(row_names)
    with torch.no_grad():
        found = {
            name: search.row(k) for k, name in enumerate(tqdm(rows, disable=None, leave=False))
        }
    notes = [
        "Distances are in standard deviations of the training data; a change of class counts as 1."
    ]
    if not all(each.reached for each in found.values()):
        notes.append(
            f"Not reached: not within {farthest:g} standard deviations of each cause, and its "
            "domain."
        )
    title = f"smallest change of {', '.join(names)} for {wanted.condition}"
    return SmallestChanges(title, variables, wanted.outcome, found, tuple(notes))


def _checked_causes(causes: Sequence[str], goal: _Goal, model: Model) -> tuple[str, ...]:
    ensemble = ensemble_of(model)
    target = goal.outcome.names[0]
    if not causes:
        raise ValueError("causes: expected at least one variable that may change, but got none.")
    for name in causes:
        check_known("causes", name, ensemble.graph.nodes)
        if name == target:
            raise ValueError(f"causes: expected causes of {target}, but got {target} itself.")
        if name not in ensemble.graph.ancestors(target):
            known = ", ".join(sorted(ensemble.graph.ancestors(target))) or "it has none"
            raise ValueError(
                f"causes: expected causes of {target} ({known}), but got {name}: the graph has no "
                f"directed path from {name} to {target}, so that no change of it has an effect."
            )
        if ensemble.variables[name].domain.shape != (1,):
            raise ValueError(f"causes: expected numbers or classes, but {name} is an image.")
    return tuple(dict.fromkeys(causes))


@dataclass(frozen=True)
class _Goal:
    """A condition as a number that has to reach 0 from below: how much is missing."""

    condition: Condition
    outcome: Outcome
    sign: float
    value: float
    is_equality: bool = False

    @classmethod
    def read(cls, text: str, variables: Mapping[str, Variable]) -> _Goal:
        condition = Condition.parse(text, variables, "goal")
        if len(condition.comparisons) != 1:  # none for an expression
            raise ValueError(f"goal: expected one comparison, but got {text!r}.")
        (only,) = condition.comparisons
        variable = only.variable
        if variable.classes or variable.domain.categories:
            return cls(condition, Outcome.true(condition), 1.0, 0.5)
        outcome = Outcome.of(f"`{variable.name}`", variables)
        if only.operator == "≠":
            raise ValueError(f"goal: expected =, >, >=, < or <=, but got {text!r}.")
        sign = -1.0 if only.operator in ("≤", "<") else 1.0
        return cls(condition, outcome, sign, only.value, only.operator == "=")

    def of_row(self, before: float) -> Callable[[Tensor], Tensor]:
        """From outcomes to what is missing, at most 0 once the goal is reached."""
        sign = self.sign
        if self.is_equality:
            sign = 1.0 if before <= self.value else -1.0
        return lambda outcome: sign * (self.value - outcome)


@dataclass(frozen=True)
class _Search:
    """A direct search: the shortest shift along many directions, refined around the best one."""

    question: EffectQuestion
    goal: _Goal
    numbers: tuple[str, ...]
    classes: tuple[str, ...]
    deviations: Mapping[str, float]
    limits: Mapping[str, tuple[float, float]]
    farthest: float

    @classmethod
    def of(
        cls, question: EffectQuestion, goal: _Goal, names: Sequence[str], farthest: float
    ) -> _Search:
        scm = question.scm
        classes = tuple(n for n in names if scm[n].domain.categories)
        numbers = tuple(n for n in names if n not in classes)
        deviations, limits = _training_spread(question, numbers)
        return cls(question, goal, numbers, classes, deviations, limits, farthest)

    def row(self, row: int) -> SmallestChange:
        """The smallest change of one observation."""
        question = self.question
        one = {n: v[row : row + 1] for n, v in (question.observed or {}).items()}
        with question.random(row):
            units = [
                Units.observed(
                    scm, one, question.settings.num_particles, question.settings.resample
                )
                for scm in question.ensemble.members
            ]
            at = _Row(self, units)
            return at.search()

    def shifted(self, scm: StructuralCausalModel, shifts: Tensor) -> dict[str, Any]:
        """Interventions that shift the numbers of each unit, ``(U, k)`` in deviations."""
        return {
            name: _Shift(scm[name].domain, shifts[:, k : k + 1] * self.deviations[name])
            for k, name in enumerate(self.numbers)
        }


@dataclass(frozen=True)
class _Shift:
    """x ↦ x + amount, moved to the nearest value of the domain."""

    domain: Domain
    amount: Tensor

    def __call__(self, value: Tensor) -> Tensor:
        domain, changed = self.domain, value + self.amount.to(value)
        step = domain.step or (1.0 if domain.whole else None)
        if step is not None:
            changed = torch.where(self.amount == 0, value, (changed / step).round() * step)
        changed = changed.clamp(domain.lower, domain.upper)
        if step is not None and math.isfinite(domain.lower):
            changed = torch.maximum(changed, torch.full_like(changed, domain.lower))
        return domain.moved_inside(changed)


class _Row:
    """The search for one observation."""

    def __init__(self, search: _Search, units: Sequence[Units]) -> None:
        self.search_of, self.units = search, units
        self.count = len(search.numbers)
        scm = units[0].scm
        factual = units[0].factual
        self.before = {
            name: float(factual[name][0, 0]) for name in (*search.numbers, *search.classes)
        }
        self.domains = [int(scm[n].domain.categories or 0) for n in search.classes]
        self.natural = tuple(self.before[name] for name in search.classes)
        start = self._outcome(torch.zeros(1, self.count), self.natural)
        self.missing = search.goal.of_row(float(start))
        self.start = float(start)

    def search(self) -> SmallestChange:
        """The smallest change over all exchanges of classes."""
        if float(self.missing(torch.tensor(self.start))) <= 0:
            return self._result(True, torch.zeros(self.count), self.natural, self.start)
        best: tuple[float, Tensor, tuple[float, ...], float] | None = None
        missing = float(self.missing(torch.tensor(self.start)))
        nearest = missing, torch.zeros(self.count), self.natural, self.start
        for classes in self._exchanges():
            cost = self._class_cost(classes)
            if best is not None and cost >= best[0]:
                continue
            found, near = self._over_numbers(classes)
            if found is not None:
                distance = math.hypot(float(found[0].norm()), cost)
                if best is None or distance < best[0]:
                    best = distance, found[0], classes, found[1]
            if near[0] < nearest[0]:
                nearest = (near[0], near[1], classes, near[2])
        if best is None:
            return self._result(False, nearest[1], nearest[2], nearest[3])
        return self._result(True, best[1], best[2], best[3])

    def _exchanges(self) -> list[tuple[float, ...]]:
        """Values of the classes, those with fewest changes first."""
        found = [tuple(map(float, each)) for each in product(*map(range, self.domains))]
        return sorted(found, key=self._class_cost)

    def _class_cost(self, classes: Sequence[float]) -> float:
        names = self.search_of.classes
        changed = sum(self.before[n] != c for n, c in zip(names, classes, strict=True))
        return math.sqrt(changed) * _CLASS_COST

    def _over_numbers(
        self, classes: tuple[float, ...]
    ) -> tuple[tuple[Tensor, float] | None, tuple[float, Tensor, float]]:
        """The shortest shift with its outcome, and the nearest one, under fixed classes."""
        farthest = self.search_of.farthest
        if not self.count:
            outcome = self._outcome(torch.zeros(1, 0), classes)
            lacking, nothing = float(self.missing(outcome)), torch.zeros(0)
            found = (nothing, float(outcome)) if lacking <= 0 else None
            return found, (lacking, nothing, float(outcome))
        directions = self._directions()
        reach = farthest * directions.abs().amax(dim=1, keepdim=True).reciprocal()
        # More radii near zero, and zero itself, which reaches the goal if a class does.
        shares = torch.linspace(0, 1, _RADII).square()
        shifts = directions[:, None] * (reach * shares)[..., None]
        outcomes = self._outcome(shifts.flatten(0, 1), classes).view(len(directions), -1)
        missing = self.missing(outcomes)
        near = int(missing.argmin())
        nearest = (
            float(missing.flatten()[near]),
            shifts.flatten(0, 1)[near],
            float(outcomes.flatten()[near]),
        )
        hits = missing <= 0
        if not bool(hits.any()):
            return None, nearest
        first = hits.int().argmax(dim=1)
        radii = (reach * shares).gather(1, first[:, None])[:, 0]
        radii = torch.where(hits.any(dim=1), radii, torch.inf)
        below = (reach * shares).gather(1, (first - 1).clamp(min=0)[:, None])[:, 0]
        chosen = radii.argsort()[:8]
        chosen = chosen[radii[chosen].isfinite()]
        best = self._halved(directions[chosen], below[chosen], radii[chosen], classes)
        for k in range(_ROUNDS if self.count > 1 else 0):
            best = self._refined(best, 0.4 * 0.45**k, classes)
        return (best, float(self._outcome(best[None], classes))), nearest

    def _directions(self) -> Tensor:
        axes = torch.cat([torch.eye(self.count), -torch.eye(self.count)])
        if self.count == 1:
            return axes
        drawn = torch.randn(_DIRECTIONS, self.count)
        return torch.cat([axes, drawn / drawn.norm(dim=1, keepdim=True)])

    def _halved(
        self, directions: Tensor, low: Tensor, high: Tensor, classes: tuple[float, ...]
    ) -> Tensor:
        """The shortest shift along directions that reach the goal between two radii."""
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            outcome = self._outcome(directions * middle[:, None], classes)
            reached = self.missing(outcome) <= 0
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        best = int(high.argmin())
        return directions[best] * high[best]

    def _refined(self, best: Tensor, width: float, classes: tuple[float, ...]) -> Tensor:
        """A shorter shift near the direction of the best one, if there is any."""
        radius = best.norm()
        if float(radius) == 0:
            return best
        drawn = best / radius + width * torch.randn(_DIRECTIONS, self.count)
        directions = drawn / drawn.norm(dim=1, keepdim=True)
        inside = (directions * radius).abs().amax(dim=1) <= self.search_of.farthest
        directions = directions[inside]
        if not len(directions):
            return best
        reached = self.missing(self._outcome(directions * radius, classes)) <= 0
        directions = directions[reached]
        if not len(directions):
            return best
        low, high = torch.zeros(len(directions)), radius.expand(len(directions))
        found = self._halved(directions, low, high, classes)
        return found if found.norm() < radius else best

    def _outcome(self, shifts: Tensor, classes: tuple[float, ...]) -> Tensor:
        """The mean outcome over particles and models for each shift ``(S, k)``, ``(S,)``."""
        search = self.search_of
        elements = sum(self.units[0].scm[n].domain.features for n in self.units[0].scm.graph)
        step = max(1, 2**20 // (elements * self.units[0].particles))
        return torch.cat(
            [self._some_outcomes(search, each, classes) for each in shifts.split(step)]
        )

    def _some_outcomes(self, search: _Search, shifts: Tensor, classes: tuple[float, ...]) -> Tensor:
        found = torch.zeros(len(shifts), dtype=torch.float64)
        for weight, units in zip(search.question.ensemble.weights, self.units, strict=True):
            some = units.taken(torch.arange(units.particles).repeat_interleave(len(shifts)))
            do = search.shifted(units.scm, shifts.repeat(units.particles, 1))
            # A class that stays is not intervened on.
            do |= {
                name: value
                for name, value in zip(search.classes, classes, strict=True)
                if value != self.before[name]
            }
            values = search.goal.outcome(some.under(do))
            found += weight * values.cpu().view(units.particles, -1).mean(dim=0)
        return found

    def _result(
        self, reached: bool, shift: Tensor, classes: tuple[float, ...], outcome: float
    ) -> SmallestChange:
        search, units = self.search_of, self.units[0]
        do = search.shifted(units.scm, shift[None]) if bool(shift.any()) else {}
        exchanged = {
            name: value
            for name, value in zip(search.classes, classes, strict=True)
            if value != self.before[name]
        }
        values = units.taken(torch.zeros(1, dtype=torch.int64)).under({**do, **exchanged})
        after = {name: float(values[name][0, 0]) for name in self.before}
        distance = math.hypot(float(shift.norm()), self._class_cost(classes))
        shifted = [name for name, each in zip(search.numbers, shift, strict=True) if each != 0]
        beyond = any(
            not search.limits[name][0] <= after[name] <= search.limits[name][1]
            for name in shifted
            if name in search.limits
        )
        changed = (*shifted, *exchanged)
        return SmallestChange(reached, distance, self.before, after, changed, outcome, beyond)


def _training_spread(
    question: EffectQuestion, names: Sequence[str]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The standard deviations of numbers in the training data, and their limits.

    Without a training distribution, of rows that the model draws.
    """
    scm = question.scm
    kept = scm.training_distribution
    if not kept.is_known:
        with question.random(1), torch.no_grad():
            drawn = scm.restrict(names).sample(_FEWEST_DRAWS) if names else {}
        deviations = {name: float(drawn[name].double().std()) for name in names}
        return {n: each or 1.0 for n, each in deviations.items()}, {}
    deviations = {name: kept.deviation_of(name) for name in names}
    return {n: each or 1.0 for n, each in deviations.items()}, {n: kept.limits(n) for n in names}
