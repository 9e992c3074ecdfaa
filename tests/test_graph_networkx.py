"""The networkx graph inside, messages about cycles, and drawings that do not depend on hashes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from deepscm_pl.graph import CausalGraph

EDGES = "age, sex, site -> brain; age, brain -> ventricle; brain, ventricle, scanner -> image"


def in_process(code, seed):
    environment = os.environ | {"PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_copy_keeps_the_order_and_leaves_the_graph_unchanged():
    graph = CausalGraph(EDGES)
    network = graph.to_networkx()
    assert tuple(network) == tuple(graph) == graph.nodes
    assert {name: tuple(network.predecessors(name)) for name in network} == graph.parents
    network.remove_node("age")
    assert "age" in graph.ancestors("image")


def test_pickled_graphs_are_equal():
    graph = CausalGraph(EDGES)
    assert pickle.loads(pickle.dumps(graph)) == graph


@pytest.mark.parametrize("text", ["a -> b -> c -> a; x -> a", "x -> a; b -> c; c -> a -> b"])
def test_cycle_is_shown_in_the_direction_of_its_edges(text):
    cycle = "(a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)"
    with pytest.raises(ValueError, match=f"there is a cycle, {cycle}; remove one"):
        CausalGraph(text)


def test_drawing_does_not_depend_on_the_seed_of_hashes():
    code = (
        "from deepscm_pl.figures import draw_graph\n"
        "from deepscm_pl.graph import CausalGraph\n"
        f"axes = draw_graph(CausalGraph({EDGES!r})).axes[0]\n"
        "print([(text.get_text(), text.get_position()) for text in axes.texts])\n"
    )
    first, second = (in_process(code, seed).stdout for seed in (1, 2))
    assert first == second
    assert first.count("(") == 28  # the boxes below the arrows, and above those that pass


def test_import_of_the_graph_leaves_networkx_out():
    code = "import sys, deepscm_pl.graph; print('networkx' in sys.modules)"
    assert in_process(code, 0).stdout.strip() == "False"


def test_star_imports_take_the_names_of_a_lazy_package():
    code = "from deepscm_pl.worlds import *; print(known_world.__name__, BrainWorld.__name__)"
    assert in_process(code, 0).stdout.split() == ["known_world", "BrainWorld"]
