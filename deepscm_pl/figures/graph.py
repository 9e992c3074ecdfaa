"""A causal graph as a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import networkx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from deepscm_pl.figures.output import PlainFigure
from deepscm_pl.graph import CausalGraph

__all__ = ["draw_graph"]


def draw_graph(
    graph: CausalGraph,
    faint: Collection[tuple[str, str]] = (),
    missing: Collection[tuple[str, str]] = (),
) -> Figure:
    """Draw causes above effects, an arrow for each edge.

    A variable stands one level below its lowest cause.

    Args:
        graph: The graph.
        faint: Edges that are drawn as grey broken arrows.
        missing: Pairs of variables that are joined by a red line, such as contradictions.

    Example:
        >>> figure = draw_graph(CausalGraph("age -> volume; age, volume -> image"))
        >>> len(figure.axes)
        1
    """
    network = graph.to_networkx()
    # Lists, since the order of the sets that networkx makes of attributes depends on hashes.
    levels = list(networkx.topological_generations(network))
    layers = dict(enumerate(levels))
    positions = networkx.multipartite_layout(network, subset_key=layers, align="horizontal")
    placed = {
        node: _bend(float(positions[node][0]), float(positions[node][1]), level)
        for level, nodes in layers.items()
        for node in nodes
    }
    longest = max(len(node) for node in graph.nodes)
    width = max(3.0, 0.16 * longest * max(map(len, levels)))
    figure = PlainFigure(figsize=(width + 1.5, 1.2 * len(levels) + 0.6), dpi=150)
    axes = figure.add_subplot()
    networkx.draw_networkx_nodes(network, placed, ax=axes, node_color="none", node_size=1200)
    below = _draw_boxes(axes, placed, 3)
    for cause, effect in network.edges:
        colour, line = ("0.7", "--") if (cause, effect) in faint else ("black", "-")
        style = {"arrowstyle": "-|>", "color": colour, "linestyle": line, "linewidth": 1.2}
        _join(axes, below[cause], below[effect], **style)
    for cause, effect in missing:
        style = {"arrowstyle": "-", "color": "#c8502d", "linestyle": ":", "linewidth": 2}
        _join(axes, below[cause], below[effect], connectionstyle="arc3,rad=0.25", **style)
    _draw_boxes(axes, placed, 5)  # above arrows that pass
    axes.margins(0.25)
    axes.set_axis_off()
    return figure


def _draw_boxes(
    axes: Axes, placed: Mapping[str, tuple[float, float]], zorder: int
) -> dict[str, Text]:
    style = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#3b5b92"}
    place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11, "zorder": zorder}
    return {name: axes.text(*at, name, bbox=style, **place) for name, at in placed.items()}


def _join(axes: Axes, cause: Text, effect: Text, **style: Any) -> None:
    """Draw an arrow from box to box, whose extents are known once they are drawn: before it."""
    ends: dict[str, Any] = {"posA": cause.get_position(), "posB": effect.get_position()}
    ends |= {"patchA": cause.get_bbox_patch(), "patchB": effect.get_bbox_patch()}
    space: dict[str, Any] = {"shrinkA": 1, "shrinkB": 2}
    axes.add_patch(FancyArrowPatch(mutation_scale=16, zorder=4, **ends, **space, **style))


def _bend(x: float, y: float, level: int) -> tuple[float, float]:
    """Causes at the top; every other level aside, so that edges over it pass beside its nodes."""
    return x + 0.25 * (level % 2), -y
