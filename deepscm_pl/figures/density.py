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
    "add_legend",
    "density_points",
    "draw_curve",
    "draw_joint_densities",
    "draw_marginal_densities",
    "enclosing_levels",
    "kernel_density",
]

_POINTS = 256
_KERNEL_REACH = 8.0
"""Reach of a Gaussian kernel, in standard deviations."""
_FRACTIONS = (0.99, 0.9, 0.5)
_LEGEND_SIZE = 8.0
_KEY_WIDTH = 0.6
"""Width of the symbol of an entry of a legend, in inches."""
_CONTOUR_COLOURS = [colormaps["viridis"](fraction) for fraction in (0.15, 0.45, 0.7)]


@dataclass(frozen=True)
class DensityPanel:
    """Values of one scalar variable.

    Attributes:
        label: Name and unit of the variable.
        observed: Values of the data, ``(N,)``.
        curves: Samples ``(M,)`` whose density is drawn, by name; the first is black.
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
    """Values and the density of two scalar variables.

    Attributes:
        observed: Values of the data, ``(N, 2)``.
        x: Evenly spaced values of the first variable, ``(X,)``.
        y: Evenly spaced values of the second variable, ``(Y,)``.
        density: The model's density at these values up to a factor, ``(Y, X)``.
    """

    x_label: str
    y_label: str
    observed: Tensor
    x: Tensor
    y: Tensor
    density: Tensor


def draw_marginal_densities(panels: Sequence[DensityPanel]) -> Figure:
    """Draw the histogram of the data and kernel estimates of densities for each variable.

    Samples of equal values are drawn as dashed lines.

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
    data = Line2D([], [], color="0.75", linewidth=6, label="data")
    add_legend(figure, [data, *handles.values()])
    return figure


def draw_joint_densities(panels: Sequence[JointPanel]) -> Figure:
    """Draw the data as dots, and contours around 50, 90 and 99 % of the model's density.

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
    dots = Line2D([], [], color="0.6", marker=".", linestyle="", label="data")
    label = "model, 50, 90 and 99 % of its mass"
    add_legend(figure, [dots, Line2D([], [], color=_CONTOUR_COLOURS[1], label=label)])
    return figure


def add_legend(figure: Figure, entries: Sequence[Line2D]) -> None:
    """Add a legend below the figure, in as many columns as fit."""
    labels = [wrapped(str(entry.get_label()), 40) for entry in entries]
    width = width_of(labels, _LEGEND_SIZE) + _KEY_WIDTH
    figure.legend(
        entries,
        labels,
        loc="outside lower center",
        ncols=max(1, min(len(entries), 5, int(figure.get_figwidth() / width))),
        fontsize=_LEGEND_SIZE,
        frameon=False,
    )


def kernel_density(
    values: Tensor,
    points: NDArray[np.float64],
    lower: float | Sequence[float] = -math.inf,
    upper: float | Sequence[float] = math.inf,
    weights: Tensor | None = None,
) -> NDArray[np.float64]:
    """Estimate a density with Gaussian kernels that are reflected at finite bounds.

    Args:
        values: ``(N,)``, not all equal; or of D variables ``(D, N)``.
        points: Where to evaluate the density, ``(P,)``; or ``(D, P)``.
        lower: Smallest possible value of all variables or of each.
        upper: Largest possible value of all variables or of each.
        weights: Weights of the values, ``(N,)``; equal by default.

    Returns:
        The density at the points, ``(P,)``; zero outside the bounds.

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
    # Mass beyond a bound is mirrored, so that the integral is 1.
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
    """Return 256 even points over 99.8 % of the values of some samples, with a margin.

    Args:
        samples: Values ``(N,)``, each with its weights ``(N,)`` or None for equal ones.
        lower: Smallest possible value.
        upper: Largest possible value.
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
    """Draw the density of one sample, or a vertical line if all values are equal.

    Args:
        axes: Where to draw.
        sample: Values ``(N,)``, and their weights ``(N,)`` or None for equal ones.
        points: Where to evaluate the density, see :func:`density_points`.
        bounds: Smallest and largest possible value.
        **style: Properties of the line.
    """
    values, weights = _drop_weightless(*sample)
    if _all_equal(values):
        return axes.axvline(float(values.flatten()[0]), **style)
    return axes.plot(points, kernel_density(values, points, *bounds, weights), **style)[0]


def enclosing_levels(density: NDArray[np.float64], fractions: Sequence[float]) -> list[float]:
    """Return the levels above which a density has the given fractions of its mass.

    Args:
        density: Values on an even grid, of any shape.
        fractions: Fractions of the mass, between 0 and 1.

    Example:
        >>> enclosing_levels(np.array([0.1, 0.2, 0.3, 0.4]), [0.4, 0.9])
        [0.4, 0.2]
    """
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    # The tolerance prevents an additional cell by rounding.
    cells = [int(np.searchsorted(mass, fraction - 1e-9)) for fraction in fractions]
    return [float(ordered[min(cell, len(ordered) - 1)]) for cell in cells]


def _draw_density(axes: Axes, panel: DensityPanel) -> dict[str, Line2D]:
    bounds = (panel.lower, panel.upper)
    shown = [panel.observed, *panel.curves.values()]
    points = density_points([(values, None) for values in shown], *bounds)
    ends = (float(points[0]), float(points[-1]))
    observed = as_array(panel.observed)
    # Few values need wide bins.
    bins = int(np.clip(np.sqrt(len(observed)), 10, 50))
    axes.hist(observed, bins=bins, range=ends, density=True, color="0.75")
    lines = {}
    for k, (name, values) in enumerate(panel.curves.items()):
        colour = colormaps["tab10"]((k - 1) % 10) if k else "black"
        style = {"color": colour, "linestyle": "--" if _all_equal(values) else "-"}
        lines[name] = draw_curve(
            axes, (values, None), points, bounds, linewidth=1.4, label=name, **style
        )
    axes.set_xlim(*ends)
    axes.set_xlabel(panel.label, fontsize=9)
    axes.set_ylabel("density", fontsize=9)
    finish_axes(axes)
    return lines


def _draw_joint(axes: Axes, panel: JointPanel) -> None:
    observed = as_array(panel.observed)
    axes.scatter(observed[:, 0], observed[:, 1], s=3, color="0.6", linewidths=0, rasterized=True)
    density = as_array(panel.density)
    # Levels are equal where the density is flat, but contours need increasing ones.
    levels = np.unique(enclosing_levels(density, _FRACTIONS))
    axes.contour(
        as_array(panel.x),
        as_array(panel.y),
        density,
        levels=levels,
        colors=_CONTOUR_COLOURS[-len(levels) :],
        linewidths=1.3,
    )
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    finish_axes(axes)


def _drop_weightless(values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Remove draws of weight zero, which may be any number."""
    return (values, None) if weights is None else (values[weights > 0], weights[weights > 0])


def _ends(values: Tensor, weights: Tensor | None) -> NDArray[np.float64]:
    values, weights = _drop_weightless(values, weights)
    share = None if weights is None else as_array(weights)
    ends = np.quantile(as_array(values), [0.001, 0.999], weights=share, method="inverted_cdf")
    return np.asarray(ends)


def _all_equal(values: Tensor) -> bool:
    array = as_array(values)
    return bool(np.ptp(array) <= 1e-6 * max(1.0, float(np.abs(array).max())))
