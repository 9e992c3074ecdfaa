"""Inferred noise and its prior, the standard normal distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.figures.density import add_legend
from deepscm_pl.figures.output import as_array, figure_of_panels, finish_axes, width_of

__all__ = ["draw_noise"]

_NORMAL, _NOISE = "#d95f02", "#7fa8d1"
_LIMIT = 4.5
"""Noise beyond this limit is counted but not drawn."""
_TITLE = 8.0
"""Font size in points."""


def draw_noise(
    histograms: Mapping[str, Tensor], latents: Mapping[str, Tensor] | None = None
) -> Figure:
    """Draw inferred noise against N(0, 1), its prior.

    Args:
        histograms: Values of any shape by the name of a noise. Each histogram has mean and standard
            deviation in its title, and counts values beyond ±4.5.
        latents: Values ``(N, latent)`` by the name of a vector of noises; mean and standard
            deviation of each dimension are drawn, with lines at 0 and ±1.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> import torch
        >>> figure = draw_noise(
        ...     {"u of thickness": torch.tensor([-1.0, 1.0])}, {"z of image": torch.randn(50, 4)}
        ... )
        >>> figure.axes[0].get_title().splitlines()
        ['u of thickness', 'mean 0.00, standard deviation 1.00']
    """
    latents = latents or {}
    count = len(histograms) + len(latents)
    if not count:
        raise ValueError("histograms: expected at least one noise, but got none.")
    width = max(3.4, width_of([*histograms, *latents], _TITLE) + 0.7)
    figure, panels = figure_of_panels(count, width, 2.8)
    for axes, (name, values) in zip(panels, histograms.items(), strict=False):
        _draw_histogram(axes, name, as_array(values).ravel())
    for axes, (name, values) in zip(panels[len(histograms) :], latents.items(), strict=True):
        _draw_moments(axes, name, as_array(values))
    inferred = Line2D([], [], color=_NOISE, linewidth=6, label="inferred")
    add_legend(figure, [inferred, Line2D([], [], color=_NORMAL, label="prior N(0, 1)")])
    return figure


def _draw_histogram(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    count = len(values)
    bins = int(np.clip(np.sqrt(count), 10, 60))
    counts, edges = np.histogram(values, bins=bins, range=(-_LIMIT, _LIMIT))
    # Relative to all values, including those beyond the limits.
    density = counts * bins / (2 * _LIMIT * max(count, 1))
    axes.stairs(density, edges, fill=True, color=_NOISE)
    points = np.linspace(-_LIMIT, _LIMIT, 401)
    axes.plot(points, np.exp(-0.5 * points**2) / math.sqrt(2 * math.pi), color=_NORMAL)
    moments, beyond = "no finite value", ""
    if count:
        moments = f"mean {_signed(values.mean())}, standard deviation {values.std():.2f}"
        share = 100 * float((np.abs(values) > _LIMIT).mean())
        beyond = f"; {share:.3g} % beyond ±{_LIMIT:g}" if share else ""
    axes.set_title(f"{name}\n{moments}", fontsize=_TITLE)
    axes.set_xlabel(f"noise (standard deviations{beyond})", fontsize=_TITLE)
    axes.set_ylabel("density", fontsize=_TITLE)
    axes.set_xlim(-_LIMIT, _LIMIT)
    finish_axes(axes)


def _draw_moments(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    dimensions = np.arange(values.shape[1])
    axes.axhline(0, color=_NORMAL, linewidth=1)
    for bound in (-1, 1):
        axes.axhline(bound, color=_NORMAL, linewidth=1, linestyle="--")
    style: dict[str, Any] = {"color": "#3b5b92", "ecolor": _NOISE, "elinewidth": 3}
    axes.errorbar(dimensions, mean, deviation, fmt="o", markersize=3, **style)
    axes.set_title(f"{name}\nmean ± standard deviation, each dimension", fontsize=_TITLE)
    axes.set_xlabel("dimension", fontsize=_TITLE)
    axes.set_ylabel("noise (standard deviations)", fontsize=_TITLE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    limit = max(1.5, float(np.abs(np.stack([mean - deviation, mean + deviation])).max()) * 1.1)
    axes.set_ylim(-limit, limit)
    finish_axes(axes)


def _signed(value: float) -> str:
    """Format two decimals, without a negative zero."""
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")
