"""Grids of images: observations, interventions, reconstructions and traversals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from deepscm_pl.escaping import for_picture
from deepscm_pl.figures.grid_layout import (
    PRINT,
    THUMBNAIL,
    GridCell,
    GridLayout,
    GridStyle,
    ImageGrid,
    as_picture,
    thumbnail_grid,
)
from deepscm_pl.figures.output import PlainFigure, height_of, wrapped
from deepscm_pl.figures.pixels import (
    PLANES,
    change_colours,
    difference_limit,
    plane_boxes,
    signed_difference,
    to_rgb,
)

__all__ = [
    "GridCell",
    "GridFigure",
    "ImageColumn",
    "ImageGrid",
    "ImagePanel",
    "MatrixAxis",
    "draw_comparison",
    "draw_grid",
    "draw_grids",
    "draw_image_matrix",
    "draw_samples",
]

_BAR_WIDTH = 0.1
"""Width of a colour bar, in inches; one of three colours is three times as wide."""
_DIVERGING, _MARK = colormaps["RdBu_r"], "#d95f02"


@dataclass(frozen=True)
class _Colours:
    """The colours of differences, the same in all cells.

    Attributes:
        levels: Number of grey levels.
        limit: The difference of the darkest colours; 0 without differences.
        label: Label of the colour bar.
        is_coloured: Whether the images have three channels.
    """

    levels: int
    limit: float
    label: str
    is_coloured: bool

    @classmethod
    def of(cls, grids: Sequence[ImageGrid], levels: int, label: str) -> _Colours:
        """Choose the limit of the colours from all differences."""
        cells = [cell for grid in grids for row in grid.rows for cell in row]
        changes = [signed_difference(*cell.difference) for cell in cells if cell.difference]
        limit = difference_limit(np.stack(changes), levels) if changes else 0.0
        return cls(levels, limit, label, bool(changes) and changes[0].ndim == 3)


class GridFigure(PlainFigure):
    """A figure of grids, which can be drawn again for the small pictures of TensorBoard."""

    grids: Sequence[ImageGrid] = ()
    levels: int = 256
    difference_label: str = ""

    def thumbnail(self) -> GridFigure:
        """Draw the first grid with at most three rows, without captions, in large letters."""
        return _draw([thumbnail_grid(self.grids[0])], self.levels, "", 1, THUMBNAIL)


def draw_grids(
    grids: Sequence[ImageGrid],
    levels: int = 256,
    difference_label: str = "change of grey level",
    panels_per_row: int = 1,
) -> Figure:
    """Draw grids of the same layout, with a colour bar beside each row of differences.

    Images are as wide as the texts above and below them, up to 1.6 inches; longer texts are broken
    into lines. Volumes are drawn as planes, of which the first column has letters for the sides.

    Args:
        grids: At least one; images have one shape, and all grids have as many rows and columns.
        levels: Number of grey levels; black is 0, white is ``levels`` − 1.
        difference_label: Label of the colour bar.
        panels_per_row: Number of grids beside each other.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 8, 8)
        >>> grid = ImageGrid([[GridCell([image], difference=(image, image), caption="age 40")]])
        >>> len(draw_grids([grid]).axes)
        2
    """
    return _draw(grids, levels, difference_label, panels_per_row, PRINT)


def _draw(
    grids: Sequence[ImageGrid], levels: int, label: str, panels_per_row: int, style: GridStyle
) -> GridFigure:
    colours = _Colours.of(grids, levels, label)
    layout = GridLayout(grids, style, label, _bar_width(colours))
    down = math.ceil(len(grids) / panels_per_row)
    size = (layout.width * panels_per_row, layout.height * down)
    figure = GridFigure(figsize=size, dpi=style.dots_per_inch)
    figure.grids, figure.levels, figure.difference_label = grids, levels, label
    for k, grid in enumerate(grids):
        row, column = divmod(k, panels_per_row)
        corner = (
            column * layout.width + layout.left,
            (down - 1 - row) * layout.height + layout.bottom,
        )
        size = (layout.width - layout.left, layout.rows_height)
        _draw_grid(_add_axes(figure, corner, size), grid, layout, colours)
        for place in _bar_places(grid, layout, colours):
            left, right, low, high = place
            # Positions of the layout run downwards from the upper end of the axes.
            at = (corner[0] + left, corner[1] + layout.rows_height - low)
            _draw_bar(_add_axes(figure, at, (right - left, low - high)), colours, layout)
    return figure


def _bar_width(colours: _Colours) -> float:
    return _BAR_WIDTH * (3 if colours.is_coloured else 1) if colours.limit else 0.0


def _bar_places(
    grid: ImageGrid, layout: GridLayout, colours: _Colours
) -> Iterator[tuple[float, ...]]:
    """Left, right, lower and upper end of the colour bar of each row with differences.

    It stands left of the first difference in the empty place below the reference, if the first
    column is one, and otherwise at the right end of the row.
    """
    for n, row in enumerate(grid.rows):
        if not any(cell.difference for cell in row):
            continue
        _, right, low, high = layout.box(n, 0, layout.images - 1)
        letters = height_of(["R"], layout.style.caption) if colours.is_coloured else 0.0
        low, high = low - 0.04 - letters, high + 0.04
        end = right if layout.has_reference else layout.bars + layout.bar_width
        yield end - layout.bar_width, end, low, high


def _draw_bar(axes: Axes, colours: _Colours, layout: GridLayout) -> None:
    limit, style = colours.limit, layout.style
    changes = np.linspace(-limit, limit, 256)[:, None]
    if colours.is_coloured:
        pixels = change_colours(changes[..., None] * np.eye(3), limit)
    else:
        pixels = ScalarMappable(Normalize(-limit, limit), _DIVERGING).to_rgba(changes)
    extent = (0.0, float(pixels.shape[1]), -limit, limit)
    axes.imshow(pixels, origin="lower", extent=extent, aspect="auto", interpolation="nearest")
    names = ["R", "G", "B"] if colours.is_coloured else []
    axes.set_xticks([k + 0.5 for k in range(len(names))], names)
    ticks = {-limit: f"−{limit:g}", 0.0: "0", limit: f"{limit:g}"}
    if layout.cell_height < 3.5 * height_of(["0"], style.caption):
        del ticks[0.0]
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(labelsize=style.caption, pad=2, length=2)
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_linewidth(0.5)
    if not layout.has_reference:
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
    axes.set_ylabel(layout.bar_label, fontsize=style.caption, labelpad=2)


def _draw_grid(axes: Axes, grid: ImageGrid, layout: GridLayout, colours: _Colours) -> None:
    for n, row in enumerate(grid.rows):
        for k, cell in enumerate(row):
            _draw_cell(axes, cell, layout, (n, k), colours)
        _draw_image_names(axes, grid, layout, n)
    _draw_titles(axes, grid, layout)
    for n, mark in enumerate(grid.marks):
        below = layout.box(n, 0, layout.images - 1)[2] + 0.05
        axes.plot(layout.centre(mark), below, "^", markersize=4, color=_MARK, clip_on=False)
    _draw_ticks(axes, grid, layout)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, layout.width - layout.left)
    axes.set_ylim(layout.rows_height, 0)
    if layout.names_planes:
        _draw_plane_names(axes, grid, layout)


def _draw_image_names(axes: Axes, grid: ImageGrid, layout: GridLayout, row: int) -> None:
    """Names of the images of a cell, on the left of the first cell with several."""
    if len(grid.image_names) < 2:
        return
    left = layout.box(row, layout.named_column, 0)[0] - 0.05
    for i, name in enumerate(grid.image_names[: layout.images]):
        middle = layout.box(row, 0, i)[3] + layout.cell_height / 2
        turned = 90 if layout.has_upright_names else 0
        axes.text(left, middle, name, ha="right", va="center", rotation=turned,
                  fontsize=layout.style.text)  # fmt: skip


def _draw_titles(axes: Axes, grid: ImageGrid, layout: GridLayout) -> None:
    place: dict[str, Any] = {"ha": "center", "va": "bottom"}
    for k, title in enumerate(grid.column_titles):
        text = wrapped(title, layout.title_characters)
        above = -0.05 - layout.plane_names
        axes.text(layout.centre(k), above, text, fontsize=layout.style.text, **place)
    if grid.title:
        middle = float(np.mean([layout.centre(k) for k in range(len(grid.rows[0]))]))
        above = layout.title_height - layout.top
        axes.text(middle, above, grid.title, fontsize=layout.style.title, **place)


def _draw_ticks(axes: Axes, grid: ImageGrid, layout: GridLayout) -> None:
    style = layout.style
    centres = [layout.centre(k) for k in range(len(grid.ticks))]
    axes.set_xticks(centres, list(map(for_picture, grid.ticks)), fontsize=style.text)
    axes.set_yticks(
        [
            layout.box(n, 0, 0)[3] + max(layout.cell_height, height_of([title], style.text)) / 2
            for n, title in enumerate(grid.row_titles)
        ],
        list(map(for_picture, grid.row_titles)),
        fontsize=style.text,
    )
    axes.set_xlabel(grid.x_label, fontsize=style.title)
    axes.set_ylabel(grid.y_label, fontsize=style.title)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=72 * layout.tick_distance)
    axes.tick_params(axis="y", pad=3)


def _draw_cell(
    axes: Axes, cell: GridCell, layout: GridLayout, place: tuple[int, int], colours: _Colours
) -> None:
    left, right, _, top = layout.box(*place, 0)
    bottom = layout.box(*place, layout.images - 1)[2]
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": layout.style.text}
    if not cell.images:
        style: dict[str, Any] = {
            "facecolor": "0.95",
            "edgecolor": "0.8",
            "hatch": "///",
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, **style))
        box = {"facecolor": "0.95", "linewidth": 0, "pad": 1.5}
        axes.text((left + right) / 2, (top + bottom) / 2, cell.label, bbox=box, **text)
    pictures = [to_rgb(as_picture(image), colours.levels) for image in cell.images]
    limit = colours.limit
    if cell.difference is not None:
        change = signed_difference(*cell.difference)
        pictures.append(change if change.ndim == 2 else change_colours(change, limit))
    for i, picture in enumerate(pictures):
        # Limits and colours apply to differences of grey levels only.
        axes.imshow(picture, cmap=_DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest",
                    extent=layout.box(*place, i), aspect="auto")  # fmt: skip
    if cell.caption:
        text |= {"va": "top", "fontsize": layout.style.caption}
        caption = wrapped(cell.caption, layout.caption_characters)
        axes.text((left + right) / 2, bottom + 0.04, caption, **text)


def _draw_plane_names(axes: Axes, grid: ImageGrid, layout: GridLayout) -> None:
    """Name the planes of volumes above each column, and their sides in the first column."""
    shape = next(cell.images[0].shape for row in grid.rows for cell in row if cell.images)
    planes, (height, width) = plane_boxes(shape), _picture_size(shape)
    place: dict[str, Any] = {"ha": "center", "fontsize": layout.style.letter}

    def position(left: float, top: float, across: float, down: float) -> tuple[float, float]:
        return (
            left + across / width * layout.cell_width,
            top + down / height * layout.cell_height,
        )

    for k in range(len(grid.rows[0])):
        left, _, _, top = layout.box(0, k, 0)
        for name, (x0, x1, _, _) in zip(PLANES, planes, strict=True):
            at = position(left, top, (x0 + x1) / 2, 0)[0]
            axes.text(at, -0.03, name, va="bottom", color="0.35", **place)
    place |= {"va": "center", "color": "white"}
    outline = [withStroke(linewidth=1.2, foreground="black")]
    inset = 0.6 * layout.style.letter / 72
    for n, row in enumerate(grid.rows):
        if not row[0].images:
            continue
        left, _, _, top = layout.box(n, 0, 0)
        for (x0, x1, y0, y1), sides in zip(planes, PLANES.values(), strict=True):
            low, high = position(left, top, x0, y0), position(left, top, x1, y1)
            middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
            ends = (
                (low[0] + inset, middle[1]),
                (high[0] - inset, middle[1]),
                (middle[0], low[1] + inset),
                (middle[0], high[1] - inset),
            )
            for letter, (across, down) in zip(sides, ends, strict=True):
                axes.text(across, down, letter, path_effects=outline, **place)


def _picture_size(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the picture of an image ``(C, H, W)`` or a volume ``(C, X, Y, Z)``."""
    if len(shape) == 3:
        return shape[1], shape[2]
    x, y, z = shape[1:]
    return max(y, z), 2 * x + y + 2


