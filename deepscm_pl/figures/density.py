"""Densities of scalar variables, one at a time and in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.stats import gaussian_kde
from torch import Tensor

from deepscm_pl.figures.output import as_array, figure_of_panels, finish_axes, width_of, wrapped

__all__ = [
    "DensityPanel",
    "JointPanel",
    "density_points",
    "draw_curve",
    "draw_joint_densities",
    "draw_marginal_densities",
    "enclosing_levels",
    "kernel_density",
]

_POINTS = 256
_KERNEL_REACH = 8.0
"""Standard deviations of a kernel, beyond which there is nothing of it."""
_FRACTIONS = (0.99, 0.9, 0.5)
_DATA, _MODEL = "0.75", "black"
_LEGEND_SIZE = 8.0
"""Size of the texts of a legend, in points."""
_KEY_WIDTH = 0.6
"""What an entry of a legend is wider than its text, in inches."""


@dataclass(frozen=True)
class DensityPanel:
    """One scalar variable.

    Attributes:
        label: Its name and unit.
        observed: Values of the data, ``(N,)``.
        curves: Name of a curve to values whose density it shows, ``(M,)``; the first is black.
        lower: Smallest possible value.
        upper: Largest possible value.
    """

    label: str
    observed: Tensor
    curves: Mapping[str, Tensor] = field(default_factory=dict)
    lower: float = -math.inf
    upper: float = math.inf


@dataclass(frozen=True)
class JointPanel:
    """Two scalar variables.

    Attributes:
        x_label: Name and unit of the first.
        y_label: Name and unit of the second.
        observed: Values of the data, ``(N, 2)``.
        x: Where the density is given, ``(X,)``, evenly spaced.
        y: Likewise, ``(Y,)``.
        density: The model's density at these, ``(Y, X)``; any multiple of it serves.
    """

    x_label: str
    y_label: str
    observed: Tensor
    x: Tensor
    y: Tensor
    density: Tensor


def draw_marginal_densities(panels: Sequence[DensityPanel]) -> Figure:
    """Draw for each variable the histogram of the data and densities to compare with it.

    Densities are kernel estimates; values that are all equal are a dashed line.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> import torch
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> curves = {"model": torch.randn(100), "do(age = 3)": torch.full((100,), 3.0)}
        >>> panel = DensityPanel("age (years)", torch.randn(100), curves)
        >>> figure = draw_marginal_densities([panel])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['data', 'model', 'do(age = 3)']
    """
    figure, places = figure_of_panels(len(panels), 3.6, 2.6)
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(places, panels, strict=True):
        handles |= _draw_density(axes, panel)
    data = Line2D([], [], color=_DATA, linewidth=6, label="data")
    entries = [data, *handles.values()]
    for entry in entries:
        entry.set_label(wrapped(str(entry.get_label()), 40))
    each = width_of([str(entry.get_label()) for entry in entries], _LEGEND_SIZE) + _KEY_WIDTH
    columns = max(1, min(len(entries), 5, int(figure.get_figwidth() / each)))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=_LEGEND_SIZE,
        frameon=False,
    )
    return figure


def draw_joint_densities(panels: Sequence[JointPanel]) -> Figure:
    """Draw for each pair of variables the data as dots, and contours of the model's density.

    The contours enclose 50, 90 and 99 % of the density's mass.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 50)
        >>> density = torch.exp(-0.5 * (x[:, None] ** 2 + x**2))
        >>> panel = JointPanel("age (years)", "volume (ml)", torch.randn(100, 2), x, x, density)
        >>> draw_joint_densities([panel]).axes[0].get_xlabel()
        'age (years)'
    """
    figure, places = figure_of_panels(len(panels), 3.6, 3.4)
    for axes, panel in zip(places, panels, strict=True):
        _draw_joint(axes, panel)
    fractions = sorted(_FRACTIONS)
    named = f"{', '.join(f'{100 * f:.0f}' for f in fractions[:-1])} and {100 * fractions[-1]:.0f} %"
    dots = Line2D([], [], color="0.6", marker=".", linestyle="", label="data")
    lines = Line2D([], [], color=_contour_colours()[1], label=f"model, {named} of its mass")
    figure.legend(
        handles=[dots, lines], loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    return figure


def kernel_density(
    values: Tensor,
    points: NDArray[np.float64],
    lower: float | Sequence[float] = -math.inf,
    upper: float | Sequence[float] = math.inf,
    weights: Tensor | None = None,
) -> NDArray[np.float64]:
    """A Gaussian kernel estimate of the density of ``values``, reflected at finite bounds.

    Args:
        values: ``(N,)``, not all equal; or of D variables ``(D, N)``.
        points: Where to evaluate, ``(P,)``; or ``(D, P)``.
        lower: Smallest possible value, of every variable or of each.
        upper: Largest possible value, likewise.
        weights: ``(N,)``; equal ones if left out.

    Returns:
        The density at the points, ``(P,)``; zero outside of the bounds.

    Example:
        >>> import torch
        >>> points = np.linspace(0, 1, 1001)
        >>> density = kernel_density(torch.linspace(0, 1, 500), points, lower=0, upper=1)
        >>> bool(abs(density.mean() - 1) < 0.01)
        True
    """
    data, places = np.atleast_2d(as_array(values)), np.atleast_2d(points)
    estimate = gaussian_kde(data, weights=None if weights is None else as_array(weights))
    reach = _KERNEL_REACH * np.sqrt(np.diag(estimate.covariance))
    bounds = np.broadcast_to(np.stack([lower, upper], axis=-1), (len(data), 2))
    # What the kernels put beyond a bound belongs inside: mirrored, the density keeps its mass.
    mirrored = [
        [row, *(2 * bound - row for bound in ends if np.abs(column - bound).min() < near)]
        for row, column, ends, near in zip(places, data, bounds, reach, strict=True)
    ]
    density = sum(estimate(np.stack(each)) for each in product(*mirrored))
    inside = (places >= bounds[:, :1]) & (places <= bounds[:, 1:])
    return np.where(inside.all(axis=0), density, 0.0)


def density_points(
    samples: Sequence[tuple[Tensor, Tensor | None]],
    lower: float = -math.inf,
    upper: float = math.inf,
) -> NDArray[np.float64]:
    """Even points over nearly all values of some samples, and a little beyond, within the bounds.

    Args:
        samples: Values ``(N,)``, each with its weights ``(N,)`` or None for equal ones.
        lower: Smallest possible value.
        upper: Largest possible value.

    Returns:
        ``(256,)``, ascending.
    """
    ends = np.concatenate([_ends(*sample) for sample in samples])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.05 * (high - low) or 1.0
    return np.linspace(max(low - margin, lower), min(high + margin, upper), _POINTS)


def draw_curve(
    axes: Axes,
    sample: tuple[Tensor, Tensor | None],
    points: NDArray[np.float64],
    bounds: tuple[float, float] = (-math.inf, math.inf),
    **style: Any,
) -> Line2D:
    """Draw the density of one sample; values that are all equal are a vertical line.

    Args:
        axes: Where to draw.
        sample: Values ``(N,)``, and their weights ``(N,)`` or None for equal ones.
        points: Where to evaluate, see :func:`density_points`.
        bounds: Smallest and largest possible value, at which the density is reflected.
        **style: Of the line.
    """
    values, weights = _with_weight(*sample)
    if _all_equal(values):
        return axes.axvline(float(values.flatten()[0]), **style)
    return axes.plot(points, kernel_density(values, points, *bounds, weights), **style)[0]


def enclosing_levels(density: NDArray[np.float64], fractions: Sequence[float]) -> list[float]:
    """For each fraction the level above which the density holds so much of its mass.

    Args:
        density: Values on an even grid, of any shape.
        fractions: Parts of the mass, between 0 and 1.

    Example:
        >>> enclosing_levels(np.array([0.1, 0.2, 0.3, 0.4]), [0.4, 0.9])
        [0.4, 0.2]
    """
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    # A little less than the fraction, so that rounding does not ask for one cell more.
    cells = [int(np.searchsorted(mass, fraction - 1e-9)) for fraction in fractions]
    return [float(ordered[min(cell, len(ordered) - 1)]) for cell in cells]


def _draw_density(axes: Axes, panel: DensityPanel) -> dict[str, Line2D]:
    bounds = (panel.lower, panel.upper)
    shown = [panel.observed, *panel.curves.values()]
    points = density_points([(values, None) for values in shown], *bounds)
    ends = (float(points[0]), float(points[-1]))
    observed = as_array(panel.observed)
    # Fewer bins where there are few values, so that their heights are not mostly chance.
    bins = int(np.clip(np.sqrt(len(observed)), 10, 50))
    axes.hist(observed, bins=bins, range=ends, density=True, color=_DATA)
    lines = {}
    for k, (name, values) in enumerate(panel.curves.items()):
        style: dict[str, Any] = {"color": _MODEL, "linewidth": 1.4, "label": name}
        if k:
            style["color"] = colormaps["tab10"]((k - 1) % 10)
        if _all_equal(values):
            style["linestyle"] = "--"
        lines[name] = draw_curve(axes, (values, None), points, bounds, **style)
    axes.set_xlim(*ends)
    axes.set_xlabel(panel.label, fontsize=9)
    axes.set_ylabel("density", fontsize=9)
    finish_axes(axes)
    return lines


def _draw_joint(axes: Axes, panel: JointPanel) -> None:
    observed = as_array(panel.observed)
    axes.scatter(observed[:, 0], observed[:, 1], s=3, color="0.6", linewidths=0, rasterized=True)
    density = as_array(panel.density)
    # A level may come twice where the density is flat, and contours need them to rise.
    levels = np.unique(enclosing_levels(density, _FRACTIONS))
    axes.contour(
        as_array(panel.x),
        as_array(panel.y),
        density,
        levels=levels,
        colors=_contour_colours()[-len(levels) :],
        linewidths=1.3,
    )
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    finish_axes(axes)


def _with_weight(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The draws that count; those of weight zero may be any number."""
    return (values, None) if weights is None else (values[weights > 0], weights[weights > 0])


def _ends(values: Tensor, weights: Tensor | None) -> NDArray[np.float64]:
    """The range of nearly all of the values."""
    values, weights = _with_weight(values, weights)
    share = None if weights is None else as_array(weights)
    ends: NDArray[np.float64] = np.quantile(
        as_array(values), [0.001, 0.999], weights=share, method="inverted_cdf"
    )
    return ends


def _all_equal(values: Tensor) -> bool:
    array = as_array(values)
    return bool(np.ptp(array) <= 1e-6 * max(1.0, float(np.abs(array).max())))


def _contour_colours() -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](fraction) for fraction in (0.15, 0.45, 0.7)]
