"""Evaluations as tables, text and pictures."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.reports.densities import draw_densities as draw_densities
    from deepscm_pl.reports.examples import draw_examples as draw_examples
    from deepscm_pl.reports.pictures import (
        draw_coverage as draw_coverage,
        draw_errors as draw_errors,
        draw_noise_results as draw_noise_results,
        has_coverage as has_coverage,
    )
    from deepscm_pl.reports.report import Report as Report

__getattr__ = first_use(__name__)
