"""Densities of the model, beside those of the world where it is known."""

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
from deepscm_pl.figures.output import PlainFigure, make_ticks_readable, width_of

__all__ = ["draw_densities"]

_COLOURS = colormaps["tab10"].colors  # type: ignore[attr-defined]
_PLACES = 200
_WIDTH, _HEIGHT = 3.4, 2.5
"""Of a panel without its legend, in inches, unless its texts need more."""


def draw_densities(results: Sequence[DensityResult]) -> Figure:
    """A panel for each kind of question; a colour for each value; the world, if known, dashed.

    Args:
        results: At least one.
    """
    panels = [list(group) for _, group in groupby(results, _panel)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    texts = [*(_title(result) for result in results), *(result.condition for result in results)]
    width = max(_WIDTH, width_of(texts, 9) + 0.8)
    lines = max(len(panel) for panel in panels)
    size = (width * columns, (_HEIGHT + 0.17 * lines) * rows + 0.3)
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, results_of_panel in zip(axes, panels, strict=False):
        _draw_density_panel(figure, panel, results_of_panel)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    if any(result.world is not None for result in results):
        handles = [
            Line2D([], [], color="0.4", label="model"),
            Line2D([], [], color="0.4", linestyle="--", label="world"),
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False
        )
    return figure


def _panel(result: DensityResult) -> tuple[str, tuple[str, ...], bool]:
    return result.variable, tuple(result.given), result.done


def _title(result: DensityResult) -> str:
    names = ", ".join(result.given)
    return f"p({result.variable} | {f'do({names})' if result.done else names})"


def _draw_density_panel(figure: Figure, axes: Axes, results: Sequence[DensityResult]) -> None:
    if results[0].categories is None:
        handles = _draw_curves(axes, results)
    else:
        handles = _draw_shares(axes, results, results[0].categories)
    axes.set_title(_title(results[0]), fontsize=9)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.yaxis.get_offset_text().set_fontsize(8)
    make_ticks_readable(axes)
    # What the colours mean, below the name of the axis, where no curve can be.
    below = ScaledTranslation(0, -0.41, figure.dpi_scale_trans)
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=8,
                frameon=False, bbox_transform=axes.transAxes + below, borderaxespad=0)  # fmt: skip


def _draw_curves(axes: Axes, results: Sequence[DensityResult]) -> list[Any]:
    """A curve for each result; what a legend lists, even if a name begins with an underscore."""
    first = results[0]
    sides = [sample for result in results for sample in (result.model, result.world)]
    places = _places([sample for sample in sides if sample is not None])
    handles: list[Any] = []
    for k, result in enumerate(results):
        colour = _COLOURS[k % len(_COLOURS)]
        handles += axes.plot(
            places, _density(result.model, places), color=colour, label=result.condition
        )
        if result.world is not None:
            axes.plot(places, _density(result.world, places), color=colour, linestyle="--")
    axes.set_xlabel(
        f"{first.variable} ({first.unit})" if first.unit else first.variable, fontsize=8
    )
    axes.set_ylabel(f"density (1/{first.unit})" if first.unit else "density", fontsize=8)
    return handles


def _draw_shares(axes: Axes, results: Sequence[DensityResult], categories: int) -> list[Any]:
    """A bar for the probability of each class; what a legend lists."""
    classes = np.arange(categories)
    width = 0.8 / len(results)
    handles: list[Any] = []
    for k, result in enumerate(results):
        colour = _COLOURS[k % len(_COLOURS)]
        at = classes + (k - (len(results) - 1) / 2) * width
        shares = _shares(result.model, categories)
        label = result.condition
        handles.append(axes.bar(at, shares, 0.8 * width, color=colour, alpha=0.6, label=label))
        if result.world is not None:
            axes.bar(at, _shares(result.world, categories), 0.8 * width, fill=False,
                     edgecolor=colour, linestyle="--", linewidth=1.4)  # fmt: skip
    axes.set_xticks(classes, [for_picture(name) for name in results[0].classes])
    axes.set_xlabel(results[0].variable, fontsize=8)
    axes.set_ylabel("probability", fontsize=8)
    return handles


def _shares(sample: Sample, categories: int) -> NDArray[np.float64]:
    """The probability of each class, ``(categories,)``."""
    classes = sample.values.round().long().numpy()
    shares: NDArray[np.float64] = np.zeros(categories)
    np.add.at(shares, classes, sample.weights.numpy())
    return shares


def _places(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Where densities are drawn: over all but the outermost draws, and a little beyond."""
    ends = [sample.quantile(share) for sample in samples for share in (0.001, 0.999)]
    margin = 0.05 * (max(ends) - min(ends)) or 1.0
    return np.linspace(min(ends) - margin, max(ends) + margin, _PLACES)


def _density(sample: Sample, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """A histogram on a fine grid, smoothed by a Gaussian of the width of Silverman's rule."""
    values, weights = sample.values.numpy(), sample.weights.numpy()
    step = float(places[1] - places[0])
    effective = 1 / float(weights @ weights)
    width = max(0.9 * sample.deviation * effective**-0.2, step)
    edges: NDArray[np.float64] = np.append(places - step / 2, places[-1] + step / 2)
    counts, _ = np.histogram(values, edges, weights=weights)
    kernel = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    smoothed: NDArray[np.float64] = kernel @ counts
    return smoothed
