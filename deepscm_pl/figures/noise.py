"""Inferred noise beside the standard normal distribution that it should have."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.figures.output import PlainFigure

__all__ = ["draw_noise"]

_NORMAL, _NOISE = "#d95f02", "#7fa8d1"
_COLUMNS = 3


def draw_noise(
    histograms: Mapping[str, Tensor], latents: Mapping[str, Tensor] | None = None
) -> Figure:
    """Draw inferred noise against N(0, 1), its prior.

    Args:
        histograms: Name of a noise to all of its values, of any shape; a histogram each, with mean
            and standard deviation.
        latents: Name of a vector of noises to its values, ``(N, latent)``; mean and standard
            deviation of each dimension, beside 0 and ±1.

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
    across = min(count, 2 if count == 4 else _COLUMNS)
    down = math.ceil(count / across)
    figure = PlainFigure(
        figsize=(3.4 * across + 0.3, 2.8 * down + 0.4), dpi=150, layout="constrained"
    )
    panels = [figure.add_subplot(down, across, k + 1) for k in range(count)]
    for axes, (name, values) in zip(panels, histograms.items(), strict=False):
        _draw_histogram(axes, name, _array(values).ravel())
    for axes, (name, values) in zip(panels[len(histograms) :], latents.items(), strict=True):
        _draw_moments(axes, name, _array(values))
    figure.legend(
        handles=[
            Line2D([], [], color=_NOISE, linewidth=6, label="inferred noise"),
            Line2D([], [], color=_NORMAL, label="its prior, N(0, 1)"),
        ],
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw_histogram(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    limit = max(4.0, float(np.quantile(np.abs(values), 0.999)))
    # Fewer where there are few values, so that the bars tell more than their own chance.
    bins = int(np.clip(np.sqrt(len(values)), 10, 60))
    counts, edges = np.histogram(values, bins=bins, range=(-limit, limit))
    # Over all values, so that those beyond the limits are missed and not spread over the others.
    axes.stairs(counts * bins / (2 * limit * len(values)), edges, fill=True, color=_NOISE)
    points = np.linspace(-limit, limit, 401)
    axes.plot(points, np.exp(-0.5 * points**2) / math.sqrt(2 * math.pi), color=_NORMAL)
    axes.set_title(
        f"{name}\nmean {_number(values.mean())}, standard deviation {values.std():.2f}", fontsize=8
    )
    axes.set_xlabel("noise (standard deviations)", fontsize=8)
    axes.set_ylabel("density", fontsize=8)
    _plain(axes)


def _draw_moments(axes: Axes, name: str, values: NDArray[np.float64]) -> None:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    dimensions = np.arange(values.shape[1])
    axes.axhline(0, color=_NORMAL, linewidth=1)
    for bound in (-1, 1):
        axes.axhline(bound, color=_NORMAL, linewidth=1, linestyle="--")
    axes.errorbar(
        dimensions,
        mean,
        deviation,
        fmt="o",
        markersize=3,
        color="#3b5b92",
        ecolor=_NOISE,
        elinewidth=3,
    )
    axes.set_title(f"{name}\nmean ± standard deviation, each dimension", fontsize=8)
    axes.set_xlabel("dimension", fontsize=8)
    axes.set_ylabel("noise (standard deviations)", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    limit = max(1.5, float(np.abs(np.stack([mean - deviation, mean + deviation])).max()) * 1.1)
    axes.set_ylim(-limit, limit)
    _plain(axes)


def _number(value: float) -> str:
    """Two decimals with a minus sign, and no negative zero."""
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return array
