"""Grids of images: observations, interventions, reconstructions and traversals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from deepscm_pl.escaping import for_picture
from deepscm_pl.figures.output import PlainFigure, height_of, width_of, wrapped
from deepscm_pl.figures.pixels import (
    as_pictures,
    change_colours,
    difference_limit,
    inches_per_pixel,
    signed_difference,
    to_rgb,
)

__all__ = [
    "GridCell",
    "ImageColumn",
    "ImageGrid",
    "ImagePanel",
    "MatrixAxis",
    "draw_comparison",
    "draw_grid",
    "draw_grids",
    "draw_image_matrix",
]

_FONT, _CAPTION_FONT, _LABEL_FONT = 7.5, 7.0, 9.0
"""Font sizes in points."""
_GAP, _BETWEEN_ROWS, _BETWEEN_TEXTS, _PAD = 0.1, 0.12, 0.2, 0.1
"""Distances in inches."""
_BAR_WIDTH, _BAR_LENGTH, _BAR_MARGIN = 0.15, 1.2, 0.85
"""Width, least length and margin of the colour bar in inches."""
_DIVERGING, _MARK = colormaps["RdBu_r"], "#d95f02"


@dataclass(frozen=True)
class GridCell:
    """One cell of a grid: images from top to bottom, and below them a signed difference.

    Differences of images in colour are drawn in colour: grey is no change, and a channel is bright
    where it has increased and dark where it has decreased.

    Attributes:
        images: Grey levels ``(C, H, W)``, C of 1 or 3, or ``(C, X, Y, Z)``, whose middle planes are
            drawn. A cell without images is hatched, with a label.
        difference: Minuend and subtrahend of the difference.
        label: The text in a cell without images.
    """

    images: Sequence[Tensor]
    difference: tuple[Tensor, Tensor] | None = None
    caption: str = ""
    label: str = "impossible"


@dataclass(frozen=True)
class ImageGrid:
    """The content of a grid of images.

    Attributes:
        rows: Cells from top to bottom and from left to right, of images of one shape.
        column_titles: Texts above the columns.
        row_titles: Texts on the left of the rows.
        image_names: Names of the images of a cell, written on the left of the first column in
            which cells have more than one image.
        ticks: Texts below the columns.
        x_label: Label below the ticks.
        y_label: Label on the left of the row titles.
        marks: For each row a position to mark, counted in columns from the first.
    """

    rows: Sequence[Sequence[GridCell]]
    title: str = ""
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    image_names: Sequence[str] = ()
    ticks: Sequence[str] = ()
    x_label: str = ""
    y_label: str = ""
    marks: Sequence[float] = ()


def draw_grids(
    grids: Sequence[ImageGrid],
    levels: int = 256,
    difference_label: str = "change of grey level",
    panels_per_row: int = 1,
) -> Figure:
    """Draw grids of the same layout, with one colour bar if a cell has a difference.

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
    cells = [cell for grid in grids for row in grid.rows for cell in row]
    changes = [signed_difference(*cell.difference) for cell in cells if cell.difference is not None]
    limit = difference_limit(np.stack(changes), levels) if changes else 0.0
    layout = _Layout(grids)
    down = math.ceil(len(grids) / panels_per_row)
    is_coloured = bool(changes) and changes[0].ndim == 3
    bar_width = _BAR_WIDTH * (2 if is_coloured else 1)
    bar_margin = _BAR_MARGIN + bar_width - _BAR_WIDTH
    width = layout.width * panels_per_row + (bar_margin if changes else 0.0)
    figure = PlainFigure(figsize=(width, layout.height * down), dpi=150)
    for k, grid in enumerate(grids):
        row, column = divmod(k, panels_per_row)
        corner = (column * layout.width + layout.left, (down - 1 - row) * layout.height)
        size = (layout.width - layout.left, layout.rows_height)
        axes = _add_axes(figure, (corner[0], corner[1] + layout.bottom), size)
        _draw_grid(axes, grid, layout, levels, limit)
    if changes:
        highest = layout.height * down - layout.top - layout.bottom
        length = max(_BAR_LENGTH, 0.6 * highest)
        place = (width - bar_margin + _PAD, layout.bottom + max(0.0, (highest - length) / 2))
        bar_axes = _add_axes(figure, place, (bar_width, length))
        if not is_coloured:
            extend = "both" if limit < levels - 1 else "neither"
            mappable = ScalarMappable(Normalize(-limit, limit), _DIVERGING)
            figure.colorbar(mappable, cax=bar_axes, extend=extend)
        else:
            _draw_colour_key(bar_axes, limit)
        bar_axes.set_ylabel(difference_label, fontsize=_FONT)
        bar_axes.tick_params(labelsize=_FONT)
    return figure


def _draw_colour_key(axes: Axes, limit: float) -> None:
    """Draw the colours of changes of red, green and blue beside each other."""
    changes = np.linspace(-limit, limit, 256)[:, None, None] * np.eye(3)
    extent = (0.0, 3.0, -limit, limit)
    colours = change_colours(changes, limit)
    axes.imshow(colours, origin="lower", extent=extent, aspect="auto", interpolation="nearest")
    axes.set_xticks([0.5, 1.5, 2.5], ["R", "G", "B"])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")


def _as_picture(image: Tensor) -> Tensor:
    return as_pictures(image, image.dim())


