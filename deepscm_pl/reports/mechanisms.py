"""The fit of each mechanism as a table, sentences and plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepscm_pl.escaping import for_markdown
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.mechanism_fit import MechanismFit
from deepscm_pl.reports.tables import TextTable

__all__ = ["mechanism_sentences", "mechanism_table", "plain_mechanisms"]


def mechanism_table(fits: Sequence[MechanismFit]) -> TextTable:
    """Return the bound of each mechanism, and its gains over simpler forms."""
    records = [
        {
            "variable": each.variable,
            "course": "–" if each.convergence is None else each.convergence.state,
            "log p ≥": _number(each.bound),
            "gain over no parents": "–" if each.shuffled else _number(each.over_parentless),
            "over others' parents": _number(each.over_parentless) if each.shuffled else "–",
            "over linear": _number(each.over_linear),
            "nonlinear would gain": _number(each.nonlinear),
        }
        for each in fits
    ]
    title = "Mechanisms: nats per row of the validation split, ± standard error"
    return TextTable.of_records(title, records, words=2)


def _number(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.mean:.3f} ± {value.standard_error:.3f}"


def mechanism_sentences(fits: Sequence[MechanismFit]) -> str:
    """Return one sentence for each mechanism, in Markdown."""
    return "\n".join(f"- {for_markdown(each.sentence)}." for each in fits)


def plain_mechanisms(fits: Sequence[MechanismFit]) -> dict[str, Any]:
    """Return all numbers as plain data, by variable."""
    return {
        each.variable: {
            "bound": each.bound.as_plain_data(),
            "over_parentless": _plain(each.over_parentless),
            "over_linear": _plain(each.over_linear),
            "nonlinear": _plain(each.nonlinear),
            "convergence": None if each.convergence is None else each.convergence.state,
            "sentence": each.sentence,
        }
        for each in fits
    }


def _plain(value: Estimate | None) -> dict[str, float | int | None] | None:
    return None if value is None else value.as_plain_data()