def _add_axes(figure: Figure, corner: tuple[float, float], size: tuple[float, float]) -> Axes:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((corner[0] / across, corner[1] / up, size[0] / across, size[1] / up))


def draw_samples(images: Tensor, captions: Sequence[str] = (), levels: int = 256) -> Figure:
    """Draw images in rows and columns, so that the figure is about square.

    Args:
        images: Grey levels ``(N, C, H, W)``, C of 1 or 3; or volumes ``(N, C, X, Y, Z)``.
        captions: A text for each image, or none.
        levels: Number of grey levels.

    Raises:
        ValueError: If there is no image, or the captions do not fit.

    Example:
        >>> import torch
        >>> figure = draw_samples(torch.zeros(64, 1, 28, 28))
        >>> width, height = figure.get_size_inches()
        >>> bool(0.8 < width / height < 1.25)
        True
    """
    if not len(images):
        raise ValueError("images: expected at least one, but got none.")
    if captions and len(captions) != len(images):
        raise ValueError(
            f"captions: expected a text for each of {len(images)} images, but got {len(captions)}."
        )
    texts = captions or [""] * len(images)
    cells = [GridCell([image], caption=text) for image, text in zip(images, texts, strict=True)]
    columns = _square_columns(len(cells), GridLayout([ImageGrid([cells])], PRINT))
    rows = [cells[k : k + columns] for k in range(0, len(cells), columns)]
    return draw_grids([ImageGrid(rows)], levels)


