"""Causal graphs: directed acyclic graphs over named variables, on networkx."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

__all__ = ["CausalGraph"]

_NAME_BYTES = 80
"""Largest length of a name; two names and a few words fit into a file name of 255 bytes."""

_CYCLE_VARIABLES = 20
"""Largest number of variables of a cycle that an error message shows."""


class CausalGraph:
    """An immutable directed acyclic graph over named variables.

    Args:
        parents: The direct causes of each variable, or the graph as text for :meth:`from_edges`.

    Raises:
        ValueError: If there is no variable, a name is not an identifier or longer than 80 bytes, a
            parent is unknown or listed twice, a variable is its own parent, or there is a cycle.
            The message names the variable.

    Example:
        >>> graph = CausalGraph({"age": [], "sex": [], "brain": ["age", "sex"]})
        >>> graph.nodes
        ('age', 'sex', 'brain')
        >>> sorted(graph.descendants("age"))
        ['brain']
        >>> graph.do("brain").parents["brain"]
        ()
    """

    def __init__(self, parents: Mapping[str, Sequence[str]] | str) -> None:
        mapping = _parse_edges(parents) if isinstance(parents, str) else _as_mapping(parents)
        _check_graph(mapping)
        order = _topological_order(mapping)
        self._parents = {name: tuple(mapping[name]) for name in order}
        self._network = _network(self._parents)

    @classmethod
    def from_edges(cls, text: str) -> CausalGraph:
        """Create a graph from text such as ``cause, cause -> effect``.

        Semicolons or line breaks separate statements, and commas separate names. Arrows can be
        chained. A single name is a variable without edges.

        Raises:
            ValueError: If a statement cannot be parsed or the graph is invalid.
        """
        return cls(text)

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Direct causes of each variable, in topological order."""
        return dict(self._parents)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Variables in topological order: causes before effects, otherwise in the given order."""
        return tuple(self._parents)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """All pairs (cause, effect)."""
        return tuple((cause, node) for node, causes in self._parents.items() for cause in causes)

    def to_networkx(self) -> networkx.DiGraph[str]:
        """Return a copy as a ``networkx.DiGraph``, nodes and parents in the order of this graph."""
        return self._network.copy()

    def children(self, node: str) -> tuple[str, ...]:
        """Variables that ``node`` causes directly."""
        self._check_known(node)
        return tuple(self._network.successors(node))

    def descendants(self, *nodes: str) -> frozenset[str]:
        """All variables that any of ``nodes`` causes, directly or indirectly.

        A node of ``nodes`` is included only if another one causes it.
        """
        import networkx

        self._check_known(*nodes)
        return frozenset[str]().union(*(networkx.descendants(self._network, n) for n in nodes))

    def ancestors(self, *nodes: str) -> frozenset[str]:
        """All variables that cause any of ``nodes``, directly or indirectly."""
        import networkx

        self._check_known(*nodes)
        return frozenset[str]().union(*(networkx.ancestors(self._network, n) for n in nodes))

    def do(self, *nodes: str) -> CausalGraph:
        """Graph after an intervention on ``nodes``, without the edges into them."""
        self._check_known(*nodes)
        return CausalGraph(
            {name: () if name in nodes else causes for name, causes in self._parents.items()}
        )

    def _check_known(self, *nodes: str) -> None:
        for node in nodes:
            if node not in self._parents:
                raise ValueError(
                    f"unknown variable {node!r}: the graph has {', '.join(self._parents)}."
                )

    def __iter__(self) -> Iterator[str]:
        return iter(self._parents)

    def __contains__(self, node: object) -> bool:
        return node in self._parents

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalGraph):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
        return frozenset(self._parents), frozenset(self.edges)

    def __str__(self) -> str:
        statements = [
            f"{', '.join(causes)} -> {node}" if causes else node
            for node, causes in self._parents.items()
        ]
        return "; ".join(statements)

    def __repr__(self) -> str:
        return f"CausalGraph({str(self)!r})"


def _parse_edges(text: str) -> dict[str, list[str]]:
    parents: dict[str, list[str]] = {}
    for statement in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
        groups = [[name.strip() for name in group.split(",")] for group in statement.split("->")]
        if not all(name for group in groups for name in group):
            raise ValueError(
                f"graph: cannot read {statement!r}; expected 'cause, cause -> effect', "
                "statements separated by ';'."
            )
        for name in (name for group in groups for name in group):
            parents.setdefault(name, [])
        for causes, effects in pairwise(groups):
            for effect in effects:
                parents[effect].extend(causes)
    return parents


def _as_mapping(parents: Mapping[str, Sequence[str] | None]) -> dict[str, Sequence[str]]:
    if not isinstance(parents, Mapping):
        raise ValueError(
            f"graph: expected text or a mapping from each variable to its parents, but got "
            f"{parents!r}."
        )
    for name, causes in parents.items():
        if isinstance(causes, str):
            raise ValueError(
                f"graph: expected a list of parents of {name!r}, but got the text {causes!r}; "
                f"write [{causes!r}]."
            )
        if causes is not None and not isinstance(causes, Sequence):
            raise ValueError(f"graph: expected a list of parents of {name!r}, but got {causes!r}.")
    return {name: causes or () for name, causes in parents.items()}


def _check_graph(parents: Mapping[str, Sequence[str]]) -> None:
    if not parents:
        raise ValueError("graph: expected at least one variable, but got none.")
    for name, causes in parents.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"graph: expected names of letters, digits and underscores that begin with a "
                f"letter, but got {name!r}; rename the variable."
            )
        if len(name.encode()) > _NAME_BYTES:
            raise ValueError(
                f"graph: expected names of at most {_NAME_BYTES} bytes, which become part of "
                f"file names, but {name[:20]}… has {len(name.encode())}; rename the variable."
            )
        for cause in causes:
            if cause == name:
                raise ValueError(f"graph: {name!r} is its own parent; remove the self-loop.")
            if cause not in parents:
                raise ValueError(
                    f"graph: {name!r} has the unknown parent {cause!r}; "
                    f"the variables are {', '.join(parents)}."
                )
        repeated = [cause for cause in causes if list(causes).count(cause) > 1]
        if repeated:
            raise ValueError(f"graph: the parent {repeated[0]!r} of {name!r} is listed twice.")


def _network(parents: Mapping[str, Sequence[str]]) -> networkx.DiGraph[str]:
    import networkx  # deferred, because the import takes a tenth of a second

    network: networkx.DiGraph[str] = networkx.DiGraph()
    network.add_nodes_from(parents)
    network.add_edges_from((cause, name) for name, causes in parents.items() for cause in causes)
    return network


def _topological_order(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Sort causes before effects, and otherwise in the given order."""
    import networkx

    network = _network(parents)
    places = {name: place for place, name in enumerate(parents)}
    try:
        return list(networkx.lexicographical_topological_sort(network, places.__getitem__))
    except networkx.NetworkXUnfeasible:
        names = [cause for cause, _ in networkx.find_cycle(network)]
        cycle = " -> ".join([*names, names[0]][:_CYCLE_VARIABLES])
        raise ValueError(f"graph: there is a cycle, {cycle}; remove one of its edges.") from None
