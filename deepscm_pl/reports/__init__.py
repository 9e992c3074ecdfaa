"""Evaluations as tables, text and pictures."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.reports.densities import draw_densities
    from deepscm_pl.reports.examples import draw_examples
    from deepscm_pl.reports.pictures import (
        draw_coverage,
        draw_errors,
        draw_noise_results,
        has_coverage,
    )
    from deepscm_pl.reports.report import Report

__all__ = [
    "Report",
    "draw_coverage",
    "draw_densities",
    "draw_errors",
    "draw_examples",
    "draw_noise_results",
    "has_coverage",
]

__getattr__ = first_use(__name__)