class _Layout:
    """Sizes in inches; positions are relative to the upper left corner of the first cell."""

    def __init__(self, grids: Sequence[ImageGrid]) -> None:
        grid = grids[0]
        cells = [cell for grid in grids for row in grid.rows for cell in row]
        image = next(cell.images[0] for cell in cells if cell.images)
        scale = inches_per_pixel(image.shape)
        self.cell_height, self.cell_width = (s * scale for s in _as_picture(image).shape[-2:])
        self.images = max(len(cell.images) + (cell.difference is not None) for cell in cells)
        self.named_column = next(
            (k for k, cell in enumerate(grid.rows[0]) if len(cell.images) != 1), 0
        )
        self.title_width = max(28, int(self.cell_width / 0.06))
        titles = [wrapped(title, self.title_width) for title in grid.column_titles]
        captions = {cell.caption for cell in cells}
        texts = max(width_of([*titles, *grid.ticks], _FONT), width_of(captions, _CAPTION_FONT))
        self.pitch = max(self.cell_width + _GAP, texts + _BETWEEN_TEXTS if texts else 0.0)
        self.names = width_of(grid.image_names, _FONT) + _PAD if grid.image_names else 0.0
        cell = self.images * (self.cell_height + _GAP)
        caption = height_of(captions, _CAPTION_FONT) if any(captions) else 0.0
        between = _BETWEEN_ROWS if self.images > 1 or any(captions) else 0.0
        row = max(cell + caption, height_of(grid.row_titles, _FONT))
        self.row_height = row + between
        self.rows_height = len(grid.rows) * self.row_height - between
        self.left = _PAD + width_of(grid.row_titles, _FONT) + 0.05
        self.left += 1.5 * height_of([grid.y_label], _LABEL_FONT) if grid.y_label else 0.0
        heights = [
            height_of([each.title], _LABEL_FONT) + _PAD if each.title else 0 for each in grids
        ]
        self.title_height = max(heights)
        self.top = height_of(titles, _FONT) + self.title_height + _PAD
        self.tick_distance = 0.08 if grid.marks else 0.02
        self.bottom = _PAD + self.tick_distance + height_of(grid.ticks, _FONT)
        self.bottom += height_of([grid.x_label], _LABEL_FONT) + 0.05 if grid.x_label else 0.0
        columns = len(grid.rows[0]) * self.pitch + self.names
        longest = max(width_of([each.title], _LABEL_FONT) for each in grids)
        self.width = max(self.left + columns, longest) + _PAD
        self.height = self.top + self.rows_height + self.bottom

    def centre(self, column: float) -> float:
        return (column + 0.5) * self.pitch + (self.names if column >= self.named_column else 0.0)

    def box(self, row: int, column: int, image: int) -> tuple[float, float, float, float]:
        """Left, right, lower and upper end of an image."""
        left = self.centre(column) - self.cell_width / 2
        top = row * self.row_height + image * (self.cell_height + _GAP)
        return left, left + self.cell_width, top + self.cell_height, top


def _draw_grid(axes: Axes, grid: ImageGrid, layout: _Layout, levels: int, limit: float) -> None:
    for n, row in enumerate(grid.rows):
        for k, cell in enumerate(row):
            _draw_cell(axes, cell, layout, (n, k), levels, limit)
        first = layout.box(n, layout.named_column, 0)
        for i, name in enumerate(grid.image_names[: layout.images]):
            middle = layout.box(n, 0, i)[3] + layout.cell_height / 2
            axes.text(first[0] - _PAD / 2, middle, name, ha="right", va="center", fontsize=_FONT)
    style: dict[str, Any] = {"ha": "center", "va": "bottom"}
    for k, title in enumerate(grid.column_titles):
        text = wrapped(title, layout.title_width)
        axes.text(layout.centre(k), -0.05, text, fontsize=_FONT, **style)
    centres = [layout.centre(k) for k in range(len(grid.rows[0]))]
    if grid.title:
        above = layout.title_height - layout.top
        axes.text(float(np.mean(centres)), above, grid.title, fontsize=_LABEL_FONT, **style)
    for n, mark in enumerate(grid.marks):
        below = layout.box(n, 0, layout.images - 1)[2] + _GAP / 2
        axes.plot(layout.centre(mark), below, "^", markersize=4, color=_MARK, clip_on=False)
    axes.set_xticks(centres[: len(grid.ticks)], list(map(for_picture, grid.ticks)), fontsize=_FONT)
    axes.set_yticks(
        [
            layout.box(n, 0, 0)[3] + max(layout.cell_height, height_of([title], _FONT)) / 2
            for n, title in enumerate(grid.row_titles)
        ],
        list(map(for_picture, grid.row_titles)),
        fontsize=_FONT,
    )
    axes.set_xlabel(grid.x_label, fontsize=_LABEL_FONT)
    axes.set_ylabel(grid.y_label, fontsize=_LABEL_FONT)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=72 * layout.tick_distance)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, layout.width - layout.left)
    axes.set_ylim(layout.rows_height, 0)


def _draw_cell(
    axes: Axes, cell: GridCell, layout: _Layout, place: tuple[int, int], levels: int, limit: float
) -> None:
    left, right, _, top = layout.box(*place, 0)
    bottom = layout.box(*place, layout.images - 1)[2]
    text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": _FONT}
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
    pictures = [to_rgb(_as_picture(image), levels) for image in cell.images]
    if cell.difference is not None:
        change = signed_difference(*cell.difference)
        pictures.append(change if change.ndim == 2 else change_colours(change, limit))
    for i, picture in enumerate(pictures):
        # Limits and colours apply to differences of grey levels only.
        axes.imshow(picture, cmap=_DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest",
                    extent=layout.box(*place, i), aspect="auto")  # fmt: skip
    if cell.caption:
        text |= {"va": "top", "fontsize": _CAPTION_FONT}
        axes.text((left + right) / 2, bottom + 0.04, cell.caption, **text)


def _add_axes(figure: Figure, corner: tuple[float, float], size: tuple[float, float]) -> Axes:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((corner[0] / across, corner[1] / up, size[0] / across, size[1] / up))


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
