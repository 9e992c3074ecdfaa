"""What stands below an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepscm_pl.numerals import format_quantity
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = ["captions"]


def captions(
    scm: StructuralCausalModel,
    values: Variables,
    units: Mapping[str, str] | None = None,
    class_names: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """For each row of values its scalars, a line each.

    Args:
        scm: The model.
        values: ``(N, 1)`` of every scalar variable of the model, categories included.
        units: Of the variables that have one.
        class_names: Of the categorical variables whose classes have names.

    Returns:
        N texts, or none if the model has no scalar.

    Example:
        >>> import torch
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("age", {"age": AffineFlow})
        >>> captions(scm, {"age": torch.tensor([[61.34], [40.0]])}, {"age": "years"})
        ['age 61.3 years', 'age 40 years']
    """
    names = [name for name in scm.graph.nodes if scm[name].domain.shape == (1,)]
    lines = [
        [
            _describe(name, value, (units or {}).get(name, ""), (class_names or {}).get(name, ()))
            for value in values[name].flatten().tolist()
        ]
        for name in names
    ]
    return ["\n".join(row) for row in zip(*lines, strict=True)]


def _describe(name: str, value: float, unit: str, classes: Sequence[str]) -> str:
    # A mean over particles may lie between classes.
    if value in range(len(classes)):
        return f"{name.replace('_', ' ')} {classes[int(value)]}"
    return format_quantity(name, value, unit)
