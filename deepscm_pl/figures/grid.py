"""Grids of images: rows are observations, columns are interventions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.escaping import for_picture
from deepscm_pl.figures.output import PlainFigure, width_of
from deepscm_pl.figures.pixels import (
    GAP,
    add_difference_bar,
    as_pictures,
    colour_differences,
    inches_per_element,
    limit_to_reference,
    to_rgb,
)

__all__ = ["ImageColumn", "draw_grid"]

_CAPTION_LINE = 0.12
"""Height of a line of a caption, in inches."""
_TITLE_SIZE, _CAPTION_SIZE = 7.0, 6.5
"""Of texts, in points."""
_BESIDE, _ABOVE, _BELOW = 0.8, 0.7, 0.2
"""Room around all images, in inches."""
_BAR_WIDTH, _SHORTEST_BAR = 0.15, 1.2
"""Of the scale of differences, in inches."""
_MEASURED = 5
"""Lines of captions whose width is measured."""
_BETWEEN_TEXTS = 0.25
"""Between the texts of two columns at least, in inches."""


@dataclass(frozen=True)
class ImageColumn:
    """One column of a grid.

    Attributes:
        title: What was done, such as ``do(thickness = 3)``.
        images: ``(N, C, H, W)`` in grey levels, C of 1 or 3; or volumes ``(N, C, X, Y, Z)``, which
            are shown as their :func:`~deepscm_pl.figures.middle_planes`.
        captions: A line for each image, or none.
    """

    title: str
    images: Tensor
    captions: Sequence[str] = ()


def draw_grid(
    columns: Sequence[ImageColumn],
    row_labels: Sequence[str],
    title: str = "",
    differences: bool = True,
    levels: int = 256,
) -> Figure:
    """Draw images in columns, each column under its title, one row for each observation.

    Args:
        columns: The first is what the others are compared with.
        row_labels: A label for each row.
        title: Title of the whole picture.
        differences: Whether to draw, under each image after the first column, its signed difference
            to the first column, in a diverging colour map centred at zero. Its darkest colours
            stand for the whole range, or for less where nearly all differences are smaller.
        levels: Number of grey levels; black is 0, white is ``levels`` − 1.

    Raises:
        ValueError: If there is no column, or columns differ in shape.

    Example:
        >>> import torch
        >>> column = ImageColumn("factual", torch.zeros(2, 1, 8, 8))
        >>> figure = draw_grid([column, column], ["first", "second"])
    """
    columns = [_with_plain_texts(each) for each in columns]
    layout = _layout(columns, differences)
    columns = [replace(each, images=_as_planes(each.images)) for each in columns]
    reference = columns[0].images
    limit = limit_to_reference([each.images for each in columns[1:]], reference, levels)
    figure = _grid_figure(layout, title)
    axes = figure.axes[0]
    canvas = _canvas(columns, layout, limit if differences else None, levels)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks([layout.centre(k) for k in range(len(columns))])
    axes.set_xticklabels([_broken(column.title) for column in columns], fontsize=_TITLE_SIZE)
    axes.set_yticks([layout.top(n) + layout.height / 2 for n in range(layout.rows)])
    axes.set_yticklabels([for_picture(label) for label in row_labels], fontsize=8)
    for k, column in enumerate(columns):
        for n, caption in enumerate(column.captions):
            below = layout.top(n) + layout.row_height + 1
            axes.text(
                layout.centre(k), below, caption, ha="center", va="top", fontsize=_CAPTION_SIZE
            )
    if differences:
        _add_grid_bar(figure, levels, limit)
    return figure


@dataclass(frozen=True)
class _GridLayout:
    """Where images lie on the canvas, in pixels of the images."""

    rows: int
    columns: int
    height: int
    width: int
    row_height: int
    pitch_x: int
    pitch_y: int
    scale: float
    """Inches of a pixel."""

    def top(self, row: int) -> int:
        return row * self.pitch_y

    def left(self, column: int) -> int:
        return column * self.pitch_x

    def centre(self, column: int) -> float:
        return self.left(column) + self.width / 2

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.rows * self.pitch_y, self.columns * self.pitch_x


def _layout(columns: Sequence[ImageColumn], differences: bool) -> _GridLayout:
    shapes = {tuple(column.images.shape) for column in columns}
    if len(shapes) != 1:
        raise ValueError(f"columns: expected images of one shape, but got {sorted(shapes)}.")
    rows, *event = shapes.pop()
    height, width = _as_planes(columns[0].images).shape[-2:]
    scale = inches_per_element(event)
    lines = [1 + caption.count("\n") for column in columns for caption in column.captions]
    below = math.ceil(max(lines, default=0) * _CAPTION_LINE / scale)
    texts = math.ceil(_width_of_texts(columns) / scale)
    pitch = width + GAP + (width // 2 if lines and len(event) == 3 else 0)
    row_height = 2 * height + GAP if differences else height
    return _GridLayout(
        rows,
        len(columns),
        height,
        width,
        row_height,
        pitch_x=max(pitch, texts),
        pitch_y=row_height + GAP + below,
        scale=scale,
    )


def _width_of_texts(columns: Sequence[ImageColumn]) -> float:
    """What the widest column of texts takes, in inches."""
    titles = width_of([_broken(column.title) for column in columns], _TITLE_SIZE)
    captions = [caption for column in columns for caption in column.captions]
    lines = {line for caption in captions for line in caption.splitlines()}
    # Measuring takes time, and the widest is one of the longest.
    longest = sorted(lines, key=lambda line: (len(line), line))[-_MEASURED:]
    return max(titles, width_of(longest, _CAPTION_SIZE)) + _BETWEEN_TEXTS


def _with_plain_texts(column: ImageColumn) -> ImageColumn:
    """A column whose texts have a picture, and leave room for the images."""
    captions = [for_picture(caption) for caption in column.captions]
    return replace(column, title=for_picture(column.title), captions=captions)


def _broken(title: str) -> str:
    """A line for each of several interventions."""
    return title.replace(", ", ",\n")


def _as_planes(images: Tensor) -> Tensor:
    return as_pictures(images, images.dim() - 1)


def _canvas(
    columns: Sequence[ImageColumn], layout: _GridLayout, limit: float | None, levels: int
) -> NDArray[np.float64]:
    """All images in their places, ``(height, width, 3)`` from 0 to 1.

    Below each but the first are its differences, whose darkest colours stand for ``limit``, if one
    is given.
    """
    canvas = np.ones((*layout.shape, 3))
    reference = columns[0].images
    for k, column in enumerate(columns):
        images = to_rgb(column.images, levels)
        changes = colour_differences(column.images, reference, levels, limit)
        across = slice(layout.left(k), layout.left(k) + layout.width)
        for n in range(layout.rows):
            top = layout.top(n)
            canvas[top : top + layout.height, across] = images[n]
            if limit is not None and k > 0:
                below = top + layout.height + GAP
                canvas[below : below + layout.height, across] = changes[n]
    return canvas


def _grid_figure(layout: _GridLayout, title: str) -> Figure:
    height, width = (size * layout.scale for size in layout.shape)
    figure = PlainFigure(figsize=(width + 2 * _BESIDE, height + _ABOVE + _BELOW), dpi=150)
    # Exactly as large as the layout says, so that texts fit and no pixel is lost.
    axes = figure.add_axes(_share_of_figure(figure, _BESIDE, _BELOW, width, height))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _add_grid_bar(figure: Figure, levels: int, limit: float) -> None:
    """The scale of the differences, on the right of all images."""
    width, height = figure.get_size_inches()
    longest = max(height - _ABOVE - _BELOW, _SHORTEST_BAR)
    length = min(longest, max(_SHORTEST_BAR, 0.6 * longest))
    middle = _BELOW + (height - _ABOVE - _BELOW) / 2
    place = (width - _BESIDE + 0.15, middle - length / 2, _BAR_WIDTH, length)
    add_difference_bar(figure, figure.add_axes(_share_of_figure(figure, *place)), levels, limit)


def _share_of_figure(
    figure: Figure, left: float, bottom: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A place in inches as shares of a figure."""
    across, up = figure.get_size_inches()
    return left / across, bottom / up, width / across, height / up