def _square_columns(count: int, layout: GridLayout) -> int:
    """The number of columns of ``count`` cells in a grid that is about square and about full."""

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        aspect = columns * layout.pitch / (rows * layout.row_heights[0])
        return abs(math.log(aspect)) + 2 * (rows * columns - count) / count

    return min(range(1, count + 1), key=badness)


@dataclass(frozen=True)
class ImageColumn:
    """One column of a grid.

    Attributes:
        title: Text above the column, such as ``do(thickness = 3)``.
        images: ``(N, C, H, W)`` in grey levels, C of 1 or 3; or volumes ``(N, C, X, Y, Z)``, whose
            :func:`~deepscm_pl.figures.middle_planes` are drawn.
        captions: A text for each image, or none.
        labels: A text for each image, or none; one that is not empty replaces the image.
    """

    title: str
    images: Tensor
    captions: Sequence[str] = ()
    labels: Sequence[str] = ()

    def cell(self, n: int, reference: ImageColumn | None = None) -> GridCell:
        """The cell of an image, with its difference from that of another column."""
        caption = self.captions[n] if n < len(self.captions) else ""
        if any(self.labels[n : n + 1]):
            return GridCell([], caption=caption, label=self.labels[n])
        if reference is None or any(reference.labels[n : n + 1]):
            return GridCell([self.images[n]], caption=caption)
        return GridCell([self.images[n]], (self.images[n], reference.images[n]), caption)


