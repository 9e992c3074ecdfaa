"""Whether a data set is one that the model can explain, before any training."""

from __future__ import annotations

from torch import Tensor

from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import Split
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Domain

__all__ = ["check_classes", "check_rows"]


def check_classes(scm: StructuralCausalModel, data: CausalDataModule) -> None:
    """Raise unless variables that are classes have mechanisms of as many classes.

    Args:
        scm: The model.
        data: The data, which know the names of the classes.

    Raises:
        ValueError: Naming the variable, its classes and its mechanism.
    """
    for name, classes in data.class_names.items():
        if name not in scm.graph.nodes or scm[name].domain.categories == len(classes):
            continue
        fitting = (
            "Bernoulli" if len(classes) == 2 else f"Categorical with categories: {len(classes)}"
        )
        raise ValueError(
            f"mechanisms: {name} is one of {len(classes)} classes ({', '.join(classes)}), but "
            f"{type(scm[name]).__name__} expects {scm[name].domain}; give it "
            f"deepscm_pl.mechanisms.{fitting}, or declare it of another kind."
        )


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
            names = data.identifiers(split)
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
