"""Probabilities that a cause was necessary, sufficient, or both, for an event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscm_pl.effects.average import Contrast, notes_on_question
from deepscm_pl.effects.outcome import Condition, Outcome
from deepscm_pl.effects.result import Effects, FunctionOfMeans, Replicates
from deepscm_pl.effects.units import Columns, EffectQuestion, EffectSettings, Model, Units
from deepscm_pl.variables import Do, Variables

__all__ = ["causes_of_event"]


def causes_of_event(
    model: Model,
    event: str | Outcome,
    do: Do | str,
    versus: Do | str,
    exposed: str | None = None,
    observed: Any = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """The probabilities of necessity and sufficiency of a cause x, against x', for an event Y.

    - ``necessity``: P(not Y under x' | x, Y): among exposed rows with the event, those that would
      not have had it under x';
    - ``sufficiency``: P(Y under x | x', not Y): among unexposed rows without the event, those that
      would have had it under x;
    - ``both``: P(Y under x, not Y under x').

    They depend on the coupling of each mechanism, which data do not determine. The bounds of Tian
    and Pearl (2000, "Probabilities of causation") hold for every coupling, and are given beside
    them where rows are exposed to exactly x or x'.

    Args:
        model: The model, or several.
        event: A condition, such as ``"volume > 1000"`` or ``"sick=yes"``.
        do: x, an intervention that sets variables.
        versus: x'.
        exposed: A condition for exposed rows, such as ``"age > 60"``, and its opposite for the
            others; by default they have exactly the values of x and of x', which numbers never
            have.
        observed: As of :func:`~deepscm_pl.effects.average_effect`.
        settings: Rows, seed and intervals.

    Raises:
        ValueError: As of :func:`~deepscm_pl.effects.average_effect`; if the outcome is no event, or
            ``exposed`` is missing.

    Example:
        >>> from functools import partial
        >>> from torch.distributions import AffineTransform
        >>> from deepscm_pl.mechanisms import Known, KnownCoin
        >>> from deepscm_pl.scm import StructuralCausalModel
        >>> shift = partial(Known, layers=lambda pa: [AffineTransform(2 * pa["x"], 1.0)])
        >>> scm = StructuralCausalModel(
        ...     "x -> y", {"x": partial(KnownCoin, probability=0.5), "y": shift}
        ... )
        >>> found = causes_of_event(scm, "y > 1", {"x": 1.0}, {"x": 0.0})
        >>> abs(found["both"].value - 0.683) < 0.02
        True
    """
    contrast = Contrast.read(model, event, do, versus)
    if contrast.outcome.condition is None:
        raise ValueError(
            f"outcome: expected an event, such as '{contrast.outcome.names[0]} > 3', but got "
            f"{contrast.outcome.name!r}; add a threshold or a class."
        )
    exposure = _Exposure.read(contrast, exposed)
    question = EffectQuestion.of(model, [*contrast.names, *exposure.names], settings, observed)

    columns = question.collect(lambda units: _joint(contrast, exposure, units))
    replicates = Replicates(question, columns)
    counts = {n: round(float(columns[0][n].sum())) for n in ("x,y", "x',y'")}
    is_binary = exposure.is_exact and bool(
        np.all([each["exposed"] + each["unexposed"] == 1 for each in columns])
    )
    names = {"necessity": counts["x,y"], "sufficiency": counts["x',y'"], "both": question.rows}
    estimates = {name: replicates.estimate(_STATISTICS[name], rows) for name, rows in names.items()}
    for name, (low, high) in (_BOUNDS if is_binary else {"both": _EXPERIMENTAL}).items():
        estimates[f"{name}, at least"] = replicates.estimate(low, names[name])
        estimates[f"{name}, at most"] = replicates.estimate(high, names[name])
    notes = [*exposure.notes(counts), *notes_on_question(question, contrast)]
    first, second = contrast.titles
    return Effects(
        f"{first} against {second} as a cause of {contrast.outcome.condition}",
        contrast.outcome,
        estimates,
        tuple(notes),
        question.settings.level,
    )


def _joint(contrast: Contrast, exposure: _Exposure, units: Units) -> dict[str, Tensor]:
    """The truth of exposure, of the event, and of what the probabilities are about, as 0 or 1."""
    x, not_x = exposure.of(units)
    y, found = contrast.outcome(units.factual), contrast.ask(units)
    y_x, y_not = found["do"], found["versus"]
    return {
        "exposed": x,
        "unexposed": not_x,
        "y": y,
        "y_x": y_x,
        "y_not": y_not,
        "x,y": x * y,
        "x',y'": not_x * (1 - y),
        "x',y": not_x * y,
        "x,y'": x * (1 - y),
        "necessary": x * y * (1 - y_not),
        "sufficient": not_x * (1 - y) * y_x,
        "both": y_x * (1 - y_not),
    }


@dataclass(frozen=True)
class _Exposure:
    """The rows that are exposed to a cause, and those that are not."""

    exposed: Condition | None
    do: Do
    versus: Do

    @classmethod
    def read(cls, contrast: Contrast, exposed: str | None) -> _Exposure:
        if exposed is not None:
            condition = Condition.parse(exposed, contrast.variables, "exposed")
            return cls(condition, contrast.do, contrast.versus)
        if not contrast.versus:
            raise ValueError("versus: expected the opposite of the cause, but got no intervention.")
        for name in contrast.changed:
            domain = contrast.variables[name].domain
            values = [each.get(name) for each in (contrast.do, contrast.versus)]
            is_class = domain.categories is not None or domain.whole or domain.step is not None
            if not is_class or any(not isinstance(each, int | float) for each in values):
                raise ValueError(
                    f"exposed: expected a condition, because rows rarely have exactly the values "
                    f"of {name} that are set; give one, such as '{name} > 3'."
                )
        return cls(None, contrast.do, contrast.versus)

    @property
    def is_exact(self) -> bool:
        """Whether exposed rows have the values of the intervention."""
        return self.exposed is None

    @property
    def names(self) -> tuple[str, ...]:
        return self.exposed.names if self.exposed else ()

    def of(self, units: Units) -> tuple[Tensor, Tensor]:
        """Whether each unit is exposed, and whether it is unexposed, as 0 or 1."""
        if self.exposed is not None:
            found = self.exposed(units.factual)
            return found.double(), (~found).double()
        x, not_x = (_equal(units.factual, each) for each in (self.do, self.versus))
        return x, not_x

    def notes(self, counts: dict[str, int]) -> Iterator[str]:
        if self.exposed is not None:
            yield f"Exposed: {self.exposed}."
        for name, key in (("necessity", "x,y"), ("sufficiency", "x',y'")):
            if counts[key] == 0:
                with_event = "exposed rows with" if key == "x,y" else "unexposed rows without"
                yield f"The {name} is unknown: there are no {with_event} the event."
        yield (
            "These depend on the coupling of the mechanisms, which data do not determine; the "
            "bounds (at least, at most) hold for every coupling."
        )


def _equal(values: Variables, do: Do) -> Tensor:
    """Whether each unit has the values that an intervention sets, as 0 or 1."""
    same = [
        torch.eq(values[name][:, 0], float(value))  # type: ignore[arg-type]
        for name, value in do.items()
    ]
    return torch.stack(same).all(dim=0).double()


_STATISTICS: dict[str, FunctionOfMeans] = {
    "necessity": lambda mean: mean["necessary"] / mean["x,y"],
    "sufficiency": lambda mean: mean["sufficient"] / mean["x',y'"],
    "both": lambda mean: mean["both"],
}


def _most(mean: Columns, *others: FunctionOfMeans) -> np.ndarray:
    return np.maximum.reduce([np.zeros_like(mean["y"]), *(each(mean) for each in others)])


def _least(mean: Columns, *others: FunctionOfMeans) -> np.ndarray:
    return np.minimum.reduce([np.ones_like(mean["y"]), *(each(mean) for each in others)])


_EXPERIMENTAL: tuple[FunctionOfMeans, FunctionOfMeans] = (
    lambda mean: _most(mean, lambda m: m["y_x"] - m["y_not"]),
    lambda mean: _least(mean, lambda m: m["y_x"], lambda m: 1 - m["y_not"]),
)
_BOUNDS: dict[str, tuple[FunctionOfMeans, FunctionOfMeans]] = {
    "necessity": (
        lambda mean: _most(mean, lambda m: (m["y"] - m["y_not"]) / m["x,y"]),
        lambda mean: _least(mean, lambda m: (1 - m["y_not"] - m["x',y'"]) / m["x,y"]),
    ),
    "sufficiency": (
        lambda mean: _most(mean, lambda m: (m["y_x"] - m["y"]) / m["x',y'"]),
        lambda mean: _least(mean, lambda m: (m["y_x"] - m["x,y"]) / m["x',y'"]),
    ),
    "both": (
        lambda mean: _most(
            mean,
            lambda m: m["y_x"] - m["y_not"],
            lambda m: m["y"] - m["y_not"],
            lambda m: m["y_x"] - m["y"],
        ),
        lambda mean: _least(
            mean,
            lambda m: m["y_x"],
            lambda m: 1 - m["y_not"],
            lambda m: m["x,y"] + m["x',y'"],
            lambda m: m["y_x"] - m["y_not"] + m["x,y'"] + m["x',y"],
        ),
    ),
}
"""Lower and upper bounds for a binary cause, for every coupling (Tian and Pearl 2000)."""
