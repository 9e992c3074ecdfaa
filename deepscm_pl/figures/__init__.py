"""Pictures: causal graphs and grids of images."""

from deepscm_pl.figures.graph import draw_graph
from deepscm_pl.figures.grid import ImageColumn, draw_grid
from deepscm_pl.figures.output import figure_to_array, save_figure

__all__ = ["ImageColumn", "draw_graph", "draw_grid", "figure_to_array", "save_figure"]
