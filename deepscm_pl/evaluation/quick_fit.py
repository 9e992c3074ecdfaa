"""Fit a mechanism of a scalar variable in seconds, for baselines and checks before a training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.nn import ParameterNetwork
from deepscm_pl.nn.layers import NONLINEAR
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training_distribution import TrainingDistribution
from deepscm_pl.variables import Variables

__all__ = [
    "MechanismRows",
    "copied",
    "fit_mechanism",
    "fit_scalars",
    "has_forms",
    "is_linear",
    "linear_form",
    "log_probs",
    "mean_log_prob",
    "nonlinear_form",
    "parentless_form",
]

_MOST_ROWS = 2000
_ROUNDS = 25  # of at most five steps each, after each of which the validation rows are asked
_PATIENCE = 2


@dataclass(frozen=True)
class MechanismRows:
    """Values of one variable and of its parents, ``(N, 1)`` each."""

    value: Tensor
    parents: Variables

    @classmethod
    def of(cls, variables: Variables, name: str, parents: tuple[str, ...]) -> MechanismRows:
        """Take the complete rows of a variable and its parents, in double precision."""
        columns = {each: variables[each].double().cpu() for each in (name, *parents)}
        complete = ~torch.cat(list(columns.values()), dim=1).isnan().any(dim=1)
        columns = {each: column[complete] for each, column in columns.items()}
        return cls(columns[name], {parent: columns[parent] for parent in parents})

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.value)

    def every(self, step: int) -> MechanismRows:
        """Every ``step``-th row."""
        return self.where(slice(None, None, step))

    def with_parents_of_others(self) -> MechanismRows:
        """Each row with the parents of the row half of all rows away."""
        half = len(self) // 2
        return replace(
            self, parents={name: each.roll(half, 0) for name, each in self.parents.items()}
        )

    def where(self, rows: Tensor | slice) -> MechanismRows:
        """Some rows, by a mask ``(N,)``, row numbers, or a range."""
        parents = {name: each[rows] for name, each in self.parents.items()}
        return replace(self, value=self.value[rows], parents=parents)


def copied(mechanism: Mechanism) -> Mechanism:
    """Copy a mechanism to the CPU, in double precision."""
    return copy.deepcopy(mechanism).cpu().double().eval()


def has_forms(mechanism: Mechanism) -> bool:
    """Whether a mechanism has networks of its parents, and so forms with simpler ones."""
    return any(isinstance(each, ParameterNetwork) for each in mechanism.modules())


def is_linear(mechanism: Mechanism) -> bool:
    """Whether the parameters of a mechanism are affine functions of its parents."""
    networks = [each for each in mechanism.modules() if isinstance(each, ParameterNetwork)]
    return all(each.is_affine for each in networks)


def linear_form(mechanism: Mechanism) -> Mechanism:
    """Copy a mechanism with affine functions of the parents in place of its networks."""
    return _with_networks(mechanism, lambda each: (each.context_features, ()))


def nonlinear_form(mechanism: Mechanism) -> Mechanism:
    """Copy a mechanism with networks of the default widths in place of its own."""
    return _with_networks(mechanism, lambda each: (each.context_features, NONLINEAR))


def parentless_form(mechanism: Mechanism) -> Mechanism:
    """Copy a mechanism with constants in place of its networks."""
    return _with_networks(mechanism, lambda each: (0, ()))


def _with_networks(
    mechanism: Mechanism, sizes: Callable[[ParameterNetwork], tuple[int, Sequence[int]]]
) -> Mechanism:
    made = copied(mechanism)
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ParameterNetwork):
                features, hidden = sizes(child)
                setattr(module, name, ParameterNetwork(features, child.parameters_count, hidden))
    return made


def fit_mechanism(
    mechanism: Mechanism, training: MechanismRows, validation: MechanismRows | None = None
) -> Mechanism:
    """Maximise the log-probability of the training rows by L-BFGS, in double precision.

    Args:
        mechanism: An explicit mechanism; it is changed.
        training: Rows to learn from; an even selection of 2,000 of them is used.
        validation: Rows that determine when to stop; None for no early stop.

    Returns:
        The mechanism.
    """
    rows = training.every(-(-len(training) // _MOST_ROWS))
    mechanism.double().train()
    parameters = [each for each in mechanism.parameters() if each.requires_grad]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=5, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = -mechanism.log_prob(rows.value, rows.parents).mean()
        if found.requires_grad:
            found.backward()
        return found

    best, kept, since = -torch.inf, copy.deepcopy(mechanism.state_dict()), 0
    with torch.enable_grad():
        for _ in range(_ROUNDS):
            asked = rows if validation is None else validation
            reached = mean_log_prob(mechanism, asked)
            if reached > best + 1e-4:
                best, kept, since = reached, copy.deepcopy(mechanism.state_dict()), 0
            elif (since := since + 1) == _PATIENCE or reached != reached:
                break
            optimiser.step(loss)
    mechanism.load_state_dict(kept)
    return mechanism.eval()


def log_probs(mechanism: Mechanism, rows: MechanismRows) -> Tensor:
    """Return log p(x | pa) of each row, ``(N,)``."""
    with torch.no_grad():
        return mechanism.log_prob(rows.value, rows.parents).expand(len(rows))


def mean_log_prob(mechanism: Mechanism, rows: MechanismRows) -> float:
    """Return the mean of log p(x | pa) in nats."""
    return float(log_probs(mechanism, rows).mean())


@torch.inference_mode(False)
def fit_scalars(
    scm: StructuralCausalModel, training: Mapping[str, Tensor], validation: Mapping[str, Tensor]
) -> StructuralCausalModel:
    """Fit the mechanisms of all scalars that no image causes, and return the model of them.

    Args:
        scm: A model, which is not changed and need not be trained.
        training: Values of the training split, ``(N, 1)``.
        validation: Values of the validation split.
    """
    images = set(scm.image_variables)
    names = [name for name in scm.scalar_variables if not scm.graph.ancestors(name) & images]
    part = copy.deepcopy(scm.restrict(names))
    part.training_distribution = TrainingDistribution({n: part[n].domain for n in part.graph})
    complete = ~torch.cat([training[name].double() for name in names], dim=1).isnan().any(dim=1)
    chosen = {name: training[name][complete] for name in names}
    part.fit(chosen)
    for name in part.graph:
        parents = part.graph.parents[name]
        fit_mechanism(
            part[name],
            MechanismRows.of(chosen, name, parents),
            MechanismRows.of(validation, name, parents),
        )
    return part.float().eval()
