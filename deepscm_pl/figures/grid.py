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
    shapes = {tuple(column.images.shape) for column in columns}
    if len(shapes) != 1:
        raise ValueError(f"columns: expected images of one shape, but got {sorted(shapes)}.")
    number, _, height, width = shapes.pop()
    captions = any(column.captions for column in columns)
    row_height = height * (2 if differences else 1) + (_GAP if differences else 0)
    pitch_y = row_height + _GAP + (height // 3 if captions else 0)
    pitch_x = width + _GAP + (width // 2 if captions else 0)
    canvas = np.ones((number * pitch_y, len(columns) * pitch_x, 3))
    reference = _to_rgb_range(columns[0].images, levels)
    for k, column in enumerate(columns):
        images = _to_rgb_range(column.images, levels)
        for n in range(number):
            top, left = n * pitch_y, k * pitch_x
            canvas[top : top + height, left : left + width] = images[n]
            if differences and k > 0:
                below = top + height + _GAP
                change = (images[n] - reference[n]).mean(axis=-1)
                canvas[below : below + height, left : left + width] = _colour(change)
    figure = _new_figure(canvas.shape[0], canvas.shape[1], title)
    axes = figure.axes[0]
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks([k * pitch_x + width / 2 for k in range(len(columns))])
    axes.set_xticklabels([column.title for column in columns], fontsize=8)
    axes.set_yticks([n * pitch_y + height / 2 for n in range(number)])
    axes.set_yticklabels(list(row_labels), fontsize=8)
    for k, column in enumerate(columns):
        for n, caption in enumerate(column.captions):
            axes.text(
                k * pitch_x + width / 2,
                n * pitch_y + row_height + 1,
                caption,
                ha="center",
                va="top",
                fontsize=6.5,
            )
    if differences:
        _add_colour_bar(figure, levels)
    return figure


def _to_rgb_range(images: Tensor, levels: int) -> NDArray[np.float64]:
    """``(N, H, W, 3)`` from 0 to 1."""
    array = images.detach().cpu().double().numpy().transpose(0, 2, 3, 1) / (levels - 1)
    return np.clip(np.broadcast_to(array, (*array.shape[:3], 3)), 0, 1)


def _colour(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of differences from −1 to 1, ``(H, W, 3)``."""
    coloured: NDArray[np.float64] = np.asarray(colormaps[_DIFFERENCES]((change + 1) / 2))[..., :3]
    return coloured


def _new_figure(height: int, width: int, title: str) -> Figure:
    scale = 0.034
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
