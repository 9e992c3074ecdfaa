"""Grids of images: rows are observations, columns are interventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ImageColumn", "draw_grid"]

_GAP = 3
_DIFFERENCES = "RdBu_r"


@dataclass(frozen=True)
class ImageColumn:
    """One column of a grid.

    Attributes:
        title: What was done, such as ``do(thickness = 3)``.
        images: ``(N, C, H, W)`` in grey levels, C of 1 or 3.
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
            to the first column, in a diverging colour map centred at zero.
        levels: Number of grey levels; black is 0, white is ``levels`` − 1.

    Raises:
        ValueError: If there is no column, or columns differ in shape.

    Example:
        >>> import torch
        >>> column = ImageColumn("factual", torch.zeros(2, 1, 8, 8))
        >>> figure = draw_grid([column, column], ["first", "second"])
    """
    layout = _layout(columns, differences)
    figure = _new_figure(layout, title)
    axes = figure.axes[0]
    axes.imshow(_canvas(columns, layout, differences, levels), interpolation="nearest")
    axes.set_xticks([layout.centre(k) for k in range(len(columns))])
    axes.set_xticklabels([column.title.replace(", ", ",\n") for column in columns], fontsize=7)
    axes.set_yticks([layout.top(n) + layout.height / 2 for n in range(layout.rows)])
    axes.set_yticklabels(list(row_labels), fontsize=8)
    for k, column in enumerate(columns):
        for n, caption in enumerate(column.captions):
            below = layout.top(n) + layout.row_height + 1
            axes.text(layout.centre(k), below, caption, ha="center", va="top", fontsize=6.5)
    if differences:
        _add_colour_bar(figure, levels)
    return figure


@dataclass(frozen=True)
class _Layout:
    """Where images lie on the canvas, in pixels of the images."""

    rows: int
    columns: int
    height: int
    width: int
    row_height: int
    pitch_x: int
    pitch_y: int

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


def _layout(columns: Sequence[ImageColumn], differences: bool) -> _Layout:
    shapes = {tuple(column.images.shape) for column in columns}
    if len(shapes) != 1:
        raise ValueError(f"columns: expected images of one shape, but got {sorted(shapes)}.")
    rows, _, height, width = shapes.pop()
    captions = any(column.captions for column in columns)
    row_height = 2 * height + _GAP if differences else height
    return _Layout(
        rows,
        len(columns),
        height,
        width,
        row_height,
        pitch_x=width + _GAP + (width // 2 if captions else 0),
        pitch_y=row_height + _GAP + (height // 3 if captions else 0),
    )


def _canvas(
    columns: Sequence[ImageColumn], layout: _Layout, differences: bool, levels: int
) -> NDArray[np.float64]:
    """All images in their places, ``(height, width, 3)`` from 0 to 1."""
    canvas = np.ones((*layout.shape, 3))
    reference = _to_rgb_range(columns[0].images, levels)
    for k, column in enumerate(columns):
        images = _to_rgb_range(column.images, levels)
        changes = _colour((images - reference).mean(axis=-1))
        across = slice(layout.left(k), layout.left(k) + layout.width)
        for n in range(layout.rows):
            top = layout.top(n)
            canvas[top : top + layout.height, across] = images[n]
            if differences and k > 0:
                below = top + layout.height + _GAP
                canvas[below : below + layout.height, across] = changes[n]
    return canvas


def _to_rgb_range(images: Tensor, levels: int) -> NDArray[np.float64]:
    """``(N, H, W, 3)`` from 0 to 1."""
    array = images.detach().cpu().double().numpy().transpose(0, 2, 3, 1) / (levels - 1)
    return np.clip(np.broadcast_to(array, (*array.shape[:3], 3)), 0, 1)


def _colour(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of differences from −1 to 1, ``(N, H, W, 3)``."""
    coloured: NDArray[np.float64] = np.asarray(colormaps[_DIFFERENCES]((change + 1) / 2))[..., :3]
    return coloured


def _new_figure(layout: _Layout, title: str) -> Figure:
    scale, (height, width) = 0.034, layout.shape
    figure = Figure(figsize=(width * scale + 1.6, height * scale + 0.9), dpi=150)
    axes = figure.add_subplot()
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _add_colour_bar(figure: Figure, levels: int) -> None:
    mappable = ScalarMappable(Normalize(-(levels - 1), levels - 1), colormaps[_DIFFERENCES])
    bar = figure.colorbar(mappable, ax=figure.axes[0], fraction=0.02, pad=0.02)
    bar.set_label("change of grey level", fontsize=8)
    bar.ax.tick_params(labelsize=7)
