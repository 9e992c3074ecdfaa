"""Matrices of images: two quantities vary, one along each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.escaping import for_picture
from deepscm_pl.figures.output import PlainFigure
from deepscm_pl.figures.pixels import (
    GAP,
    add_difference_bar,
    as_pictures,
    colour_differences,
    inches_per_element,
    limit_to_reference,
    tile,
    to_rgb,
)

__all__ = ["ImagePanel", "MatrixAxis", "draw_comparison", "draw_image_matrix"]

_MARK = "#d95f02"


@dataclass(frozen=True)
class MatrixAxis:
    """What varies along one axis.

    Attributes:
        label: Its name and unit; may be empty.
        ticks: A text for each row or column.
    """

    label: str
    ticks: Sequence[str]


@dataclass(frozen=True)
class ImagePanel:
    """One matrix.

    Attributes:
        title: What all of its images share.
        images: Grey levels ``(rows, columns, C, H, W)``, C of 1 or 3; or of volumes ``(rows,
            columns, C, X, Y, Z)``, which are shown as their middle planes.
        marks: For each row a position to mark, in columns from the first, or none.
    """

    title: str
    images: Tensor
    marks: Sequence[float] = ()


def draw_image_matrix(
    panels: Sequence[ImagePanel],
    columns: MatrixAxis,
    rows: MatrixAxis,
    levels: int = 256,
) -> Figure:
    """Draw matrices of images side by side, all with the same axes.

    Args:
        panels: The matrices, of one shape.
        columns: What varies from left to right.
        rows: What varies from top to bottom.
        levels: Number of grey levels.

    Raises:
        ValueError: If there is no panel, panels differ in shape, or the ticks do not fit.

    Example:
        >>> import torch
        >>> panel = ImagePanel("noise 0", torch.zeros(2, 3, 1, 8, 8))
        >>> figure = draw_image_matrix(
        ...     [panel, panel],
        ...     MatrixAxis("thickness (pixels)", ["1", "2", "3"]),
        ...     MatrixAxis("intensity", ["200", "100"]),
        ... )
        >>> len(figure.axes)
        2
    """
    _check_panels(panels, columns, rows)
    event = panels[0].images.shape[2:]
    across = _across(len(panels), volumes=len(event) > 3)
    pictures = [as_pictures(panel.images, len(event)) for panel in panels]
    canvases = [tile(to_rgb(each, levels)) for each in pictures]
    shape = pictures[0].shape[-2:]
    scale = inches_per_element(event)
    figure = _matrix_figure(canvases[0], scale, across, math.ceil(len(panels) / across))
    for k, (panel, canvas) in enumerate(zip(panels, canvases, strict=True)):
        axes = figure.add_subplot(math.ceil(len(panels) / across), across, k + 1)
        _show(axes, canvas, shape, columns, rows)
        axes.set_title(panel.title, fontsize=9)
        axes.autoscale(False)  # marks lie beside the images and must not widen the axes
        axes.tick_params(axis="x", pad=9 if panel.marks else 4)
        for n, mark in enumerate(panel.marks):
            x = mark * (shape[1] + GAP) + (shape[1] - 1) / 2
            y = (n + 1) * (shape[0] + GAP) - (GAP + 1) / 2
            axes.plot(x, y, marker="^", markersize=4, color=_MARK, clip_on=False)
    return figure


def draw_comparison(
    observed: Tensor, reconstructed: Tensor, labels: Sequence[str], levels: int = 256
) -> Figure:
    """Draw observations, below them their reconstructions, and below these what differs.

    Differences are signed, reconstruction minus observation; under each column stands the mean
    absolute difference.

    Args:
        observed: Grey levels ``(N, C, H, W)``, C of 1 or 3; or volumes ``(N, C, X, Y, Z)``, which
            are shown as their middle planes.
        reconstructed: Grey levels of the same shape.
        labels: A label for each observation.
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
    event = observed.shape[1:]
    above, below = (as_pictures(each, len(event)) for each in (observed, reconstructed))
    limit = limit_to_reference([below], above, levels)
    difference = colour_differences(below, above, levels, limit)
    cells = np.stack([to_rgb(above, levels), to_rgb(below, levels), difference])
    canvas, shape = tile(cells), above.shape[-2:]
    figure = _matrix_figure(canvas, inches_per_element(event), 1, 1)
    axes = figure.add_subplot()
    errors = (reconstructed - observed).detach().abs().flatten(1).mean(dim=1).tolist()
    columns = MatrixAxis(
        "mean absolute difference (grey levels)", [f"{error:.1f}" for error in errors]
    )
    rows = MatrixAxis("", ["observation", "reconstruction", "difference"])
    _show(axes, canvas, shape, columns, rows)
    top = axes.secondary_xaxis("top")
    top.set_xticks(_centres(len(labels), shape[1]), _plain_ticks(labels), fontsize=8)
    top.tick_params(length=0)
    top.spines[:].set_visible(False)
    bar = axes.inset_axes((1.02, 0.0, 0.02, 1.0))
    add_difference_bar(figure, bar, levels, limit)
    return figure


def _across(panels: int, volumes: bool) -> int:
    """Panels beside each other; those of volumes, which are wide, stand below each other."""
    if volumes:
        return 1
    return math.ceil(math.sqrt(panels)) if panels > 3 else panels


def _check_panels(panels: Sequence[ImagePanel], columns: MatrixAxis, rows: MatrixAxis) -> None:
    shapes = {tuple(panel.images.shape) for panel in panels}
    if len(shapes) != 1:
        raise ValueError(f"panels: expected images of one shape, but got {sorted(shapes)}.")
    expected = shapes.pop()[:2]
    if expected != (len(rows.ticks), len(columns.ticks)):
        raise ValueError(
            f"panels: expected a tick for each of {expected[0]} rows and {expected[1]} columns, "
            f"but got {len(rows.ticks)} and {len(columns.ticks)}."
        )


def _matrix_figure(canvas: NDArray[np.float64], scale: float, across: int, down: int) -> Figure:
    panel = (canvas.shape[1] * scale + 0.9, canvas.shape[0] * scale + 0.8)
    size = (panel[0] * across, panel[1] * down)
    return PlainFigure(figsize=size, dpi=150, layout="constrained")


def _show(
    axes: Axes,
    canvas: NDArray[np.float64],
    shape: Sequence[int],
    columns: MatrixAxis,
    rows: MatrixAxis,
) -> None:
    """A canvas of images of ``shape``, with its ticks and labels."""
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks(_centres(len(columns.ticks), shape[1]), _plain_ticks(columns.ticks), fontsize=8)
    axes.set_yticks(_centres(len(rows.ticks), shape[0]), _plain_ticks(rows.ticks), fontsize=8)
    axes.set_xlabel(columns.label, fontsize=9)
    axes.set_ylabel(rows.label, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _plain_ticks(ticks: Sequence[str]) -> list[str]:
    return [for_picture(tick) for tick in ticks]


def _centres(count: int, size: int) -> list[float]:
    return [k * (size + GAP) + (size - 1) / 2 for k in range(count)]
