"""A graph is checked against a table, random graphs of its shape and equivalent graphs."""

from __future__ import annotations

from itertools import combinations

import networkx
import numpy as np
import pytest

from deepscm_pl.evaluation.graph_check import (
    check_graph,
    equivalent_graphs,
    implied_independences,
)
from deepscm_pl.evaluation.independence import MixedTable
from deepscm_pl.graph import CausalGraph

HEADS = "age, sex -> brain; age, brain -> ventricle"


def heads(size: int = 800, seed: int = 0) -> MixedTable:
    generator = np.random.default_rng(seed)
    age, u, v = generator.normal(size=(3, size))
    sex = generator.integers(0, 2, size).astype(float)
    brain = -0.5 * age + sex + 0.5 * u
    ventricle = np.exp(0.5 * age) - 0.7 * brain + 0.5 * v
    columns = {"age": age, "sex": sex, "brain": brain, "ventricle": ventricle}
    return MixedTable(columns, {"sex"})


def random_graph(seed: int) -> CausalGraph:
    generator = np.random.default_rng(seed)
    names = [f"v{k}" for k in range(int(generator.integers(2, 6)))]
    parents = {
        name: [each for each in names[:k] if generator.random() < 0.5]
        for k, name in enumerate(names)
    }
    return CausalGraph(parents)


@pytest.mark.parametrize("seed", range(30))
def test_every_statement_is_a_separation_and_every_pair_has_one(seed):
    graph = random_graph(seed)
    found, left = implied_independences(graph)
    network = graph.to_networkx()
    assert not left
    for each in found:
        assert networkx.is_d_separator(network, {each.first}, {each.second}, set(each.given))
    apart = {frozenset(pair) for pair in combinations(graph, 2)} - set(map(frozenset, graph.edges))
    assert {frozenset((each.first, each.second)) for each in found} == apart


@pytest.mark.parametrize("seed", range(30))
def test_equivalent_graphs_imply_the_same_separations(seed):
    graph = random_graph(seed)
    others = equivalent_graphs(graph)
    assert len({frozenset(each.edges) for each in [graph, *others]}) == 1 + len(others)
    assert all(separations(each) == separations(graph) for each in others)
    # All of them: every orientation of the edges without a cycle is compared.
    if len(graph.edges) <= 6:
        assert len(others) == sum(separations(e) == separations(graph) for e in turned(graph)) - 1


def separations(graph: CausalGraph) -> set[tuple[frozenset[str], frozenset[str]]]:
    network = graph.to_networkx()
    return {
        (frozenset(pair), frozenset(given))
        for pair in combinations(sorted(graph), 2)
        for size in range(len(graph.nodes) - 1)
        for given in combinations(sorted(set(graph) - set(pair)), size)
        if networkx.is_d_separator(network, {pair[0]}, {pair[1]}, set(given))
    }


def turned(graph: CausalGraph):
    for code in range(2 ** len(graph.edges)):
        parents: dict[str, list[str]] = {name: [] for name in graph}
        for k, (cause, name) in enumerate(graph.edges):
            first, second = (name, cause) if code >> k & 1 else (cause, name)
            parents[second].append(first)
        try:
            yield CausalGraph(parents)
        except ValueError:  # a cycle
            continue


def test_the_true_graph_is_consistent_and_better_than_random_ones():
    check = check_graph(CausalGraph(HEADS), heads(), permutations=24, progress=False)
    assert check.is_consistent
    assert len(check.tests) == 2
    assert all(each.shown for each in check.edges)
    assert check.verdicts["independences"].startswith("consistent: none of 2")
    assert check.verdicts["random graphs"].startswith("better than chance")
    assert check.verdicts["alternatives"].startswith("none")


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        ("age, sex -> brain -> ventricle", {"age", "ventricle"}),
        ("age -> brain; age, brain -> ventricle; sex", {"sex", "brain"}),
        ("brain -> age; brain -> sex; age, brain -> ventricle", {"age", "sex"}),
    ],
    ids=["no edge from age to ventricle", "no edge from sex", "turned edges"],
)
def test_a_wrong_graph_is_contradicted(graph, wrong):
    check = check_graph(CausalGraph(graph), heads(), permutations=0, progress=False)
    assert check.is_consistent is False
    worst = check.contradicted[0].statement
    assert {worst.first, worst.second} == wrong
    assert check.verdicts["independences"].startswith("contradicted")
    assert "random graphs" not in check.verdicts


def test_an_edge_without_effect_is_named():
    table = heads()
    check = check_graph(CausalGraph(f"{HEADS}; sex -> ventricle"), table, progress=False)
    assert [(e.cause, e.effect) for e in check.edges if not e.shown] == [("sex", "ventricle")]
    assert "sex -> ventricle" in check.verdicts["edges"]


def test_a_complete_graph_cannot_be_contradicted():
    check = check_graph(CausalGraph("age -> sex; age, sex -> brain"), heads(), progress=False)
    assert check.is_consistent is None
    assert check.verdicts["independences"].startswith("not testable")
    assert len(check.alternatives) == 5
    assert set(check.open_edges) == set(check.graph.edges)


def test_images_are_left_untested():
    graph = CausalGraph(f"{HEADS}; brain, ventricle -> image; image -> diagnosis")
    table = heads()
    generator = np.random.default_rng(1)
    diagnosis = table.columns["ventricle"] + table.columns["brain"] + generator.normal(size=800)
    columns = {**table.columns, "diagnosis": diagnosis}
    check = check_graph(graph, MixedTable(columns, {"sex"}), permutations=0, progress=False)
    assert check.untested == ["image"]
    assert check.is_consistent
    # The image cannot be given, but its causes can.
    (found,) = (
        e for e in check.tests if {e.statement.first, e.statement.second} == {"age", "diagnosis"}
    )
    assert set(found.statement.given) == {"brain", "ventricle"}
    assert set(map(frozenset, check.untestable)) == {
        frozenset(("brain", "diagnosis")),
        frozenset(("ventricle", "diagnosis")),
    }


def test_the_same_seed_gives_the_same_check():
    first, second = (
        check_graph(CausalGraph(HEADS), heads(200), permutations=5, seed=3, progress=False)
        for _ in range(2)
    )
    assert first.tests == second.tests
    assert first.random.tolist() == second.random.tolist()


def test_large_tables_are_thinned():
    assert check_graph(CausalGraph("age, sex"), heads(5000), permutations=0).rows == 4000


def test_one_variable_is_refused():
    with pytest.raises(ValueError, match=r"at least two variables.*but got age"):
        check_graph(CausalGraph("age -> image"), heads())
    with pytest.raises(ValueError, match="level"):
        check_graph(CausalGraph(HEADS), heads(), level=0)
