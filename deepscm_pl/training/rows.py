"""Whether all rows of a data set are possible, before any training."""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Domain

__all__ = ["check_rows"]


def check_rows(scm: StructuralCausalModel, data: CausalDataModule, split: Split) -> None:
    """Raise unless every value in a split is one that the model holds possible.

    Args:
        scm: The model.
        data: The data.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Raises:
        ValueError: Naming the variable, the row and whose it is, what was expected and what came.
    """
    variables = data.variables(split)
    for name in scm.graph.nodes:
        if name not in variables:
            continue  # the model says what is missing
        domain = scm[name].domain
        try:
            domain.check(name, variables[name])
        except ValueError as error:
            row = _first_row_outside(domain, variables[name])
            if row is None:
                raise
            names = data.row_names(split)
            whose = "" if names is None else f" ({names[row]})"
            raise ValueError(
                f"data: row {row}{whose} of the {split} split: {error} Correct it, leave it out, "
                f"or give {name} a mechanism whose values it is one of."
            ) from None


def _first_row_outside(domain: Domain, values: Tensor) -> int | None:
    for row, value in enumerate(values):
        if not bool(domain.contains(value).all()):
            return row
    return None