def draw_grid(
    columns: Sequence[ImageColumn],
    row_labels: Sequence[str],
    title: str = "",
    differences: bool = True,
    levels: int = 256,
) -> Figure:
    """Draw a column of images for each intervention and a row for each observation.

    Args:
        columns: The first is the reference of the differences.
        row_labels: A text for each row.
        title: Title of the whole picture.
        differences: Whether to draw, under each image after the first column, its signed difference
            from the first column. The colour scale covers all grey levels, or fewer where nearly
            all differences are smaller than half of them.
        levels: Number of grey levels; black is 0, white is ``levels`` − 1.

    Raises:
        ValueError: If there is no column, or columns differ in shape.

    Example:
        >>> import torch
        >>> column = ImageColumn("factual", torch.zeros(2, 1, 8, 8))
        >>> figure = draw_grid([column, column], ["first", "second"])
    """
    _check_shapes("columns", [column.images for column in columns])
    rows = [
        [
            column.cell(n, columns[0] if differences and k else None)
            for k, column in enumerate(columns)
        ]
        for n in range(len(columns[0].images))
    ]
    return draw_grids([ImageGrid(rows, title, [c.title for c in columns], row_labels)], levels)


@dataclass(frozen=True)
class MatrixAxis:
    """A quantity that varies along one axis.

    Attributes:
        label: Its name and unit; may be empty.
        ticks: A text for each row or column.
    """

    label: str
    ticks: Sequence[str]


