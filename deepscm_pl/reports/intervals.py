"""The table of uncertainty: spread against error, and coverage and width of intervals."""

from __future__ import annotations

from collections.abc import Sequence

from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.evaluation.results import CounterfactualResult
from deepscm_pl.reports.tables import TextTable, estimated

__all__ = ["interval_sentence", "interval_table"]

_LEVEL = 0.9


def interval_table(results: Sequence[CounterfactualResult]) -> TextTable:
    """Return the coverage and the width of intervals of each intervention, before and after."""
    records = []
    for each in results:
        found = each.intervals
        records.append(
            {
                "intervention": each.question.title,
                "spread ÷ error": estimated(found.spread_over_error),
                "particles hold": estimated(each.coverage.varying.get(_LEVEL), 1, percent=True),
                "width": estimated(found.width_of_particles, 1),
                "calibrated hold": estimated(found.covered_varying, 1, percent=True),
                "of all pixels": estimated(found.covered_all, 1, percent=True),
                "calibrated width": estimated(found.width, 1),
            }
        )
    title = "Uncertainty: true pixels inside intervals of 90 %, and their width in grey levels"
    return TextTable.of_records(title, records)


def interval_sentence(calibration: Calibration | None) -> str:
    """Describe how intervals were calibrated, or that they were not."""
    if calibration is None:
        return (
            "Intervals of the particles are lower bounds: no truth was available to calibrate "
            "them, and particles do not represent the error that they share, that of the model."
        )
    if not calibration.is_complete:
        return (
            "Intervals of the particles are lower bounds: they were calibrated on "
            f"{calibration.source} only, because no truth of interventions was available. With "
            "later visits of the same persons, set `follow_up`."
        )
    return (
        f"Intervals were calibrated on {calibration.source}, with {calibration.particles} "
        "particles, by a split-conformal factor for each intervention and group of pixels. The "
        "promise holds for new rows of the same population, not for other interventions."
    )
