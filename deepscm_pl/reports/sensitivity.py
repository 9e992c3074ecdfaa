"""Sensitivity to couplings: its table, its plain data and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.sensitivity import SensitivityResult
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable

__all__ = ["plain_sensitivity", "sensitivity_quantities", "sensitivity_table"]


def sensitivity_table(model: ModelOnData, results: Sequence[SensitivityResult]) -> TextTable:
    """Return a row for each intervention, effect and coupling."""
    records = []
    for each in results:
        distance, change = each.distance.mean, each.change.mean
        records.append(
            {
                "intervention": each.question.title,
                "effect": each.variable,
                "unit": _unit(model, each.variable),
                "coupling": each.coupling,
                "rows": str(each.distance.rows),
                "moves by": format_number(distance),
                "change": format_number(change),
                "moves by ÷ change": f"{distance / change:.2f}" if change > 0 else "–",
            }
        )
    title = "Sensitivity: counterfactuals under other couplings of the noise"
    return TextTable.of_records(title, records, words=4)


def _unit(model: ModelOnData, name: str) -> str:
    if name in model.scm.image_variables:
        return "grey levels"
    is_class = model.scm[name].domain.categories is not None
    return "share" if is_class else model.scm.variables[name].unit or "–"


def plain_sensitivity(results: Sequence[SensitivityResult]) -> dict[str, Any]:
    """Return the results as plain data, by intervention, effect and coupling."""
    plain: dict[str, Any] = {}
    for each in results:
        effect = plain.setdefault(each.question.text, {}).setdefault(each.variable, {})
        effect[each.coupling] = {
            "distance": each.distance.as_plain_data(),
            "change": each.change.as_plain_data(),
        }
    return plain


def sensitivity_quantities(results: Sequence[SensitivityResult]) -> dict[str, float]:
    """Return distances by their keys in TensorBoard."""
    return {
        f"sensitivity/{each.question.text}/{each.variable}/{each.coupling}": each.distance.mean
        for each in results
    }
