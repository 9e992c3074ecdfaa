"""From grey levels, and differences of grey levels, to colours on a canvas."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["GAP", "add_difference_bar", "colour_differences", "inches_per_pixel", "tile", "to_rgb"]

GAP = 3
"""Pixels of an image between two images."""

_DIFFERENCES = "RdBu_r"
_DOTS_PER_INCH = 150


def to_rgb(images: Tensor, levels: int = 256) -> NDArray[np.float64]:
    """Grey levels ``(*batch, C, H, W)``, C of 1 or 3, as colours ``(*batch, H, W, 3)`` in [0, 1].

    Example:
        >>> import torch
        >>> to_rgb(torch.full((2, 1, 1, 1), 255.0))[0]
        array([[[1., 1., 1.]]])
    """
    array = np.moveaxis(images.detach().cpu().double().numpy(), -3, -1) / (levels - 1)
    return np.clip(np.broadcast_to(array, (*array.shape[:-1], 3)), 0, 1)


def colour_differences(images: Tensor, reference: Tensor, levels: int = 256) -> NDArray[np.float64]:
    """``images`` − ``reference`` as colours: brighter is red, darker blue, equal white.

    Args:
        images: Grey levels ``(*batch, C, H, W)``; channels are averaged.
        reference: Grey levels of the same shape.
        levels: Number of grey levels.

    Returns:
        ``(*batch, H, W, 3)`` in [0, 1].
    """
    change = (to_rgb(images, levels) - to_rgb(reference, levels)).mean(axis=-1)
    coloured: NDArray[np.float64] = np.asarray(colormaps[_DIFFERENCES]((change + 1) / 2))[..., :3]
    return coloured


def add_difference_bar(
    figure: Figure, axes: Axes, levels: int = 256, fraction: float = 0.02
) -> None:
    """Put the scale of :func:`colour_differences` beside ``axes``."""
    mappable = ScalarMappable(Normalize(-(levels - 1), levels - 1), colormaps[_DIFFERENCES])
    bar = figure.colorbar(mappable, ax=axes, fraction=fraction, pad=0.02)
    bar.set_label("change of grey level", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def inches_per_pixel(width: int) -> float:
    """The scale at which an image is large enough to see, and none of its pixels is lost.

    Example:
        >>> round(28 * inches_per_pixel(28), 2)
        0.95
    """
    return max(0.95, width / _DOTS_PER_INCH) / width


def tile(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images ``(rows, columns, H, W, 3)`` on one white canvas, :data:`GAP` pixels apart.

    Example:
        >>> tile(np.zeros((2, 5, 8, 8, 3))).shape
        (19, 52, 3)
    """
    rows, columns, height, width, _ = cells.shape
    space = ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0))
    padded = np.pad(cells, space, constant_values=1.0)
    canvas = padded.transpose(0, 2, 1, 3, 4)
    canvas = canvas.reshape(rows * (height + GAP), columns * (width + GAP), 3)
    return canvas[:-GAP, :-GAP]
