"""The drawing of a causal graph: boxes in levels, and curves beside boxes."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from deepscm_pl.explorer import draw_boxes
from deepscm_pl.graph import CausalGraph


def random_graph(seed):
    generator = random.Random(seed)
    names = [f"v{k}" for k in range(generator.randint(1, 14))]
    share = generator.random()
    return CausalGraph(
        {name: [each for each in names[:k] if generator.random() < share]
         for k, name in enumerate(names)}
    )  # fmt: skip


def points_of(path):
    """Points on a path of lines and cubic curves."""
    found, at = [], None
    for kind, numbers in re.findall(r"([MLC])([^MLC]+)", path):
        values = list(map(float, numbers.split()))
        pairs = list(zip(values[::2], values[1::2], strict=True))
        ends = [pairs[0], *pairs] if kind == "M" else [at, *pairs]
        for k in range(21):
            t = k / 20
            level = ends
            while len(level) > 1:
                level = [(a + t * (c - a), b + t * (d - b)) for (a, b), (c, d) in pairwise(level)]
            found.append(level[0])
        at = pairs[-1]
    return found


@pytest.mark.parametrize("seed", range(40))
def test_boxes_are_apart_and_curves_pass_beside_them(seed):
    graph = random_graph(seed)
    heights = {name: random.Random(name).choice([50.0, 76.0]) for name in graph}
    drawing = draw_boxes(graph, heights)
    assert [(each.cause, each.effect) for each in drawing.curves] == list(graph.edges)
    boxes = list(drawing.boxes.items())
    for k, (name, box) in enumerate(boxes):
        assert box.x >= 0
        assert box.x + box.width <= drawing.width
        assert box.y >= 0
        assert box.y + box.height <= drawing.height
        assert all(drawing.boxes[cause].y < box.y for cause in graph.parents[name])
        for _, other in boxes[:k]:
            apart_x = box.x >= other.x + other.width or other.x >= box.x + box.width
            apart_y = box.y >= other.y + other.height or other.y >= box.y + box.height
            assert apart_x or apart_y
    for curve in drawing.curves:
        points = points_of(curve.path)
        cause, effect = drawing.boxes[curve.cause], drawing.boxes[curve.effect]
        assert points[0][1] == pytest.approx(cause.y + cause.height, abs=0.2)
        assert points[-1][1] == pytest.approx(effect.y, abs=0.2)
        for x, y in points[1:-1]:
            for name, box in boxes:
                if name not in (curve.cause, curve.effect):
                    assert not (box.x < x < box.x + box.width and box.y < y < box.y + box.height), (
                        str(graph),
                        curve,
                        name,
                    )


def test_a_cause_stands_one_level_above_its_highest_effect():
    graph = CausalGraph("thickness; thickness -> intensity; thickness, intensity, digit -> image")
    boxes = draw_boxes(graph, dict.fromkeys(graph, 50.0)).boxes
    assert boxes["digit"].y == boxes["intensity"].y > boxes["thickness"].y


def test_drawings_do_not_depend_on_hashes():
    graph = random_graph(3)
    heights = dict.fromkeys(graph, 50.0)
    assert draw_boxes(graph, heights) == draw_boxes(CausalGraph(graph.parents), heights)
