"""Warnings about flows of variables whose values repeat, such as counts, scores and zeros."""

from __future__ import annotations

from collections.abc import Sequence

from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from deepscm_pl.escaping import for_terminal
from deepscm_pl.mechanisms import Flow
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = ["describe_repeated_values", "warn_of_repeated_values"]

_FEW_VALUES = 20
_LARGE_SHARE = 0.1
_SHOWN = 6


def warn_of_repeated_values(
    scm: StructuralCausalModel, variables: Variables, persons: Sequence[str] | None = None
) -> None:
    """Warn for each flow whose variable has few different values, or one that is frequent.

    Slices of a person repeat the values of that person: only the first row of each counts.

    A flow is a mechanism of continuous values: of repeated ones its density exceeds every
    probability, and their noise is not normal.
    """
    first = list({person: row for row, person in reversed([*enumerate(persons or ())])}.values())
    for name in scm.scalar_variables:
        values = variables[name]
        repeated = describe_repeated_values(values if persons is None else values[first])
        if repeated and isinstance(scm[name], Flow):
            rank_zero_warn(
                for_terminal(
                    f"{name}: {repeated}, but {type(scm[name]).__name__} is a mechanism of "
                    "continuous values, so that its log p is too high and its noise is not "
                    "normal; use deepscm_pl.SteppedFlow for whole numbers and other steps, "
                    "deepscm_pl.Ordinal for ordered classes (0, 1, ...), or "
                    "deepscm_pl.ZeroInflatedFlow for positive numbers with many zeros."
                )
            )


def describe_repeated_values(values: Tensor) -> str:
    """Describe the values of the training split if they repeat too much for a flow, or return "".

    They do if there are at most 20 different ones, each for at least three rows on average, or if
    one of them has at least a tenth of the rows, and at least ten rows.

    Example:
        >>> import torch
        >>> describe_repeated_values(torch.tensor([1.0, 2.0, 2.0, 5.0] * 10)[:, None])
        'there are only 3 different values in 40 training rows (1, 2, 5)'
        >>> describe_repeated_values(torch.cat([torch.zeros(10), torch.arange(90.0)])[:, None])
        '11 of 100 training rows have the same value, 0'
    """
    values = values.flatten()
    values = values[~values.isnan()]
    rows = values.numel()
    distinct, counts = values.unique(return_counts=True)
    if len(distinct) <= min(_FEW_VALUES, rows // 3):
        shown = [format_number(each) for each in distinct[:_SHOWN].tolist()]
        if len(distinct) > _SHOWN:
            shown.append("...")
        return (
            f"there are only {len(distinct)} different values in {rows} training rows "
            f"({', '.join(shown)})"
        )
    most = int(counts.max())
    if most < max(10, _LARGE_SHARE * rows):
        return ""
    value = format_number(distinct[counts.argmax()].item())
    return f"{most} of {rows} training rows have the same value, {value}"
