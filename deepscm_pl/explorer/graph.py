"""The causal graph as boxes in levels, and as curves that pass beside boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deepscm_pl.graph import CausalGraph

__all__ = ["Box", "Curve", "GraphDrawing", "draw_boxes"]

_WIDTH, _GAP, _LEVEL_GAP, _MARGIN = 148.0, 20.0, 40.0, 6.0
_LANE = 14.0
"""Width of an edge that passes beside boxes."""
_PORT = 14.0
"""Largest distance of edges that enter or leave a box side by side."""
_SWEEPS = 8

_Item = tuple[str, str]
"""A variable ``(name, "")``, or an edge ``(cause, effect)`` where it passes a level."""


@dataclass(frozen=True)
class Box:
    """The box of a variable, in pixels from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Curve:
    """The edge from a cause to an effect, as the path of an SVG."""

    cause: str
    effect: str
    path: str


@dataclass(frozen=True)
class GraphDrawing:
    """A causal graph, causes above effects.

    Attributes:
        width: The width in pixels.
        height: The height in pixels.
        boxes: The box of each variable.
        curves: The edges.
    """

    width: float
    height: float
    boxes: Mapping[str, Box]
    curves: Sequence[Curve]


def draw_boxes(graph: CausalGraph, heights: Mapping[str, float]) -> GraphDrawing:
    """Draw causes above effects, in levels.

    A variable stands one level below its lowest cause; one without causes, one level above its
    highest effect. Edges pass a level between its boxes.

    Args:
        graph: The graph.
        heights: The height of each box in pixels.

    Example:
        >>> drawing = draw_boxes(CausalGraph("a -> b -> c; a -> c"), dict.fromkeys("abc", 44.0))
        >>> drawing.boxes["a"].y < drawing.boxes["b"].y < drawing.boxes["c"].y
        True
        >>> len(drawing.curves)
        3
    """
    levels = _levels(graph)
    layers, links = _layers(graph, levels)
    _reduce_crossings(layers, links)
    centres = _centres(layers, links)
    tops, y = [], _MARGIN
    for layer in layers:
        tops.append(y)
        y += max((heights[name] for name, other in layer if not other), default=0) + _LEVEL_GAP
    ends = [top - _LEVEL_GAP for top in tops[1:]] + [y - _LEVEL_GAP]
    left = min(centres[item] - _size(item) / 2 for item in centres) - _MARGIN
    right = max(centres[item] + _size(item) / 2 for item in centres) + _MARGIN
    boxes = {
        name: Box(
            round(centres[name, ""] - left - _WIDTH / 2, 1),
            round((tops[levels[name]] + ends[levels[name]] - heights[name]) / 2, 1),
            _WIDTH,
            heights[name],
        )
        for name in graph
    }
    lanes = {item: centres[item] - left for item in centres}
    curves = [
        Curve(cause, effect, _path(graph, cause, effect, boxes, lanes, (levels, tops, ends)))
        for cause, effect in graph.edges
    ]
    return GraphDrawing(round(right - left, 1), round(ends[-1] + _MARGIN, 1), boxes, curves)


def _levels(graph: CausalGraph) -> dict[str, int]:
    """The level of each variable, from the top."""
    found: dict[str, int] = {}
    for name, causes in graph.parents.items():
        found[name] = max((found[cause] + 1 for cause in causes), default=0)
    for name, causes in graph.parents.items():
        effects = [found[effect] for effect in graph.children(name)]
        if not causes and effects:
            found[name] = min(effects) - 1
    return found


def _layers(
    graph: CausalGraph, levels: Mapping[str, int]
) -> tuple[list[list[_Item]], list[tuple[_Item, _Item]]]:
    """The items of each level, and pairs of items in neighbouring levels that an edge joins."""
    layers: list[list[_Item]] = [[] for _ in range(max(levels.values()) + 1)]
    for name in graph:
        layers[levels[name]].append((name, ""))
    links = []
    for cause, effect in graph.edges:
        inner = range(levels[cause] + 1, levels[effect])
        for level in inner:
            layers[level].append((cause, _passing(effect, level)))
        chain = [(cause, ""), *((cause, _passing(effect, k)) for k in inner), (effect, "")]
        links += list(pairwise(chain))
    return layers, links


def _passing(effect: str, level: int) -> str:
    return f"{effect} {level}"  # names have no spaces


def _size(item: _Item) -> float:
    return _LANE if item[1] else _WIDTH


def _neighbours(links: Sequence[tuple[_Item, _Item]]) -> dict[_Item, list[_Item]]:
    found: dict[_Item, list[_Item]] = {}
    for above, below in links:
        found.setdefault(above, []).append(below)
        found.setdefault(below, []).append(above)
    return found


