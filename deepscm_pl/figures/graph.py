"""A causal graph as a picture."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import networkx
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

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
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "#3b5b92"}
    labels = {"ax": axes, "font_size": 11, "bbox": box, "clip_on": False}
    texts = networkx.draw_networkx_labels(network, placed, **labels)

    def join(cause: str, effect: str, **style: Any) -> None:
        # From box to box, whose extent is known only once they are drawn: below the arrows.
        ends = texts[cause].get_bbox_patch(), texts[effect].get_bbox_patch()
        arrow = FancyArrowPatch(
            placed[cause],
            placed[effect],
            patchA=ends[0],
            patchB=ends[1],
            shrinkA=1,
            shrinkB=2,
            mutation_scale=16,
            zorder=texts[effect].zorder + 1,
            **style,
        )
        axes.add_patch(arrow)

    for cause, effect in network.edges:
        colour, line = ("0.7", "--") if (cause, effect) in faint else ("black", "-")
        join(cause, effect, arrowstyle="-|>", color=colour, linestyle=line, linewidth=1.2)
    for cause, effect in missing:
        bent = {"arrowstyle": "-", "connectionstyle": "arc3,rad=0.25"}
        join(cause, effect, color="#c8502d", linestyle=":", linewidth=2, **bent)
    for text in networkx.draw_networkx_labels(network, placed, **labels).values():
        text.set_zorder(texts[text.get_text()].zorder + 2)  # above arrows that pass
    axes.margins(0.25)
    axes.set_axis_off()
    return figure


def _bend(x: float, y: float, level: int) -> tuple[float, float]:
    """Causes at the top; every other level aside, so that edges over it pass beside its nodes."""
    return x + 0.25 * (level % 2), -y
