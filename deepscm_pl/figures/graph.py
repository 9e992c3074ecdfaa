"""A causal graph as a picture."""

from __future__ import annotations

from collections.abc import Collection

import networkx
from matplotlib.figure import Figure

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
    networkx.draw_networkx(
        network,
        placed,
        ax=axes,
        node_color="none",
        node_size=1200,
        arrowsize=16,
        width=1.2,
        edge_color=["0.7" if edge in faint else "black" for edge in network.edges],
        style=["--" if edge in faint else "-" for edge in network.edges],
        bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#3b5b92"},
        font_size=11,
    )
    if missing:
        drawn = networkx.DiGraph(list(missing))
        networkx.draw_networkx_edges(
            drawn,
            placed,
            ax=axes,
            arrowstyle="-",
            edge_color="#c8502d",
            style=":",
            width=2,
            node_size=1200,
            connectionstyle="arc3,rad=0.25",
        )
    axes.margins(0.25)
    axes.set_axis_off()
    return figure


def _bend(x: float, y: float, level: int) -> tuple[float, float]:
    """Causes at the top; every other level aside, so that edges over it pass beside its nodes."""
    return x + 0.25 * (level % 2), -y