def _reduce_crossings(layers: list[list[_Item]], links: Sequence[tuple[_Item, _Item]]) -> None:
    """Sort each level by the mean place of its neighbours, several times down and up."""
    near = _neighbours(links)
    for sweep in range(_SWEEPS):
        order = range(len(layers)) if sweep % 2 == 0 else range(len(layers) - 1, -1, -1)
        for level in order:
            other = level - 1 if sweep % 2 == 0 else level + 1
            if not 0 <= other < len(layers):
                continue
            place = {item: (k + 0.5) / len(layers[other]) for k, item in enumerate(layers[other])}
            own = {item: (k + 0.5) / len(layers[level]) for k, item in enumerate(layers[level])}
            keys = {
                item: _mean([place[n] for n in near.get(item, ()) if n in place], own[item])
                for item in layers[level]
            }
            layers[level].sort(key=keys.__getitem__)


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def _centres(
    layers: Sequence[Sequence[_Item]], links: Sequence[tuple[_Item, _Item]]
) -> dict[_Item, float]:
    """The horizontal centre of each item, near those of its neighbours."""
    near, centres, chains = _neighbours(links), dict[_Item, float](), _chains(layers)
    for layer in layers:
        total = sum(map(_size, layer)) + _GAP * (len(layer) - 1)
        x = -total / 2
        for item in layer:
            centres[item] = x + _size(item) / 2
            x += _size(item) + _GAP
    for sweep in range(8 * _SWEEPS):
        if sweep == 2 * _SWEEPS:
            near |= chains  # the lanes of an edge in one vertical line
        for layer in layers:
            wanted = [
                _mean([centres[n] for n in near.get(item, ())], centres[item]) for item in layer
            ]
            for item, x in zip(layer, _apart(layer, wanted), strict=True):
                centres[item] = x
    return centres


def _chains(layers: Sequence[Sequence[_Item]]) -> dict[_Item, list[_Item]]:
    """For each item where an edge passes a level, all such items of the edge."""
    edges: dict[_Item, list[_Item]] = {}
    for name, other in (item for layer in layers for item in layer):
        edges.setdefault((name, other.partition(" ")[0]), []).append((name, other))
    return {item: items for (_, effect), items in edges.items() if effect for item in items}


def _apart(layer: Sequence[_Item], wanted: Sequence[float]) -> list[float]:
    """Positions in order, at least a gap apart: the mean of pushing right and pushing left."""
    distances = [(_size(a) + _size(b)) / 2 + _GAP for a, b in pairwise(layer)]
    right, left = [wanted[0]], [wanted[-1]]
    for x, distance in zip(wanted[1:], distances, strict=True):
        right.append(max(x, right[-1] + distance))
    for x, distance in zip(wanted[-2::-1], distances[::-1], strict=True):
        left.append(min(x, left[-1] - distance))
    return [(a + b) / 2 for a, b in zip(right, left[::-1], strict=True)]


def _path(
    graph: CausalGraph,
    cause: str,
    effect: str,
    boxes: Mapping[str, Box],
    lanes: Mapping[_Item, float],
    rows: tuple[Mapping[str, int], Sequence[float], Sequence[float]],
) -> str:
    """The path of an edge: down from the cause, through its lanes, into the effect."""
    levels, tops, ends = rows
    inner = range(levels[cause] + 1, levels[effect])
    xs = [lanes[cause, _passing(effect, k)] for k in inner]

    def middle(name: str) -> float:
        return boxes[name].x + boxes[name].width / 2

    def first_x(other: str) -> float:
        near = (cause, _passing(other, levels[cause] + 1))
        return lanes.get(near, middle(other))

    def last_x(other: str) -> float:
        near = (other, _passing(effect, levels[effect] - 1))
        return lanes.get(near, middle(other))

    start = middle(cause) + _port(sorted(graph.children(cause), key=first_x), effect)
    end = middle(effect) + _port(sorted(graph.parents[effect], key=last_x), cause)
    x, y = start, ends[levels[cause]]
    path = f"M{x:.1f} {boxes[cause].y + boxes[cause].height:.1f}L{x:.1f} {y:.1f}"
    for k, lane in zip(inner, xs, strict=True):
        path += f"{_bend(x, y, lane, tops[k])}L{lane:.1f} {ends[k]:.1f}"
        x, y = lane, ends[k]
    return f"{path}{_bend(x, y, end, tops[levels[effect]])}L{end:.1f} {boxes[effect].y:.1f}"


def _port(others: Sequence[str], own: str) -> float:
    """The horizontal distance of an edge from the middle of a box, beside its other edges."""
    distance = min(_PORT, 0.6 * _WIDTH / max(len(others), 1))
    return (others.index(own) - (len(others) - 1) / 2) * distance


def _bend(x: float, y: float, to_x: float, to_y: float) -> str:
    """A curve that begins and ends vertically."""
    half = (y + to_y) / 2
    return f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}"
