"""Pictures: causal graphs, grids of images, densities and noise."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.figures.density import (
        DensityPanel,
        JointPanel,
        draw_joint_densities,
        draw_marginal_densities,
        kernel_density,
    )
    from deepscm_pl.figures.graph import draw_graph
    from deepscm_pl.figures.grid import (
        GridCell,
        ImageColumn,
        ImageGrid,
        ImagePanel,
        MatrixAxis,
        draw_comparison,
        draw_grid,
        draw_grids,
        draw_image_matrix,
    )
    from deepscm_pl.figures.noise import draw_noise
    from deepscm_pl.figures.output import PlainFigure, captions, figure_to_array, save_figure
    from deepscm_pl.figures.pixels import as_pictures, middle_planes

__all__ = [
    "DensityPanel",
    "GridCell",
    "ImageColumn",
    "ImageGrid",
    "ImagePanel",
    "JointPanel",
    "MatrixAxis",
    "PlainFigure",
    "as_pictures",
    "captions",
    "draw_comparison",
    "draw_graph",
    "draw_grid",
    "draw_grids",
    "draw_image_matrix",
    "draw_joint_densities",
    "draw_marginal_densities",
    "draw_noise",
    "figure_to_array",
    "kernel_density",
    "middle_planes",
    "save_figure",
]

__getattr__ = first_use(__name__)
