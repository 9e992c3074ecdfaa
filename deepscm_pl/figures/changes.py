"""Numbers and classes of observations, before and after interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from deepscm_pl.figures.density import add_legend, density_points, draw_curve
from deepscm_pl.figures.output import as_array, figure_of_panels, finish_axes

__all__ = ["ValuesPanel", "draw_values"]

_MOST_ROWS = 24
"""Observations whose values are drawn as points; densities of more."""
_POINT = 5.0


@dataclass(frozen=True)
class ValuesPanel:
    """Values of one variable, by observation and question.

    Attributes:
        label: Name and unit of the variable.
        columns: Values ``(draws, rows)`` by title, the factual ones first.
        classes: Names of classes 0, 1, …; empty for numbers.
    """

    label: str
    columns: Mapping[str, Tensor]
    classes: Sequence[str] = ()


def draw_values(panels: Sequence[ValuesPanel], row_labels: Sequence[str] = ()) -> Figure:
    """Draw a panel for each variable: points with ranges of particles, or densities of many rows.

    Args:
        panels: The variables.
        row_labels: A text for each row; none for draws without observations.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> import torch
        >>> columns = {"factual": torch.tensor([[60.0]]), "do(dose = 3)": torch.tensor([[72.0]])}
        >>> figure = draw_values([ValuesPanel("weight (kg)", columns)], ["Ada"])
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['Ada']
    """
    figure, places = figure_of_panels(len(panels), 3.6, 2.6)
    titles = list(dict.fromkeys(title for panel in panels for title in panel.columns))
    colours = {
        title: "black" if k == 0 else colormaps["tab10"](k - 1) for k, title in enumerate(titles)
    }
    draws_points = 0 < len(row_labels) <= _MOST_ROWS
    for axes, panel in zip(places, panels, strict=True):
        if draws_points:
            _draw_points(axes, panel, row_labels, colours)
        elif panel.classes:
            _draw_shares(axes, panel, colours)
        else:
            samples = {title: (values.flatten(), None) for title, values in panel.columns.items()}
            points = density_points(list(samples.values()))
            for title, sample in samples.items():
                draw_curve(axes, sample, points, color=colours[title])
            axes.set_ylim(bottom=0)
            axes.set_ylabel("density", fontsize=9)
        axes.set_xlabel(panel.label, fontsize=9)
        if panel.classes:
            axes.set_xticks(range(len(panel.classes)), panel.classes)
            axes.set_xlim(-0.5, len(panel.classes) - 0.5)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        else:
            finish_axes(axes)
    marker = {"marker": "o", "linestyle": ""} if draws_points else {}
    add_legend(figure, [Line2D([], [], color=colours[t], label=t, **marker) for t in titles])  # type: ignore[arg-type]
    return figure


def _draw_points(
    axes: Axes, panel: ValuesPanel, labels: Sequence[str], colours: Mapping[str, object]
) -> None:
    for k, (title, values) in enumerate(panel.columns.items()):
        array = as_array(values)
        heights = np.arange(array.shape[1]) + 0.6 * (k + 0.5) / len(panel.columns) - 0.3
        style = {"color": colours[title]}
        middle = np.median(array, axis=0) if panel.classes else array.mean(axis=0)
        axes.hlines(heights, array.min(axis=0), array.max(axis=0), linewidth=1, **style)  # type: ignore[arg-type]
        axes.plot(middle, heights, "o", markersize=_POINT, **style)  # type: ignore[arg-type]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _draw_shares(axes: Axes, panel: ValuesPanel, colours: Mapping[str, object]) -> None:
    width = 0.8 / len(panel.columns)
    for k, (title, values) in enumerate(panel.columns.items()):
        array = as_array(values).ravel().astype(int)
        shares = 100 * np.bincount(array, minlength=len(panel.classes)) / max(array.size, 1)
        places = np.arange(len(panel.classes)) + width * (k + 0.5) - 0.4
        axes.bar(places, shares, width, color=colours[title])
    axes.set_ylabel("share (%)", fontsize=9)
