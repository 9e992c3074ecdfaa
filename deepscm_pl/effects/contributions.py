"""Contributions of causes to an outcome: Shapley values over interventions or mechanisms.

The noise of a variable stands for its mechanism: it is what a variable adds to its causes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.checks import whole_number
from deepscm_pl.effects.average import Contrast, notes_on_question, notes_on_rows
from deepscm_pl.effects.outcome import Condition, Outcome
from deepscm_pl.effects.result import EffectEstimate, Effects, Replicates, ratio
from deepscm_pl.effects.shapley import EXACT_PLAYERS, shapley_values
from deepscm_pl.effects.units import (
    Columns,
    EffectQuestion,
    EffectSettings,
    Model,
    Units,
    ensemble_of,
)
from deepscm_pl.variables import Do

__all__ = [
    "contributions_of_changes",
    "contributions_to_difference",
    "contributions_to_rows",
    "contributions_to_variance",
]

_PAIRS = 2**14
"""Pairs of units of a batch, at most."""
_NUMBERS = 2**20
"""Numbers in the values of a batch of pairs, at most."""
_REPEATED, _MOST_PAIRS = 20, 2**15
"""Pairs of each unit of a group, and of all together, about."""
_GROUPS = 10
"""Groups of drawn permutations, whose difference shows their error."""
_TOTAL = "total"


def contributions_of_changes(
    model: Model,
    outcome: str | Outcome,
    do: Do | str,
    versus: Do | str | None = None,
    observed: Any = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """Divide the effect of an intervention on several variables among them.

    The worth of some variables is the outcome if only these are changed. The contributions add up
    to the ``total`` effect.

    Args:
        model: The model, or several.
        outcome: As of :func:`~deepscm_pl.effects.average_effect`.
        do: The intervention.
        versus: The other intervention; None for none.
        observed: As of :func:`~deepscm_pl.effects.average_effect`.
        settings: Rows, seed and intervals.

    Raises:
        ValueError: As of :func:`~deepscm_pl.effects.average_effect`.
    """
    contrast = Contrast.read(model, outcome, do, versus)
    question = EffectQuestion.of(model, contrast.names, settings, observed)
    players = contrast.changed

    def worth_of(units: Units) -> Callable[[frozenset[int]], Tensor]:
        def worth(coalition: frozenset[int]) -> Tensor:
            chosen = {
                name: each[name]
                for k, name in enumerate(players)
                if name in (each := contrast.do if k in coalition else contrast.versus)
            }
            return contrast.outcome(units.under(chosen))

        return worth

    game = _Game(question, contrast.outcome, players)
    replicates = Replicates(question, question.collect(lambda u: game.columns(worth_of(u))))
    title = f"contributions to the {contrast.title}"
    return game.result(title, replicates, notes_on_question(question, contrast))


def contributions_to_variance(
    model: Model,
    outcome: str | Outcome,
    settings: EffectSettings | None = None,
) -> Effects:
    """Divide the variance of an outcome among the mechanisms of its causes, in percent.

    The worth of some mechanisms is the variance that their noise explains (Owen 2014, "Sobol'
    indices and Shapley value"). The outcome itself is one of them: what its causes do not explain.

    Args:
        model: The model, or several.
        outcome: As of :func:`~deepscm_pl.effects.average_effect`.
        settings: Rows, seed and intervals.

    Raises:
        ValueError: If the outcome cannot be read.
    """
    question, found, players = _causes(model, outcome, settings)

    def ask(units: Units) -> dict[str, Tensor]:
        other = Units.drawn(units.scm, units.count)
        own, others = found(units.factual), found(other.factual)
        centred = own - own.mean()

        def worth(coalition: frozenset[int]) -> Tensor:
            mixed = units.mixed(other, [players[k] for k in coalition])
            return centred * (found(mixed) - others)

        return game.columns(worth)

    game = _Game(question, found, players)
    replicates = Replicates(question, question.collect(ask))
    title = f"contributions to the variance of {found.label}"
    return game.result(
        title, replicates, [*game.own_notes(), *notes_on_rows(question)], in_percent=True
    )


def contributions_to_rows(
    model: Model,
    outcome: str | Outcome,
    observed: Any,
    references: int = 500,
    row_names: Sequence[str] | None = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """Divide the difference of observations from the average row among the mechanisms.

    The worth of some mechanisms is the mean outcome with their noise as observed, and all other
    noise drawn (Budhathoki et al. 2022, arXiv:2112.06738). Estimates are means over the
    observations; ``rows`` has the contributions to each.

    Args:
        model: The model, or several.
        outcome: As of :func:`~deepscm_pl.effects.average_effect`.
        observed: Observations, as of :func:`~deepscm_pl.effects.average_effect`.
        references: Number of rows that are drawn from the model.
        row_names: A name for each observation; labels of a data frame or numbers by default.
        settings: Particles, seed and intervals.

    Raises:
        ValueError: If the outcome or an observation is not valid.
    """
    whole_number("references", references, least=2)
    question, found, players = _causes(model, outcome, settings, observed)
    rows = question.rows
    game = _Game(question, found, players)

    def pairs(member: int) -> _Pairs:
        scm = question.ensemble.members[member]
        with question.random(0, member):
            own, other = question.units(scm, 0, rows), Units.drawn(scm, references)
        places = np.arange(own.count * references)
        return _Pairs(own, other, places // references, places % references)

    replicates, columns, all_pairs = game.between(pairs)
    names = question.row_names(row_names)
    each = {
        name: np.average(
            [
                np.bincount(some.first % rows, column[name]) / np.bincount(some.first % rows)
                for column, some in zip(columns, all_pairs, strict=True)
            ],
            axis=0,
            weights=question.ensemble.weights,
        ).tolist()
        for name in (*players, _TOTAL)
    }
    what = f"{rows:,} observations" if rows > 1 else "one observation"
    title = f"contributions to the difference of {what} from the average in {found.label}"
    notes = [
        *game.own_notes(),
        f"The average is that of {references:,} rows that the model draws.",
    ]
    result = game.result(title, replicates, notes, {"observation": names, **each})
    return result


def contributions_to_difference(
    model: Model,
    outcome: str | Outcome,
    group: str,
    reference: str | None = None,
    observed: Any = None,
    settings: EffectSettings | None = None,
) -> Effects:
    """Divide the difference of the mean outcome of two groups of rows among the mechanisms.

    The worth of some mechanisms is the mean outcome with their noise as in one group, and all other
    noise as in the other.

    Args:
        model: The model, or several.
        outcome: As of :func:`~deepscm_pl.effects.average_effect`.
        group: A condition for the rows of one group, such as ``"sex=male"``.
        reference: A condition for those of the other; all other rows by default.
        observed: As of :func:`~deepscm_pl.effects.average_effect`.
        settings: Rows, seed and intervals.

    Raises:
        ValueError: If the outcome or a condition is not valid, or a group is empty.
    """
    variables = ensemble_of(model).variables
    chosen = Condition.parse(group, variables, "group")
    other = (
        chosen.negated() if reference is None else Condition.parse(reference, variables, "group")
    )
    question, found, players = _causes(
        model, outcome, settings, observed, (*chosen.names, *other.names)
    )
    game = _Game(question, found, players)

    def pairs(member: int) -> _Pairs:
        scm = question.ensemble.members[member]
        with question.random(0, member):
            units = question.units(scm, 0, question.rows)
        inside = [each(units.factual).nonzero()[:, 0] for each in (chosen, other)]
        for condition, each in zip((chosen, other), inside, strict=True):
            if len(each) < 2:
                raise ValueError(
                    f"group: expected at least two rows with {condition}, but got {len(each)} of "
                    f"{units.count:,}; choose another condition, or more rows."
                )
        generator = np.random.default_rng([question.settings.seed, member])
        # Each unit is in several pairs, or their chance would widen the intervals.
        most = max(map(len, inside))
        size = max(most, min(_REPEATED * most, _MOST_PAIRS))
        orders = [_repeated_orders(len(each), size, generator) for each in inside]
        return _Pairs(units.taken(inside[0]), units.taken(inside[1]), orders[0], orders[1])

    replicates, _, _ = game.between(pairs)
    title = f"contributions to the difference of {chosen} from {other} in {found.label}"
    return game.result(title, replicates, [*game.own_notes(), *notes_on_rows(question)])


def _repeated_orders(count: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """``size`` indices below ``count``, each equally often as far as possible."""
    times = -(-size // count)
    return np.concatenate([generator.permutation(count) for _ in range(times)])[:size]


def _causes(
    model: Model,
    outcome: str | Outcome,
    settings: EffectSettings | None,
    observed: Any = None,
    names: Sequence[str] = (),
) -> tuple[EffectQuestion, Outcome, tuple[str, ...]]:
    """The question, the outcome, and the outcome's variables and causes in topological order."""
    variables = ensemble_of(model).variables
    found = Outcome.of(outcome, variables)
    question = EffectQuestion.of(model, [*found.names, *names], settings, observed)
    graph = question.scm.graph
    causes = graph.ancestors(*found.names) | set(found.names)
    return question, found, tuple(name for name in graph.nodes if name in causes)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of units of two groups, by their indices ``(N,)``."""

    own: Units
    other: Units
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def batches(self) -> Iterator[tuple[Units, Units]]:
        elements = sum(self.own.scm[name].domain.features for name in self.own.scm.graph)
        step = max(1, min(_PAIRS, _NUMBERS // elements))
        for start in range(0, len(self.first), step):
            places = (each[start : start + step] for each in (self.first, self.second))
            one, two = (torch.from_numpy(each) for each in places)
            yield self.own.taken(one), self.other.taken(two)


@dataclass(frozen=True)
class _Game:
    """Shapley values of variables, as columns of each row."""

    question: EffectQuestion
    outcome: Outcome
    players: tuple[str, ...]

    def columns(self, worth: Callable[[frozenset[int]], Tensor]) -> dict[str, Tensor]:
        """The contribution of each player to each row, the total, and those of groups."""
        values, by_group = shapley_values(
            worth, len(self.players), groups=_GROUPS, seed=self.question.settings.seed
        )
        found = dict(zip(self.players, values, strict=True)) | {_TOTAL: values.sum(dim=0)}
        for g, each in enumerate([] if by_group is None else by_group):
            found |= {f"{name} {g}": one for name, one in zip(self.players, each, strict=True)}
        return found

    def between(
        self, pairs: Callable[[int], _Pairs]
    ) -> tuple[Replicates, list[Columns], list[_Pairs]]:
        """The contributions to the difference of paired units, for each model."""
        columns: list[Columns] = []
        kept = []
        with torch.no_grad():
            for member in range(len(self.question.ensemble.members)):
                some = pairs(member)
                parts = [self.columns(self._mixed_worth(*both)) for both in some.batches()]
                columns.append({n: torch.cat([p[n] for p in parts]).numpy() for n in parts[0]})
                kept.append(some)
        clusters = [(each.first, each.second) for each in kept]
        return Replicates(self.question, columns, clusters), columns, kept

    def _mixed_worth(self, own: Units, other: Units) -> Callable[[frozenset[int]], Tensor]:
        def worth(coalition: frozenset[int]) -> Tensor:
            return self.outcome(own.mixed(other, [self.players[k] for k in coalition]))

        return worth

    def own_notes(self) -> list[str]:
        """What the contribution of the outcome's own mechanism means."""
        own = [name for name in self.outcome.names if len(self.players) > 1]
        return [f"{name}: what its causes do not explain." for name in own]

    def result(
        self,
        title: str,
        replicates: Replicates,
        notes: Sequence[str],
        rows: Mapping[str, Sequence[object]] | None = None,
        in_percent: bool = False,
    ) -> Effects:
        """The contributions with the total, and the error of drawn permutations."""
        unit = "%" if in_percent else self.outcome.unit
        estimates: dict[str, EffectEstimate] = {}
        for name in (*self.players, _TOTAL):
            estimates[name] = replicates.estimate(
                ratio(name, _TOTAL, 100) if in_percent else itemgetter(name), unit=unit
            )
        if len(self.players) > EXACT_PLAYERS:
            errors = []
            for name in self.players:
                groups = [
                    replicates.estimate(itemgetter(f"{name} {g}")).value for g in range(_GROUPS)
                ]
                errors.append(float(np.std(groups, ddof=1)) / _GROUPS**0.5)
            notes = [
                *notes,
                f"{len(self.players)} players: permutations are drawn; their standard error is at "
                f"most {max(errors):.2g}.",
            ]
        return Effects(
            title,
            self.outcome,
            estimates,
            tuple(notes),
            replicates.level,
            self.players,
            rows or {},
        )
