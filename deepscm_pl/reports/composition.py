"""Composition with all noise and without pixel noise: its table and its keys."""

from __future__ import annotations

from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.run import Evaluation
from deepscm_pl.reports.tables import TextTable

__all__ = ["composition_quantities", "composition_table"]


def composition_quantities(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return both errors by their keys in JSON and TensorBoard."""
    both = {
        "composition": evaluation.composition,
        "composition/without_pixel_noise": evaluation.composition_without_pixel_noise,
    }
    return {
        f"{key}/mean_absolute_error/{count}": each
        for key, errors in both.items()
        for count, each in errors.items()
    }


def composition_table(evaluation: Evaluation) -> TextTable:
    """Return a row for the error with all noise, and one for that without pixel noise."""
    both = {
        "all noise inferred": evaluation.composition,
        "without pixel noise": evaluation.composition_without_pixel_noise,
    }
    records = [
        {
            "null intervention": name,
            "rows": str(next(iter(errors.values())).rows),
            **{
                "once" if count == 1 else f"{count} times": f"{each.mean:.3f}"
                for count, each in errors.items()
            },
        }
        for name, errors in both.items()
        if errors
    ]
    title = "Composition: error after null interventions (mean absolute, in grey levels)"
    return TextTable.of_records(title, records)
