"""Pictures of densities of the model and of a known world."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from deepscm_pl.escaping import for_picture
from deepscm_pl.evaluation.densities import DensityResult, Sample
from deepscm_pl.figures.density import add_legend, density_points, draw_curve
from deepscm_pl.figures.output import figure_of_panels, finish_axes, width_of

__all__ = ["draw_densities"]

_COLOURS = colormaps["tab10"].colors  # type: ignore[attr-defined]
_WIDTH, _HEIGHT = 3.4, 2.5
"""Least size of a panel without its legend, in inches."""


def draw_densities(results: Sequence[DensityResult]) -> Figure:
    """Draw a panel for each kind of question, a colour for each value, and known worlds dashed."""
    panels = [list(group) for _, group in groupby(results, _panel)]
    texts = [
        *(_density_title(result) for result in results),
        *(result.condition for result in results),
    ]
    width = max(_WIDTH, width_of(texts, 9) + 0.8)
    height = _HEIGHT + 0.17 * max(map(len, panels))
    figure, places = figure_of_panels(len(panels), width, height, below=0.3)
    for axes, results_of_panel in zip(places, panels, strict=True):
        _draw_density_panel(figure, axes, results_of_panel)
    if any(result.world is not None for result in results):
        model = Line2D([], [], color="0.4", label="model")
        world = Line2D([], [], color="0.4", linestyle="--", label="world")
        add_legend(figure, [model, world])
    return figure


def _panel(result: DensityResult) -> tuple[str, tuple[str, ...], bool]:
    return result.variable, tuple(result.given), result.done


def _density_title(result: DensityResult) -> str:
    names = ", ".join(result.given)
    return f"p({result.variable} | {f'do({names})' if result.done else names})"


def _draw_density_panel(figure: Figure, axes: Axes, results: Sequence[DensityResult]) -> None:
    if results[0].categories is None:
        handles = _draw_curves(axes, results)
    else:
        handles = _draw_shares(axes, results, results[0].categories)
    axes.set_title(_density_title(results[0]), fontsize=9)
    axes.set_ylim(bottom=0)
    finish_axes(axes)
    # The legend is below the label of the axis, where no curve can be.
    below = ScaledTranslation(0, -0.41, figure.dpi_scale_trans)
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=8,
                frameon=False, bbox_transform=axes.transAxes + below, borderaxespad=0)  # fmt: skip


def _draw_curves(axes: Axes, results: Sequence[DensityResult]) -> list[Any]:
    """Draw a curve for each result, and return the handles of the legend."""
    first = results[0]
    sides = [sample for result in results for sample in (result.model, result.world)]
    draws = [(sample.values, sample.weights) for sample in sides if sample is not None]
    points = density_points(draws, *first.bounds)
    handles: list[Any] = []
    for k, result in enumerate(results):
        colour = _COLOURS[k % len(_COLOURS)]
        style = {"color": colour, "label": result.condition}
        model = (result.model.values, result.model.weights)
        handles.append(draw_curve(axes, model, points, first.bounds, **style))
        if result.world is not None:
            world = (result.world.values, result.world.weights)
            draw_curve(axes, world, points, first.bounds, color=colour, linestyle="--")
    axes.set_xlabel(
        f"{first.variable} ({first.unit})" if first.unit else first.variable, fontsize=8
    )
    axes.set_ylabel(f"density (1/{first.unit})" if first.unit else "density", fontsize=8)
    return handles


def _draw_shares(axes: Axes, results: Sequence[DensityResult], categories: int) -> list[Any]:
    """Draw bars for the probability of each class, and return the handles of the legend."""
    classes = np.arange(categories)
    width = 0.8 / len(results)
    handles: list[Any] = []
    for k, result in enumerate(results):
        colour = _COLOURS[k % len(_COLOURS)]
        at = classes + (k - (len(results) - 1) / 2) * width
        shares = _class_shares(result.model, categories)
        label = result.condition
        handles.append(axes.bar(at, shares, 0.8 * width, color=colour, alpha=0.6, label=label))
        if result.world is not None:
            axes.bar(at, _class_shares(result.world, categories), 0.8 * width, fill=False,
                     edgecolor=colour, linestyle="--", linewidth=1.4)  # fmt: skip
    axes.set_xticks(classes, [for_picture(name) for name in results[0].classes])
    axes.set_xlabel(results[0].variable, fontsize=8)
    axes.set_ylabel("probability", fontsize=8)
    return handles


def _class_shares(sample: Sample, categories: int) -> NDArray[np.float64]:
    """The probability of each class, ``(categories,)``."""
    classes = sample.values.round().long().numpy()
    return np.bincount(classes, sample.weights.numpy(), categories).astype(np.float64)
