"""The pictures of an evaluation."""

from deepscm_pl.evaluation.pictures.coverage import draw_coverage, has_coverage
from deepscm_pl.evaluation.pictures.densities import draw_densities
from deepscm_pl.evaluation.pictures.errors import draw_errors
from deepscm_pl.evaluation.pictures.examples import draw_examples
from deepscm_pl.evaluation.pictures.noise import draw_noise

__all__ = [
    "draw_coverage",
    "draw_densities",
    "draw_errors",
    "draw_examples",
    "draw_noise",
    "has_coverage",
]
