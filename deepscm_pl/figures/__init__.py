"""Pictures: causal graphs, grids of images, densities and noise."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.figures.density import (
        DensityPanel as DensityPanel,
        JointPanel as JointPanel,
        draw_joint_densities as draw_joint_densities,
        draw_marginal_densities as draw_marginal_densities,
        kernel_density as kernel_density,
    )
    from deepscm_pl.figures.estimates import (
        draw_changes as draw_changes,
        draw_estimates as draw_estimates,
    )
    from deepscm_pl.figures.graph import draw_graph as draw_graph
    from deepscm_pl.figures.grid import (
        GridCell as GridCell,
        ImageColumn as ImageColumn,
        ImageGrid as ImageGrid,
        ImagePanel as ImagePanel,
        MatrixAxis as MatrixAxis,
        draw_comparison as draw_comparison,
        draw_grid as draw_grid,
        draw_grids as draw_grids,
        draw_image_matrix as draw_image_matrix,
        draw_samples as draw_samples,
    )
    from deepscm_pl.figures.noise import draw_noise as draw_noise
    from deepscm_pl.figures.output import (
        PlainFigure as PlainFigure,
        captions as captions,
        figure_to_array as figure_to_array,
        save_figure as save_figure,
        thumbnail_pixels as thumbnail_pixels,
    )
    from deepscm_pl.figures.pixels import as_pictures as as_pictures, middle_planes as middle_planes

__getattr__ = first_use(__name__)
