"""Estimates with their intervals as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.figure import Figure

from deepscm_pl.figures.output import (
    PlainFigure,
    figure_of_panels,
    finish_axes,
    width_of,
    wrapped,
)

__all__ = ["draw_changes", "draw_estimates"]

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


def draw_changes(
    changes: Mapping[str, Sequence[tuple[float, float]]],
    names: Sequence[str],
    title: str = "",
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw values before and after a change, a panel for each variable and a row for each name.

    Args:
        changes: Values before and after, one pair for each name, by the label of the variable.
        names: The names of the rows.
        title: The title.
        classes: For the labels of categorical variables, the names of the classes.

    Raises:
        ValueError: If there is nothing to draw.

    Example:
        >>> figure = draw_changes({"age (years)": [(40.0, 55.0), (70.0, 70.0)]}, ["Ada", "Bo"])
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['Ada', 'Bo']
    """
    height = 0.9 + 0.24 * max(len(names), 2)
    figure, panels = figure_of_panels(
        len(changes), 2.6 + width_of(names, _FONT), height, below=0.2 + 0.17 * title.count("\n")
    )
    figure.suptitle(wrapped(title, 70), fontsize=_FONT)
    for axes, (label, pairs) in zip(panels, changes.items(), strict=True):
        for place, (before, after) in enumerate(pairs):
            axes.plot([before, after], [place, place], color=_POINT, linewidth=1.2)
            axes.plot([before], [place], "o", color=_ZERO, markersize=4)
            axes.plot([after], [place], "o", color=_POINT, markersize=4)
        known = (classes or {}).get(label)
        if known:
            axes.set_xticks(range(len(known)), known)
            axes.set_xlim(-0.5, len(known) - 0.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(f"{label}, before (grey) and after", fontsize=_FONT)
        if known:
            axes.tick_params(labelsize=_FONT)
            axes.spines[["top", "right"]].set_visible(False)
        else:
            finish_axes(axes)
    return figure
