"""The form of the mechanism of each scalar, chosen on rows that are held out from short fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.evaluation.quick_fit import MechanismRows, fit_mechanism, log_probs
from deepscm_pl.graph import CausalGraph
from deepscm_pl.mechanisms import Context
from deepscm_pl.nn.layers import NONLINEAR
from deepscm_pl.planning.plan import Plan
from deepscm_pl.planning.training import data_of, mechanism_of
from deepscm_pl.planning.wanted_graph import IMAGE
from deepscm_pl.variables import Domain

__all__ = ["Choice", "Form", "choose_forms", "with_chosen_forms"]

_FLOWS = ("AffineFlow", "SplineFlow")
_FEW_ROWS, _FOLDS = 1000, 3
_ERRORS = 2.5
"""Standard errors by which a more complex form has to be better."""
_WORST = -1e3


@dataclass(frozen=True)
class Form:
    """A form of the function from the parents to the parameters of a mechanism.

    Attributes:
        hidden: Widths of the hidden layers; empty for a linear function.
        additive: Whether the parents change the location only, not the spread and the shape.
    """

    hidden: tuple[int, ...]
    additive: bool

    def of(self, described: Mapping[str, Any] | str) -> dict[str, Any]:
        """Return the description of a mechanism with this form.

        Example:
            >>> Form((), True).of("deepscm_pl.SplineFlow")["init_args"]
            {'hidden': [], 'additive': True}
        """
        made: dict[str, Any] = (
            {"class_path": described} if isinstance(described, str) else {**described}
        )
        kind = made["class_path"].rpartition(".")[2]
        arguments = {**made.get("init_args", {})}
        if "flow" in arguments:
            arguments["flow"] = self.of(arguments["flow"])
        if kind != "SteppedFlow":
            arguments["hidden"] = list(self.hidden)
        if kind in _FLOWS:
            arguments["additive"] = self.additive
        return {**made, "init_args": arguments}

    def __str__(self) -> str:
        curve = "a network" if self.hidden else "linear"
        return f"{curve}, {'for the location only' if self.additive else 'for all parameters'}"


@dataclass(frozen=True)
class Choice:
    """The chosen form of a mechanism.

    Attributes:
        form: The form.
        reason: What the comparison on held-out rows found.
    """

    form: Form
    reason: str


def choose_forms(
    graph: CausalGraph,
    mechanisms: Mapping[str, Mapping[str, Any] | str],
    values: Mapping[str, Tensor],
    hidden: Sequence[int] = NONLINEAR,
) -> dict[str, Choice]:
    """Choose the simplest form of each mechanism that more complex ones do not clearly beat.

    Forms are fitted to some rows and compared by the log-probability of others: with fewer than
    1,000 rows in three folds, else on a quarter. A more complex form has to be better by 2.5
    standard errors of the difference.

    Args:
        graph: The causal graph.
        mechanisms: Variable to class and arguments, for scalars that only scalars cause.
        values: Variable to values ``(N, 1)``, of training and validation rows; may be missing.
        hidden: Widths of the hidden layers of networks.

    Returns:
        Variable to its form, for variables with parents.
    """
    made = {name: mechanism_of(each) for name, each in mechanisms.items()}
    domains = {name: make(Context()).domain for name, make in made.items()}
    wanted = [name for name in mechanisms if graph.parents[name]]
    found = {}
    with tqdm(wanted, desc="forms of mechanisms", disable=None, leave=False) as bar:
        for name in bar:
            parents = graph.parents[name]
            context = {parent: domains[parent] for parent in parents}
            rows = MechanismRows.of(values, name, tuple(parents))
            found[name] = _choose(mechanisms[name], context, rows, tuple(hidden))
    return found


def with_chosen_forms(plan: Plan) -> Plan:
    """Choose the forms of the mechanisms of a plan by short fits to its data, without images.

    Plans of too few rows for a network stay linear. The test split is not used.

    Raises:
        FileNotFoundError: If the table is missing.
        ValueError: If the table cannot be used.
    """
    model, graph = plan.settings["model"], CausalGraph(plan.settings["model"]["graph"])
    scalars = {name: each for name, each in model["mechanisms"].items() if name != IMAGE}
    widths = {name: _widths(each) for name, each in scalars.items()}
    if not any(widths.values()):
        return plan
    data = data_of(plan)
    splits = [data.variables("train"), data.variables("validation")]
    values = {name: torch.cat([split[name] for split in splits]) for name in scalars}
    hidden = next(each for each in widths.values() if each)
    choices = choose_forms(graph, scalars, values, hidden)
    mechanisms = {
        name: choices[name].form.of(each) if name in choices else each
        for name, each in model["mechanisms"].items()
    }
    reasons = {
        f"{where}.{name}": reason
        for variable, choice in choices.items()
        for where, name, reason in _reasons(mechanisms[variable], variable, choice)
    }
    settings = {**plan.settings, "model": {**model, "mechanisms": mechanisms}}
    return replace(plan, settings=settings, reasons={**plan.reasons, **reasons})


def _widths(described: Mapping[str, Any] | str) -> list[int]:
    """The widths of the hidden layers in the description of a mechanism."""
    if isinstance(described, str):
        return []
    arguments = described.get("init_args", {})
    found: list[int] = arguments.get("hidden") or []
    return found or _widths(arguments.get("flow", ""))


def _reasons(
    described: Mapping[str, Any], variable: str, choice: Choice
) -> Iterator[tuple[str, str, str]]:
    """The path of the arguments, their names, and the reasons for their values."""
    where, arguments = f"model.mechanisms.{variable}.init_args", described["init_args"]
    if "hidden" in arguments:
        yield where, "hidden", choice.reason
    if "flow" in arguments:
        inner = "of the same form" if "hidden" in arguments else choice.reason
        where, arguments = f"{where}.flow.init_args", arguments["flow"]["init_args"]
        yield where, "hidden", inner
    if "additive" in arguments:
        yield (
            where,
            "additive",
            (
                "the spread and the shape do not depend on the causes"
                if choice.form.additive
                else "the spread and the shape depend on the causes"
            ),
        )


def _choose(
    described: Mapping[str, Any] | str,
    domains: Mapping[str, Domain],
    rows: MechanismRows,
    hidden: tuple[int, ...],
) -> Choice:
    """Compare forms in the order of their complexity."""
    folds = _folds(len(rows))
    forms = _forms(described, hidden)
    best, of_best = forms[0], _held_out(described, forms[0], domains, rows, folds)
    notes = []
    for form in forms[1:]:
        scores = _held_out(described, form, domains, rows, folds)
        gains = scores - of_best
        gain, error = float(gains.mean()), float(gains.std() / math.sqrt(len(gains)))
        if gain > _ERRORS * error:
            best, of_best = form, scores
            notes.append(f"gains {gain:.2f} nats per row")
        elif not notes:
            change = f"{'gains only' if gain >= 0 else 'loses'} {abs(gain):.2f} ± {error:.2f}"
            notes.append(f"a more complex form {change} nats per row")
    return Choice(best, f"{best}: {notes[-1]} on held-out rows")


def _forms(described: Mapping[str, Any] | str, hidden: tuple[int, ...]) -> list[Form]:
    path = described if isinstance(described, str) else described["class_path"]
    kind = path.rpartition(".")[2]
    if kind in (*_FLOWS, "SteppedFlow", "ZeroInflatedFlow"):
        # Splines with shapes that are linear in the parents would imitate curves.
        return [Form((), True), Form(hidden, True), Form(hidden, False)]
    return [Form((), False), Form(hidden, False)]


def _folds(rows: int) -> list[tuple[Tensor, Tensor]]:
    """Rows to fit to and rows that are held out, as masks ``(N,)``."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    if rows < _FEW_ROWS:
        held_out = [order % _FOLDS == fold for fold in range(_FOLDS)]
    else:
        held_out = [order % 4 == 0]
    return [(~each, each) for each in held_out]


def _held_out(
    described: Mapping[str, Any] | str,
    form: Form,
    domains: Mapping[str, Domain],
    rows: MechanismRows,
    folds: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The log-probability of each held-out row, in the order of the folds."""
    found = []
    for some, others in folds:
        torch.manual_seed(0)
        mechanism = mechanism_of(form.of(described))(Context(domains))
        training = rows.where(some)
        mechanism.fit(training.value, training.parents)
        stop = torch.arange(len(training)) % 5 == 0
        fit_mechanism(mechanism, training.where(~stop), training.where(stop))
        found.append(log_probs(mechanism, rows.where(others)).nan_to_num(nan=_WORST))
    return torch.cat(found)
