"""Average, conditional and individual effects of an intervention on an outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.effects.outcome import Outcome, check_known
from deepscm_pl.effects.result import EffectEstimate, Effects, Replicates, ratio
from deepscm_pl.effects.support import notes_on_support
from deepscm_pl.effects.units import (
    Columns,
    EffectQuestion,
    EffectSettings,
    Model,
    Units,
    ensemble_of,
    read_do,
)
from deepscm_pl.graph import CausalGraph
from deepscm_pl.interventions import format_do, read_variables
from deepscm_pl.numerals import format_number
from deepscm_pl.variables import Do, Variable

__all__ = [
    "Contrast",
    "average_effect",
    "individual_effects",
    "notes_on_question",
    "notes_on_rows",
]

_MOST_VALUES = 10
"""Different values of a number that are groups of their own, at most."""
_MOST_GROUPS = 20
"""Groups of equal size, at most; a larger number is a limit."""
_FEW = 30
"""Rows below which an estimate of a group is called rough."""


@dataclass(frozen=True)
class Contrast:
    """An outcome under an intervention, and under another one or none.

    Attributes:
        outcome: The outcome.
        do: The intervention.
        versus: The intervention that it is compared with; empty for none.
        variables: The variables of the model.
        graph: The causal graph.
    """

    outcome: Outcome
    do: Do
    versus: Do
    variables: Mapping[str, Variable]
    graph: CausalGraph

    @classmethod
    def read(
        cls, model: Model, outcome: str | Outcome, do: Do | str, versus: Do | str | None
    ) -> Contrast:
        """Read a question.

        Raises:
            ValueError: If a name is unknown, an intervention is not valid, or the outcome is a
                variable that is intervened on.
        """
        first = ensemble_of(model)
        made = cls(
            Outcome.of(outcome, first.variables),
            read_do(model, do),
            read_do(model, versus),
            first.variables,
            first.graph,
        )
        if not made.do:
            raise ValueError("do: expected an intervention, but got none; give one, such as a=1.")
        for name in made.outcome.names:
            if name in made.changed:
                raise ValueError(
                    f"outcome: expected a variable that is not intervened on, but got {name}: the "
                    "effect of a variable on itself is the intervention; name one of its effects"
                    f"{_listed(sorted(made.graph.descendants(name)))}."
                )
        return made

    @property
    def changed(self) -> tuple[str, ...]:
        """The variables of both interventions."""
        return tuple(dict.fromkeys([*self.do, *self.versus]))

    @property
    def names(self) -> tuple[str, ...]:
        """The variables that the question needs."""
        return (*self.outcome.names, *read_variables(self.do), *read_variables(self.versus))

    @property
    def has_path(self) -> bool:
        """Whether a directed path leads from an intervened variable to the outcome."""
        return bool(self.graph.descendants(*self.changed) & set(self.outcome.names))

    @property
    def no_path(self) -> str:
        """The reason why the effect is exactly zero."""
        return (
            f"The effect is exactly 0: the graph has no directed path from "
            f"{' or '.join(self.changed)} to {' or '.join(self.outcome.names)}."
        )

    @property
    def titles(self) -> tuple[str, str]:
        """Both interventions as titles."""
        versus = format_do(self.versus, self.variables) if self.versus else "no intervention"
        return format_do(self.do, self.variables), versus

    @property
    def title(self) -> str:
        """The question in words."""
        return f"effect of {self.titles[0]} against {self.titles[1]} on {self.outcome.label}"

    def ask(self, units: Units) -> dict[str, Tensor]:
        """The outcome of each unit under both interventions, and their difference."""
        do = self.outcome(units.under(self.do))
        versus = self.outcome(units.under(self.versus)) if self.has_path else do
        return {"do": do, "versus": versus, "effect": do - versus}


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else "; it has none in this graph"


def average_effect(
    model: Model,
    outcome: str | Outcome,
    do: Do | str,
    versus: Do | str | None = None,
    by: str | None = None,
    observed: Any = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """The average effect of an intervention, E[Y | do(a)] − E[Y | do(b)], also in groups.

    Args:
        model: The model, or several.
        outcome: A variable; an image stands for its mean grey level; a condition for its
            probability, such as ``"volume > 1000"`` or ``"sex=male"``.
        do: The intervention, as a mapping or as text.
        versus: The other intervention; None for none.
        by: A variable by whose classes, or quarters, rows are grouped; ``"age:3"`` for three groups
            of equal size (up to 20), ``"age:40,60"`` for limits (``"age:4,"`` for a single one).
            Rows are grouped by their values without an intervention.
        observed: Observations to average over, by their counterfactuals: tensors ``(N, *event)``
            of these variables and their causes, a data frame, or lists; None to draw rows from the
            model. Missing values, NaN, are inferred.
        settings: Rows, seed and intervals.

    Returns:
        Estimates of the outcome under ``do`` and under ``versus``, of the ``effect`` and, with
        ``by``, of that in each group. Intervals are those of resampled rows and, if there are
        several, models; the error of a single model is not in them.

    Raises:
        ValueError: If a name is unknown, an intervention or a condition is not valid, or the
            outcome is intervened on.

    Example:
        >>> from functools import partial
        >>> from torch.distributions import AffineTransform
        >>> from deepscm_pl.mechanisms import AffineFlow, Known
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> twice = partial(Known, layers=lambda parents: [AffineTransform(2 * parents["a"], 1.0)])
        >>> scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": twice})
        >>> effect = average_effect(scm, "b", {"a": 3.0}, {"a": 0.0})
        >>> round(effect["effect"].value, 4)
        6.0
    """
    contrast = Contrast.read(model, outcome, do, versus)
    groups = None if by is None else _Groups.read(by, contrast.variables)
    names = [*contrast.names, *([groups.variable.name] if groups else [])]
    question = EffectQuestion.of(model, names, settings, observed)

    def ask(units: Units) -> dict[str, Tensor]:
        found = contrast.ask(units)
        return found | ({"by": groups.value(units)} if groups else {})

    columns = question.collect(ask)
    notes = notes_on_question(question, contrast)
    sizes: dict[str, int] = {}
    if groups:
        columns, sizes = groups.divided(columns)
        notes += groups.notes(contrast, sizes)
    estimates = _in_groups(contrast, Replicates(question, columns), sizes)
    return Effects(
        contrast.title,
        contrast.outcome,
        estimates,
        tuple(notes),
        question.settings.level,
        tuple(name for name in estimates if name.startswith("effect")),
        {} if question.is_drawn else _rows(question, columns, contrast, question.row_names()),
    )


def _in_groups(
    contrast: Contrast, replicates: Replicates, sizes: Mapping[str, int]
) -> dict[str, EffectEstimate]:
    """The outcome under both interventions, the effect, and that in groups of some sizes."""
    unit = contrast.outcome.unit
    first, second = contrast.titles
    names = {f"under {first}": "do", f"under {second}": "versus", "effect": "effect"}
    return {
        name: replicates.estimate(itemgetter(column), unit=unit) for name, column in names.items()
    } | {
        f"effect, {text}": replicates.estimate(ratio(f"{text} effect", text), rows, unit)
        for text, rows in sizes.items()
    }


def individual_effects(
    model: Model,
    outcome: str | Outcome,
    do: Do | str,
    versus: Do | str | None = None,
    observed: Any = None,
    row_names: Sequence[str] | None = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """The effect on each observation: the difference of its two counterfactuals.

    Its interval is that of the particles and models, the noise that the observation does not
    determine; without any, both ends are the estimate.

    Args:
        model: The model, or several.
        outcome: As of :func:`average_effect`.
        do: The intervention.
        versus: The other intervention; None for the observation itself.
        observed: Observations, as of :func:`average_effect`.
        row_names: A name for each observation; labels of a data frame or numbers by default.
        settings: Particles, seed and intervals.

    Raises:
        ValueError: As of :func:`average_effect`, and without observations.
    """
    if observed is None:
        raise ValueError("observed: expected observations, but got none; give some.")
    contrast = Contrast.read(model, outcome, do, versus)
    question = EffectQuestion.of(model, contrast.names, settings, observed)
    columns, pooled = _with_particles(question, contrast)
    names = question.row_names(row_names)
    tail = (1 - question.settings.level) / 2
    low, high = np.quantile(pooled, [tail, 1 - tail], axis=0)
    means = [each["effect"] for each in columns]
    value = np.average(means, axis=0, weights=question.ensemble.weights)
    estimates = {
        name: EffectEstimate(
            float(value[k]),
            float(low[k]),
            float(high[k]),
            1,
            tuple(float(each[k]) for each in means),
            contrast.outcome.unit,
        )
        for k, name in enumerate(names)
    }
    dos = [contrast.do, contrast.versus]
    notes = notes_on_support(question, dos) if contrast.has_path else [contrast.no_path]
    if len(pooled) == 1:
        notes.append(
            "One particle of one model: the intervals have no width; more particles "
            "(num_particles) or several models give them one."
        )
    return Effects(
        contrast.title.replace("effect of", "individual effects of", 1),
        contrast.outcome,
        estimates,
        tuple(notes),
        question.settings.level,
        tuple(names[:40]),
        _rows(question, columns, contrast, names),
    )


def _with_particles(
    question: EffectQuestion, contrast: Contrast
) -> tuple[list[Columns], NDArray[np.float64]]:
    """The outcomes and the effect on each row, and the effects of all particles, ``(P, N)``."""
    particles: list[list[Tensor]] = [[] for _ in question.ensemble.members]

    def ask(units: Units) -> dict[str, Tensor]:
        found = contrast.ask(units)
        member = question.ensemble.members.index(units.scm)
        particles[member].append(found["effect"].view(units.particles, -1))
        return found

    columns = question.collect(ask)
    draws = [torch.cat(each, dim=1).cpu().numpy() for each in particles]
    counts = question.ensemble.share(len(draws) * len(draws[0]))
    # Each model gives particles by its weight, as an ensemble does.
    return columns, np.concatenate(
        [np.resize(each, (max(n, 1), each.shape[1])) for each, n in zip(draws, counts, strict=True)]
    )


def _rows(
    question: EffectQuestion, columns: Sequence[Columns], contrast: Contrast, names: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """The outcome of each observation under both interventions, and the effect."""
    titles = dict(zip(("do", "versus"), contrast.titles, strict=True)) | {"effect": "effect"}
    return {"observation": names} | {
        title: np.average(
            [each[key] for each in columns], axis=0, weights=question.ensemble.weights
        ).tolist()
        for key, title in titles.items()
    }


def notes_on_question(question: EffectQuestion, contrast: Contrast) -> list[str]:
    """Sentences about the reason for an effect of zero, the intervals, and the training data."""
    if not contrast.has_path:
        return [contrast.no_path]
    return [*notes_on_rows(question), *notes_on_support(question, [contrast.do, contrast.versus])]


def notes_on_rows(question: EffectQuestion) -> list[str]:
    """Sentences about what the intervals contain."""
    rows = f"{question.rows:,} rows"
    of_rows = f"{rows} that the model draws" if question.is_drawn else f"{rows} observed"
    if len(question.ensemble.members) > 1:
        return [f"Intervals: bootstrap over {of_rows}, and over the models."]
    return [
        f"Intervals: bootstrap over {of_rows}; the error of the model itself is not in them "
        "(several models show it)."
    ]


@dataclass(frozen=True)
class _Groups:
    """Groups of rows by the values of a variable: by class, by value, or between limits."""

    variable: Variable
    limits: tuple[float, ...] = ()
    count: int = 4

    @classmethod
    def read(cls, text: str, variables: Mapping[str, Variable]) -> _Groups:
        name, _, rest = text.partition(":")
        name = name.strip().strip("`")
        check_known("by", name, variables)
        variable = variables[name]
        if variable.domain.shape != (1,):
            raise ValueError(f"by: expected a number or a class, but {name} is an image.")
        if not rest:
            return cls(variable)
        try:
            numbers = tuple(float(each) for each in rest.rstrip(",").split(","))
        except ValueError:
            numbers = ()
        if rest.endswith(",") and len(numbers) == 1:
            return cls(variable, numbers)
        ascending = all(a < b for a, b in pairwise(numbers))
        is_count = len(numbers) == 1 and numbers[0] in range(2, _MOST_GROUPS + 1)
        if variable.domain.categories or not numbers or not ascending:
            raise ValueError(
                f"by: expected a class, or a number with a number of groups or limits, such as "
                f"'{name}:3' or '{name}:40,60', but got {text!r}."
            )
        return cls(variable, count=int(numbers[0])) if is_count else cls(variable, numbers)

    def value(self, units: Units) -> Tensor:
        return units.factual[self.variable.name][:, 0]

    def divided(self, columns: Sequence[Columns]) -> tuple[list[Columns], dict[str, int]]:
        """Columns with the members and their effects of each group, and the groups' sizes."""
        labels = self.labels(columns)
        inside = [{text: rule(each["by"]) for text, rule in labels.items()} for each in columns]
        divided: list[Columns] = [
            {**each}
            | {text: rows.astype(np.float64) for text, rows in groups.items()}
            | {f"{text} effect": rows * each["effect"] for text, rows in groups.items()}
            for each, groups in zip(columns, inside, strict=True)
        ]
        return divided, {text: int(rows.sum()) for text, rows in inside[0].items()}

    def labels(self, columns: Sequence[Columns]) -> dict[str, _Rule]:
        """A rule for each group by its name."""
        name = self.variable.spoken
        values = np.concatenate([each["by"] for each in columns])
        different = np.unique(values)
        is_class = bool(self.variable.domain.categories)
        if is_class or (not self.limits and len(different) <= _MOST_VALUES):
            if is_class:
                different = np.arange(float(self.variable.domain.categories or 0))
            return {
                f"{name} = {self.variable.format(value)}": _Rule(value, value)
                for value in different.tolist()
            }
        shares = np.arange(1, self.count) / self.count
        limits = self.limits or tuple(np.unique(np.quantile(values, shares)).tolist())
        ends = [-np.inf, *limits, np.inf]
        shown = [format_number(each, 4) for each in ends]
        found = {}
        for k in range(len(ends) - 1):
            text = f"{name} from {shown[k]} to {shown[k + 1]}"
            if k == 0:
                text = f"{name} below {shown[1]}"
            elif k == len(ends) - 2:
                text = f"{name} from {shown[k]}"
            found[text] = _Rule(ends[k], ends[k + 1], is_open=True)
        return found

    def notes(self, contrast: Contrast, sizes: Mapping[str, int]) -> Iterable[str]:
        """Sentences about groups that are small, or that the intervention would change."""
        for text, rows in sizes.items():
            if rows < _FEW:
                yield f"{text}: only {rows} rows; its estimate is rough."
        if self.variable.name in contrast.graph.descendants(*contrast.changed):
            yield (
                f"{self.variable.name} is an effect of {' and '.join(contrast.changed)}: rows are "
                "grouped by its value without an intervention."
            )


@dataclass(frozen=True)
class _Rule:
    """Values of a group: one, or those from a limit to below another."""

    low: float
    high: float
    is_open: bool = False

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        if not self.is_open:
            return np.isclose(values, self.low)
        return (values >= self.low) & (values < self.high)
