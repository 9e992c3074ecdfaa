"""Check a causal graph against a table by the independences that it implies.

A graph that is wrong implies independences that the data contradict. As in DoWhy's falsification of
graphs (Eulig et al. 2023, arXiv:2305.09565), the number of contradictions is compared with that of
random graphs of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import networkx
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.evaluation.independence import Dependence, IndependenceTest, MixedTable, adjusted
from deepscm_pl.graph import CausalGraph

__all__ = [
    "GraphCheck",
    "Independence",
    "TestedEdge",
    "TestedIndependence",
    "check_graph",
    "equivalent_graphs",
    "implied_independences",
]

_MOST_ROWS = 4000
_MOST_EQUIVALENT = 200
_FEW = 0.1  # share of random graphs that do as well, up to which the check says something
_POWER = 1.96 + 0.84  # of a test of level 5 % that finds a dependence in 80 %


@dataclass(frozen=True)
class Independence:
    """The statement that two variables are independent given others.

    Example:
        >>> str(Independence("sex", "ventricles", ("age", "brain")))
        'sex and ventricles given age, brain'
    """

    first: str
    second: str
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        given = f" given {', '.join(self.given)}" if self.given else ""
        return f"{self.first} and {self.second}{given}"


def implied_independences(
    graph: CausalGraph, observed: Collection[str] | None = None
) -> tuple[list[Independence], list[tuple[str, str]]]:
    """List the conditional independences that a graph implies.

    Every variable is independent of those that it does not cause, given its parents. If a parent is
    not observed, such as an image, another smallest set of variables takes their place.

    Args:
        graph: The graph.
        observed: The variables that can be tested; None for all.

    Returns:
        The statements, from which all others follow if every variable is observed, and the pairs
        of variables without an edge that no observed variables make independent.

    Example:
        >>> found, _ = implied_independences(CausalGraph("a -> b -> c; a -> d"))
        >>> [str(each) for each in found]
        ['b and d given a', 'c and a given b', 'c and d given b', 'd and c given a']
    """
    names = [name for name in graph if observed is None or name in observed]
    network = graph.to_networkx()
    found: dict[tuple[frozenset[str], frozenset[str]], Independence] = {}
    left = []
    for name in names:
        parents = set(graph.parents[name])
        others = [o for o in names if o not in graph.descendants(name) | parents | {name}]
        for other in others:
            given: set[str] | None = parents
            if not parents <= set(names):
                free = set(names) - {name, other}
                given = networkx.find_minimal_d_separator(network, name, other, restricted=free)
            if given is None:
                left.append((other, name))
                continue
            key = frozenset((name, other)), frozenset(given)
            order = tuple(each for each in names if each in given)
            found.setdefault(key, Independence(name, other, order))
    return list(found.values()), left


def equivalent_graphs(graph: CausalGraph, most: int = _MOST_EQUIVALENT) -> list[CausalGraph]:
    """List other graphs that imply the same independences, which no such test can tell apart.

    They are found by reversing covered edges: x → y where the parents of y are x and those of x
    (Chickering 1995, theorem 2).

    Args:
        graph: The graph.
        most: Largest number of graphs.

    Example:
        >>> [str(each) for each in equivalent_graphs(CausalGraph("a -> b; b -> c"))]
        ['b; b -> a; b -> c', 'c; c -> b; b -> a']
        >>> equivalent_graphs(CausalGraph("a, b -> c"))
        []
    """
    start = {name: frozenset(parents) for name, parents in graph.parents.items()}
    seen = {_key(start)}
    waiting = [start]
    found: list[CausalGraph] = []
    while waiting:
        parents = waiting.pop(0)
        for child, causes in parents.items():
            for cause in sorted(causes):
                if parents[cause] != causes - {cause}:
                    continue
                turned = {**parents, child: causes - {cause}, cause: parents[cause] | {child}}
                if _key(turned) in seen:
                    continue
                if len(found) == most:
                    return found
                seen.add(_key(turned))
                waiting.append(turned)
                found.append(CausalGraph({n: sorted(each) for n, each in turned.items()}))
    return found


def _key(parents: Mapping[str, frozenset[str]]) -> frozenset[tuple[str, str]]:
    return frozenset((cause, name) for name, causes in parents.items() for cause in causes)


@dataclass(frozen=True)
class TestedIndependence:
    """An implied independence, and what the table says about it.

    Attributes:
        statement: The independence.
        dependence: The result of the test.
        adjusted: The p-value, adjusted for the number of tests by the method of Holm.
        contradicted: Whether ``adjusted`` is below the level of the check.
    """

    __test__ = False  # not a class of pytest

    statement: Independence
    dependence: Dependence
    adjusted: float
    contradicted: bool


@dataclass(frozen=True)
class TestedEdge:
    """An edge, and whether the table shows a dependence given the other parents of the effect.

    Attributes:
        cause: The cause.
        effect: The effect.
        dependence: The result of the test.
        shown: Whether there is a dependence at the level of the check.
    """

    __test__ = False

    cause: str
    effect: str
    dependence: Dependence
    shown: bool


@dataclass(frozen=True)
class GraphCheck:
    """The consistency of a graph with a table.

    Attributes:
        graph: The graph.
        rows: Number of rows that were tested.
        level: The level of the tests.
        tests: The implied independences.
        edges: The edges between tested variables.
        untestable: Pairs of variables without an edge whose independence cannot be tested.
        untested: Variables of the graph that the table does not have as numbers or classes.
        contradictions: Number of tests with a p-value below the level, not adjusted.
        random: The same number for each random graph that implies other independences, ``(R,)``.
        equivalent_share: Share of all random graphs that imply the same independences.
        alternatives: Other graphs that imply the same independences, at most 200.
    """

    graph: CausalGraph
    rows: int
    level: float
    tests: Sequence[TestedIndependence]
    edges: Sequence[TestedEdge]
    untestable: Sequence[tuple[str, str]]
    untested: Sequence[str]
    contradictions: int
    random: NDArray[np.int64]
    equivalent_share: float
    alternatives: Sequence[CausalGraph]

    @property
    def contradicted(self) -> list[TestedIndependence]:
        """The contradicted independences, the clearest first."""
        found = [each for each in self.tests if each.contradicted]
        return sorted(found, key=lambda each: each.dependence.p_value)

    @property
    def as_good(self) -> float:
        """Share of the random graphs with as few contradictions; NaN without any graphs."""
        return float((self.random <= self.contradictions).mean()) if len(self.random) else math.nan

    @property
    def smallest_correlation(self) -> float:
        """The partial correlation that a single test finds in four of five tables."""
        rows = min((each.dependence.rows for each in self.tests), default=self.rows)
        return _POWER / math.sqrt(rows)

    @property
    def is_consistent(self) -> bool | None:
        """Whether no implied independence is contradicted; None if there are none to test."""
        return not self.contradicted if self.tests else None

    @property
    def open_edges(self) -> list[tuple[str, str]]:
        """Edges that have the other direction in an equivalent graph."""
        turned = {edge for each in self.alternatives for edge in each.edges}
        return [(cause, name) for cause, name in self.graph.edges if (name, cause) in turned]

    @property
    def verdicts(self) -> dict[str, str]:
        """A sentence for each item: independences, random graphs, edges and alternatives."""
        found = {"independences": self._independences()}
        if not math.isnan(self.equivalent_share):
            found["random graphs"] = self._random()
        if self.edges:
            found["edges"] = self._edges()
        found["alternatives"] = self._alternatives()
        return found

    def _independences(self) -> str:
        if not self.tests:
            return (
                "not testable: the graph implies no independence of the variables in the table, so "
                "that no table can contradict it"
            )
        total, size = len(self.tests), self.smallest_correlation
        about = (
            f"{self.rows:,} rows, from which a partial correlation of {size:.2f} is found in four "
            "of five tables"
        )
        wrong = self.contradicted
        if not wrong:
            return f"consistent: none of {total} implied independences is contradicted ({about})"
        shown = "; ".join(f"{each.statement}" for each in wrong[:3])
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return (
            f"contradicted: {len(wrong)} of {total} implied independences do not hold "
            f"({shown}{more}; {about}); an edge or a common cause is missing, or an edge is turned"
        )

    def _random(self) -> str:
        graphs, share = len(self.random), self.as_good
        if not graphs:
            return "uninformative: all random graphs of this shape imply the same independences"
        compared = (
            f"{share:.0%} of {graphs} random graphs of this shape, with other independences, have "
            "as few contradictions"
        )
        if share <= _FEW:
            return f"better than chance: {compared}"
        return f"no better than chance: {compared}, so that the tests hardly support this graph"

    def _edges(self) -> str:
        hidden = [f"{each.cause} -> {each.effect}" for each in self.edges if not each.shown]
        if not hidden:
            return f"shown: the table shows a dependence along each of {len(self.edges)} edges"
        return (
            f"not shown: {', '.join(hidden)}, given the other parents; the effect may be too small "
            "for these rows, or there is none"
        )

    def _alternatives(self) -> str:
        count = len(self.alternatives)
        if not count:
            return "none: no other graph implies the same independences"
        many = f"at least {count}" if count == _MOST_EQUIVALENT else str(count)
        open_edges = ", ".join(f"{cause} -> {name}" for cause, name in self.open_edges)
        plural = "s imply" if count > 1 else " implies"
        return (
            f"open: {many} other graph{plural} the same independences; these tests say nothing "
            f"about the direction of {open_edges}"
        )


def check_graph(
    graph: CausalGraph,
    table: MixedTable,
    level: float = 0.05,
    permutations: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> GraphCheck:
    """Test every independence that a graph implies, and compare with random graphs of its shape.

    Random graphs have the variables of the table in a random order at the nodes of the graph.

    Args:
        graph: The graph; variables that the table lacks, such as images, stay untested.
        table: Independent rows; 4,000 of them, drawn at random, are used if there are more.
        level: Level of the tests.
        permutations: Number of random graphs; 0 for none.
        seed: Seed of the rows, of the random graphs and of p-values.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If fewer than two variables are in the table, or it has fewer than 30 rows.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=(3, 300))
        >>> age, volume = noise[0], noise[0] + noise[1]
        >>> table = MixedTable({"age": age, "volume": volume, "score": volume + noise[2]})
        >>> check = check_graph(CausalGraph("age -> volume -> score"), table, progress=False)
        >>> check.is_consistent, len(check.tests), len(check.alternatives)
        (True, 1, 2)
        >>> check_graph(CausalGraph("age, volume; volume -> score"), table).is_consistent
        False
    """
    real_number("level", level, above=0, most=0.5)
    whole_number("permutations", permutations, least=0)
    names = _names_in(table, graph)
    generator = np.random.default_rng(seed)
    if len(table) > _MOST_ROWS:
        table = table.taken(np.sort(generator.choice(len(table), _MOST_ROWS, replace=False)))
    test = IndependenceTest(table, seed)
    statements, untestable = implied_independences(graph, names)
    shuffled = list(_random_graphs(graph, names, permutations, generator)) if statements else []
    others = [each for each in shuffled if _class_of(each) != _class_of(graph)]
    with tqdm(
        total=len(statements) * (1 + len(shuffled)),
        desc="independences",
        disable=None if progress else True,
    ) as bar:
        found = [_tested(test, each, bar) for each in statements]
        counts = [
            sum(
                _tested(test, each, bar).p_value < level
                for each in implied_independences(other, names)[0]
            )
            for other in others
        ]
    smaller = adjusted([each.p_value for each in found])
    return GraphCheck(
        graph=graph,
        rows=len(table),
        level=level,
        tests=[
            TestedIndependence(statement, dependence, p_value, p_value < level)
            for statement, dependence, p_value in zip(statements, found, smaller, strict=True)
        ],
        edges=list(_tested_edges(graph, names, test, level)),
        untestable=untestable,
        untested=[name for name in graph if name not in names],
        contradictions=sum(each.p_value < level for each in found),
        random=np.asarray(counts, dtype=np.int64),
        equivalent_share=(len(shuffled) - len(others)) / len(shuffled) if shuffled else math.nan,
        alternatives=equivalent_graphs(graph),
    )


def _names_in(table: MixedTable, graph: CausalGraph) -> list[str]:
    names = [name for name in graph if name in table.columns]
    if len(names) < 2:
        raise ValueError(
            f"graph: expected at least two variables that the table has as numbers or classes, but "
            f"got {', '.join(names) or 'none'}; a check needs more."
        )
    return names


def _tested(test: IndependenceTest, statement: Independence, bar: tqdm[NoReturn]) -> Dependence:
    found = test(statement.first, statement.second, statement.given)
    bar.update()
    return found


def _tested_edges(
    graph: CausalGraph, names: Sequence[str], test: IndependenceTest, level: float
) -> Iterator[TestedEdge]:
    for cause, effect in graph.edges:
        if cause in names and effect in names:
            others = [each for each in graph.parents[effect] if each in names and each != cause]
            dependence = test(cause, effect, others)
            yield TestedEdge(cause, effect, dependence, dependence.p_value < level)


def _random_graphs(
    graph: CausalGraph, names: Sequence[str], count: int, generator: np.random.Generator
) -> Iterator[CausalGraph]:
    """Graphs with the tested variables in random order; those that equal the graph are included."""
    for _ in range(count):
        place = dict(zip(names, generator.permutation(names).tolist(), strict=True))
        parents = {
            place.get(name, name): [place.get(each, each) for each in causes]
            for name, causes in graph.parents.items()
        }
        yield CausalGraph(parents)


def _class_of(
    graph: CausalGraph,
) -> tuple[frozenset[frozenset[str]], frozenset[tuple[frozenset[str], str]]]:
    """Skeleton and colliders, which two graphs share if they imply the same independences."""
    pairs = {frozenset(edge) for edge in graph.edges}
    colliders = {
        (frozenset((first, second)), name)
        for name, causes in graph.parents.items()
        for first in causes
        for second in causes
        if first != second and frozenset((first, second)) not in pairs
    }
    return frozenset(pairs), frozenset(colliders)
