"""Abducted noise beside its prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deepscm_pl.evaluation.noise import NoiseResult
from deepscm_pl.figures.plain import PlainFigure
from deepscm_pl.figures.text import width_of

__all__ = ["draw_noise"]

_LIMIT = 4.5
_INFERRED, _PRIOR = "#8fbfe0", "#333333"


def draw_noise(results: Sequence[NoiseResult]) -> Figure:
    """Histograms of abducted noise, and the prior N(0, 1).

    Args:
        results: At least one.
    """
    columns = min(len(results), 2 if len(results) == 4 else 3)
    rows = -(-len(results) // columns)
    width = max(3.2, width_of(map(_title, results), 9) + 0.7)
    size = (max(width * columns, 3.6), 2.6 * rows + 0.4)
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, result in zip(axes, results, strict=False):
        _draw_panel(panel, result)
    for panel in axes[len(results) :]:
        panel.set_axis_off()
    figure.legend(
        handles=[
            Patch(color=_INFERRED, label="inferred"),
            Line2D([], [], color=_PRIOR, label="prior N(0, 1)"),
        ],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw_panel(axes: Axes, result: NoiseResult) -> None:
    values = result.sample.double().numpy()
    # Fewer where there are few values, so that the bars tell more than their own chance.
    bins = int(np.clip(np.sqrt(len(values)), 10, 60))
    counts, edges = np.histogram(values, bins, range=(-_LIMIT, _LIMIT))
    # Over all values, so that those beyond the limits are missed and not spread over the others.
    density = counts * bins / (2 * _LIMIT * max(len(values), 1))
    axes.stairs(density, edges, fill=True, color=_INFERRED)
    places = np.linspace(-_LIMIT, _LIMIT, 181)
    axes.plot(places, np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi), color=_PRIOR, linewidth=1.2)
    axes.set_title(_title(result), fontsize=9)
    beyond = float((abs(values) > _LIMIT).mean()) if len(values) else 0.0
    said = f" ({_percent(beyond)} beyond ±{_LIMIT:g})" if beyond else ""
    axes.set_xlabel(f"noise{said}", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    axes.set_xlim(-_LIMIT, _LIMIT)
    axes.tick_params(labelsize=8)


def _title(result: NoiseResult) -> str:
    """Such as ``z of image``, and below it ``n = 500 images, 64 numbers each``."""
    numbers = f", {result.entries} numbers each" if result.entries > 1 else ""
    return f"{result.part} of {result.variable}\nn = {result.rows} images{numbers}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