@dataclass(frozen=True)
class ImagePanel:
    """One matrix of images.

    Attributes:
        images: Grey levels ``(rows, columns, C, H, W)``, C of 1 or 3; or of volumes ``(rows,
            columns, C, X, Y, Z)``, whose middle planes are drawn.
        marks: For each row a position to mark, in columns from the first, or none.
    """

    title: str
    images: Tensor
    marks: Sequence[float] = ()


def draw_image_matrix(
    panels: Sequence[ImagePanel], columns: MatrixAxis, rows: MatrixAxis, levels: int = 256
) -> Figure:
    """Draw matrices of images side by side, all with the same axes.

    Raises:
        ValueError: If there is no panel, panels differ in shape, or the ticks do not fit.

    Example:
        >>> import torch
        >>> panel = ImagePanel("noise 0", torch.zeros(2, 3, 1, 8, 8))
        >>> thickness = MatrixAxis("thickness (pixels)", ["1", "2", "3"])
        >>> figure = draw_image_matrix([panel], thickness, MatrixAxis("intensity", ["200", "100"]))
        >>> figure.axes[0].get_xlabel()
        'thickness (pixels)'
    """
    down, across, *event = _check_shapes("panels", [panel.images for panel in panels])
    if (down, across) != (len(rows.ticks), len(columns.ticks)):
        raise ValueError(
            f"panels: expected a tick for each of {down} rows and {across} columns, "
            f"but got {len(rows.ticks)} and {len(columns.ticks)}."
        )
    grids = [
        ImageGrid(
            [[GridCell([image]) for image in row] for row in panel.images],
            panel.title,
            row_titles=rows.ticks,
            ticks=columns.ticks,
            x_label=columns.label,
            y_label=rows.label,
            marks=panel.marks,
        )
        for panel in panels
    ]
    panels_per_row = math.ceil(math.sqrt(len(panels))) if len(panels) > 3 else len(panels)
    # Volumes are wide: three planes beside each other.
    return draw_grids(grids, levels, panels_per_row=1 if len(event) > 3 else panels_per_row)


def draw_comparison(
    observed: Tensor, reconstructed: Tensor, labels: Sequence[str], levels: int = 256
) -> Figure:
    """Draw observations, their reconstructions, and signed differences of both below each other.

    The mean absolute difference of all pixels or voxels is written under each column.

    Args:
        observed: Grey levels ``(N, C, H, W)``, C of 1 or 3; or volumes ``(N, C, X, Y, Z)``, whose
            middle planes are drawn.
        reconstructed: Grey levels of the same shape.
        labels: A text for each observation.
        levels: Number of grey levels.

    Raises:
        ValueError: If shapes differ or the labels do not fit.

    Example:
        >>> import torch
        >>> image = torch.zeros(3, 1, 8, 8)
        >>> figure = draw_comparison(image, image + 1, ["test 0", "test 1", "test 2"])
        >>> [text.get_text() for text in figure.axes[0].get_xticklabels()]
        ['1.0', '1.0', '1.0']
    """
    if observed.shape != reconstructed.shape or len(labels) != len(observed):
        raise ValueError(
            "reconstructed: expected one image and one label for each observation "
            f"{tuple(observed.shape)}, but got {tuple(reconstructed.shape)} and {len(labels)} "
            "labels."
        )
    pairs = list(zip(observed, reconstructed, strict=True))
    errors = (reconstructed - observed).detach().abs().flatten(1).mean(dim=1).tolist()
    grid = ImageGrid(
        [[GridCell(pair, difference=pair[::-1]) for pair in pairs]],
        column_titles=labels,
        image_names=["observation", "reconstruction", "difference"],
        ticks=[f"{error:.1f}" for error in errors],
        x_label="mean absolute difference (grey levels)",
    )
    return draw_grids([grid], levels)


def _check_shapes(argument: str, images: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the one shape of all images."""
    shapes = {tuple(each.shape) for each in images}
    if len(shapes) != 1:
        raise ValueError(f"{argument}: expected images of one shape, but got {sorted(shapes)}.")
    return shapes.pop()
