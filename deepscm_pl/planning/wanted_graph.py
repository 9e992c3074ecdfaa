"""The graph of an experiment, stated with the names of columns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from itertools import pairwise

from deepscm_pl.graph import CausalGraph
from deepscm_pl.planning.columns import ColumnFingerprint
from deepscm_pl.planning.fingerprint import Fingerprint

__all__ = ["IMAGE", "read_graph"]

IMAGE = "image"
"""Name of the variable of images."""

_TOKEN = re.compile(
    r"[^\S\n]*(?:`([^`]*)`|\"([^\"]*)\"|'([^']*)'|(->|→|[,;\n])|([^`\"'\n;,→-]+|-))"
)


def read_graph(text: str | None, fingerprint: Fingerprint) -> CausalGraph:
    """Read a graph whose names are those of columns, or of their variables.

    Names with commas, semicolons or arrows are quoted, as in ``"height, cm" -> weight``. ``image``
    is the image of a row.

    Raises:
        ValueError: If there is no graph, a name is unknown or belongs to a column that cannot be a
            variable, the image has no place in it, or it has a cycle.
    """
    if text is None or not text.strip():
        raise ValueError(_question(fingerprint))
    parents: dict[str, list[str]] = {}
    for statement in _statements(text):
        groups = [[_variable(name, fingerprint) for name in group] for group in statement]
        for name in (name for group in groups for name in group):
            parents.setdefault(name, [])
        for causes, effects in pairwise(groups):
            for effect in effects:
                parents[effect] += [cause for cause in causes if cause not in parents[effect]]
    if fingerprint.images is not None and IMAGE not in parents:
        raise ValueError(
            "graph: expected the causes of image, because there are images; add a statement such "
            f"as '{next(iter(parents))} -> {IMAGE}'."
        )
    return CausalGraph(parents)


def _question(fingerprint: Fingerprint) -> str:
    """Ask for a graph, with an example of the form in the names of the columns."""
    names = [_quoted(each.name) for each in fingerprint.variables.values()]
    image = [] if fingerprint.images is None else [IMAGE]
    example = f"{', '.join(names[:2])} -> {[*names, *image][2]}" if len(names + image) > 2 else ""
    example = example or f"{names[0]} -> {[*names, *image, 'effect'][1]}"
    return (
        "graph: expected the causes that you assume, which no data can tell, but got none; state "
        f"each variable with its causes, for example (the form, not a guess) --graph "
        f"{example + '; ...'!r}; the variables are {', '.join([*names, *image])}."
    )


def _quoted(name: str) -> str:
    return f"`{name}`" if re.search(r"[,;\n]|->|→|[`\"']", name) else name


def _statements(text: str) -> list[list[list[str]]]:
    """The statements, each a list of groups of names between arrows."""
    statements: list[list[list[str]]] = [[[]]]
    position, name = 0, ""

    def end_name(separator: str) -> None:
        if not name.strip():
            raise ValueError(
                f"graph: expected a name before {separator!r} in {text.strip()!r}; write 'cause, "
                "cause -> effect', statements separated by ';'."
            )
        statements[-1][-1].append(name.strip())

    while position < len(text.rstrip()):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(
                f"graph: a quote in {text.strip()!r} is not closed; close it, or remove it."
            )
        position = found.end()
        *quoted, separator, plain = found.groups()
        if separator is None:
            name += plain if plain is not None else next(q for q in quoted if q is not None)
            continue
        if separator in ";\n":
            if name.strip() or statements[-1] != [[]]:
                end_name(separator)
                statements.append([[]])
        else:
            end_name(separator)
            if separator != ",":
                statements[-1].append([])
        name = ""
    if name.strip() or statements[-1] != [[]]:
        end_name("the end")
    return [each for each in statements if each != [[]]]


def _variable(name: str, fingerprint: Fingerprint) -> str:
    """The variable of a name in a graph."""
    if name == IMAGE and fingerprint.images is not None:
        return IMAGE
    columns: Mapping[str, ColumnFingerprint] = {each.name: each for each in fingerprint.columns}
    found = columns.get(name) or {each.variable: each for each in fingerprint.columns}.get(name)
    if found is not None and found.is_variable:
        return found.variable
    if found is not None and found.kind == "images":
        raise ValueError(
            f"graph: the column {found.name!r} contains names of image files; add --images "
            f"{found.name}, and call the images {IMAGE} in the graph."
        )
    if found is not None:
        raise ValueError(
            f"graph: the column {found.name!r} of {fingerprint.table} cannot be a variable: "
            f"{found.kind} ({found.reason}); leave it out."
        )
    if name == IMAGE:
        raise ValueError(
            "graph: image is a variable only with --images, a column with the paths of the files "
            "or a pattern such as '{id}.png'; add it."
        )
    known = [each.name for each in fingerprint.variables.values()]
    close = difflib.get_close_matches(name, known, n=2)
    meant = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    raise ValueError(
        f"graph: {fingerprint.table} has no column {name!r}; it has {', '.join(known)}{meant}"
    )
