"""Estimates with their intervals as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from matplotlib.figure import Figure

from deepscm_pl.figures.output import PlainFigure, finish_axes, width_of, wrapped

__all__ = ["draw_estimates"]

_POINT, _ZERO = "#3b5b92", "#999999"
_FONT = 8.0
"""Font size in points."""
_LONGEST = 48
"""Characters of a line of a name, at most."""


class _WithInterval(Protocol):
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def draw_estimates(
    estimates: Mapping[str, _WithInterval], title: str = "", label: str = ""
) -> Figure:
    """Draw each estimate as a point with its interval, below each other, with a line at zero.

    Args:
        estimates: The estimates by name, each with ``value``, ``low`` and ``high``.
        title: The title.
        label: The label of the axis, with its unit.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> from types import SimpleNamespace
        >>> effect = SimpleNamespace(value=2.0, low=1.5, high=2.6)
        >>> figure = draw_estimates({"effect": effect}, "effect of age", "volume (ml)")
        >>> figure.axes[0].get_xlabel()
        'volume (ml)'
    """
    if not estimates:
        raise ValueError("estimates: expected at least one, but got none.")
    names = [wrapped(name, _LONGEST) for name in estimates]
    heading = wrapped(title, 70)
    lines = sum(max(name.count("\n") + 1, 1) for name in names)
    height = 1.1 + 0.17 * heading.count("\n") + 0.24 * max(lines, 2)
    figure = PlainFigure(
        figsize=(width_of(names, _FONT) + 4.6, height), dpi=150, layout="constrained"
    )
    axes = figure.add_subplot()
    axes.axvline(0, color=_ZERO, linewidth=0.8)
    for place, each in enumerate(estimates.values()):
        axes.plot([each.low, each.high], [place, place], color=_POINT, linewidth=1.6)
        axes.plot([each.value], [place], "o", color=_POINT, markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=_FONT)
    axes.set_title(heading, fontsize=_FONT)
    finish_axes(axes)
    return figure
