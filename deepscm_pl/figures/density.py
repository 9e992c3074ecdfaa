"""Densities of scalar variables, one at a time and in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.stats import gaussian_kde
from torch import Tensor

from deepscm_pl.figures.output import PlainFigure, make_ticks_readable, width_of, wrapped

__all__ = [
    "DensityPanel",
    "JointPanel",
    "draw_densities",
    "draw_joint_densities",
    "enclosing_levels",
    "kernel_density",
]

_POINTS = 256
_COLUMNS = 3
_FRACTIONS = (0.99, 0.9, 0.5)
_DATA, _MODEL = "0.75", "black"
_SMALL = 8.0
"""Size of the texts of a legend, in points."""
_KEY = 0.6
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


def draw_densities(panels: Sequence[DensityPanel]) -> Figure:
    """Draw for each variable the histogram of the data and densities to compare with it.

    Densities are kernel estimates; values that are all equal are a dashed line.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> import torch
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> curves = {"model": torch.randn(100), "do(age = 3)": torch.full((100,), 3.0)}
        >>> figure = draw_densities([DensityPanel("age (years)", torch.randn(100), curves)])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['data', 'model', 'do(age = 3)']
    """
    figure = _new_figure(len(panels), height=2.6)
    handles: dict[str, Line2D] = {}
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(_rows(len(panels)), min(len(panels), _COLUMNS), k + 1)
        handles |= _draw_density(axes, panel)
    data = Line2D([], [], color=_DATA, linewidth=6, label="data")
    entries = [data, *handles.values()]
    for entry in entries:
        entry.set_label(wrapped(str(entry.get_label()), 40))
    each = width_of([str(entry.get_label()) for entry in entries], _SMALL) + _KEY
    columns = max(1, min(len(entries), 5, int(figure.get_figwidth() / each)))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=_SMALL,
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
    figure = _new_figure(len(panels), height=3.4)
    for k, panel in enumerate(panels):
        axes = figure.add_subplot(_rows(len(panels)), min(len(panels), _COLUMNS), k + 1)
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
    values: Tensor, points: NDArray[np.float64], lower: float = -math.inf, upper: float = math.inf
) -> NDArray[np.float64]:
    """A Gaussian kernel estimate of the density of ``values``, reflected at finite bounds.

    Args:
        values: ``(N,)``, not all equal; or of D variables ``(D, N)``.
        points: Where to evaluate, ``(P,)``; or ``(D, P)``.
        lower: Smallest possible value, of every variable.
        upper: Largest possible value, likewise.

    Returns:
        The density at the points, ``(P,)``; zero outside of the bounds.

    Example:
        >>> import torch
        >>> points = np.linspace(0, 1, 1001)
        >>> density = kernel_density(torch.linspace(0, 1, 500), points, lower=0, upper=1)
        >>> bool(abs(density.mean() - 1) < 0.01)
        True
    """
    estimate = gaussian_kde(_array(values))
    density = estimate(points)
    # What the kernels put beyond a bound belongs inside: mirrored, the density keeps its mass.
    for bound in (lower, upper):
        if math.isfinite(bound):
            density = density + estimate(2 * bound - points)
    inside = np.atleast_2d((points >= lower) & (points <= upper)).all(axis=0)
    return np.where(inside, density, 0.0)


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


def _new_figure(count: int, height: float) -> Figure:
    if count < 1:
        raise ValueError("panels: expected at least one, but got none.")
    size = (3.6 * min(count, _COLUMNS) + 0.4, height * _rows(count) + 0.5)
    return PlainFigure(figsize=size, dpi=150, layout="constrained")


def _rows(count: int) -> int:
    return math.ceil(count / _COLUMNS)


def _draw_density(axes: Axes, panel: DensityPanel) -> dict[str, Line2D]:
    low, high = _limits([panel.observed, *panel.curves.values()], panel.lower, panel.upper)
    points = np.linspace(low, high, _POINTS)
    observed = _array(panel.observed)
    # Fewer bins where there are few values, so that they tell more than their own chance.
    bins = int(np.clip(np.sqrt(len(observed)), 10, 50))
    axes.hist(observed, bins=bins, range=(low, high), density=True, color=_DATA)
    lines = {}
    for k, (name, values) in enumerate(panel.curves.items()):
        colour = _MODEL if k == 0 else colormaps["tab10"]((k - 1) % 10)
        if _all_equal(values):
            at = float(values.flatten()[0])
            lines[name] = axes.axvline(at, color=colour, linestyle="--", label=name)
        else:
            density = kernel_density(values, points, panel.lower, panel.upper)
            lines[name] = axes.plot(points, density, color=colour, linewidth=1.4, label=name)[0]
    axes.set_xlim(low, high)
    axes.set_xlabel(panel.label, fontsize=9)
    axes.set_ylabel("density", fontsize=9)
    _plain(axes)
    return lines


def _draw_joint(axes: Axes, panel: JointPanel) -> None:
    observed = _array(panel.observed)
    axes.scatter(observed[:, 0], observed[:, 1], s=3, color="0.6", linewidths=0, rasterized=True)
    density = _array(panel.density)
    # A level may come twice where the density is flat, and contours need them to rise.
    levels = np.unique(enclosing_levels(density, _FRACTIONS))
    axes.contour(
        _array(panel.x),
        _array(panel.y),
        density,
        levels=levels,
        colors=_contour_colours()[-len(levels) :],
        linewidths=1.3,
    )
    axes.set_xlabel(panel.x_label, fontsize=9)
    axes.set_ylabel(panel.y_label, fontsize=9)
    _plain(axes)


def _limits(values: Sequence[Tensor], lower: float, upper: float) -> tuple[float, float]:
    """Where nearly all of the values lie, with a margin."""
    ends = [np.quantile(_array(each), [0.002, 0.998]) for each in values]
    low, high = min(float(end[0]) for end in ends), max(float(end[1]) for end in ends)
    margin = 0.05 * (high - low) or 1.0
    return max(low - margin, lower), min(high + margin, upper)


def _all_equal(values: Tensor) -> bool:
    array = _array(values)
    return bool(np.ptp(array) <= 1e-6 * max(1.0, float(np.abs(array).max())))


def _contour_colours() -> list[tuple[float, float, float, float]]:
    return [colormaps["viridis"](fraction) for fraction in (0.15, 0.45, 0.7)]


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.yaxis.get_offset_text().set_fontsize(8)
    make_ticks_readable(axes)
    axes.spines[["top", "right"]].set_visible(False)


def _array(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return array
