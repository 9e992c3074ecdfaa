"""Interventions checked against the variables of a model and its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor
from torch.distributions import Distribution

from deepscm_pl.graph import CausalGraph
from deepscm_pl.interventions.changes import as_change
from deepscm_pl.interventions.draws import TRAIN, Draw, check_support
from deepscm_pl.interventions.expressions import Expression
from deepscm_pl.variables import Change, Seen, Variable, Variables

__all__ = ["Before", "Resolved", "changed_graph", "resolve"]

Resolved: TypeAlias = Tensor | Distribution | Change | Callable[[Tensor], Tensor]
"""A checked intervention: a tensor inside of its domain, a distribution on it, or a function."""


@dataclass(frozen=True)
class Before:
    """Values before an intervention: observations, or draws without it.

    Attributes:
        values: Every variable, ``(*batch, *event)``; None if they are unknown.
        drawn: Whether they are drawn, so that they are no factual values.
        natural: The variables that no other change reaches, with their value under these.
    """

    values: Variables | None = None
    drawn: bool = False
    natural: dict[str, Tensor] = field(default_factory=dict)

    def check(self, name: str, change: Change) -> None:
        """Raise ValueError unless these values have all that a change of a variable reads."""
        if change.factual and (self.values is None or self.drawn):
            raise ValueError(
                f"do: {name} is a function of {'its' if '' in change.factual else 'a'} factual "
                "value, which only counterfactuals have; ask for a counterfactual, or change the "
                f"value itself, such as {name}+=20."
            )
        if change.before and self.values is None:
            raise ValueError(
                f"do: {name} is changed where a condition holds before the intervention, which "
                "needs observations or draws; ask for a counterfactual, or use scm.intervene."
            )

    def seen(self, name: str, change: Change) -> Seen:
        """The values before the intervention that a change of a variable reads.

        Raises:
            ValueError: If they are unknown, or not factual where factual ones are read.
        """
        self.check(name, change)
        values = self.values or {}
        names = {*change.factual, *change.before}
        return Seen(before={each: values[each or name] for each in names})


def changed_graph(graph: CausalGraph, interventions: Mapping[str, Resolved]) -> CausalGraph:
    """The graph with an edge from every variable that a change reads to the changed variable.

    Raises:
        ValueError: If a change reads an effect of its variable, or changes read each other.

    Example:
        >>> from deepscm_pl.interventions import Conditional
        >>> shrink = Conditional(lambda volume, others: volume, reads=("sex",))
        >>> changed_graph(CausalGraph("sex; age -> volume"), {"volume": shrink}).parents["volume"]
        ('age', 'sex')
    """
    parents = graph.parents
    for name, intervention in interventions.items():
        reads = as_change(intervention).reads
        for each in reads:
            if each == name or each in graph.descendants(name):
                raise ValueError(
                    f"do({name}): the change reads {each}, which is an effect of {name}, so that "
                    f"it would be its own cause; read a variable that {name} does not affect, or "
                    f"the observed value as factual({each})."
                )
        parents[name] = (*parents[name], *(each for each in reads if each not in parents[name]))
    if parents == graph.parents:
        return graph
    try:
        return CausalGraph(parents)
    except ValueError:
        raise ValueError(
            f"do: the changes of {', '.join(interventions)} read each other in a circle; let one "
            "of them read the factual value, such as factual(age)."
        ) from None


def resolve(
    name: str,
    intervention: Draw | Distribution | Change,
    variables: Mapping[str, Variable],
    marginal: Callable[[str], Distribution],
) -> Resolved:
    """Check the variables and the distributions of an intervention.

    Args:
        name: The changed variable.
        intervention: A stochastic intervention, or a change.
        variables: The variables of the model.
        marginal: The distribution of a variable in the training data.

    Raises:
        ValueError: If a variable is unknown or an image, or a distribution has another support.
    """
    change = as_change(intervention)
    for each in {*change.reads, *change.factual, *change.before} - {""}:
        if each not in variables:
            raise ValueError(
                f"do({name}): unknown variable {each!r}; expected one of {', '.join(variables)}."
            )
        if variables[each].domain.shape != (1,):
            raise ValueError(
                f"do({name}): the change reads {each}, which is an image; read an attribute."
            )
    draws: list[Distribution] = []
    domain = variables[name].domain
    for number, draw in enumerate(change.draws):
        distribution = draw
        if isinstance(draw, Draw):
            distribution = marginal(name) if draw.family == TRAIN else draw.distribution()
        if not isinstance(change, Expression) or number in change.set_draws:
            check_support(name, distribution, domain)
        draws.append(distribution)
    if isinstance(intervention, Change):
        return intervention.with_draws(draws)
    return draws[0]
