"""Erroneous settings: every leaf of a configuration, changed in many ways."""

from __future__ import annotations

import copy
from typing import Any

MUTATIONS: dict[str, Any] = {
    "null": None,
    "text": "abc",
    "empty": "",
    "negative": -3,
    "zero": 0,
    "nan": float("nan"),
    "huge": 10**12,
    "fraction": 2.5,
    "truth": True,
    "list": [1, 2],
}


def leaves(node, path=()):
    """Paths and values of all numbers, strings and nulls in a configuration."""
    if isinstance(node, dict) and node:
        for key, item in node.items():
            yield from leaves(item, (*path, key))
    elif isinstance(node, list) and node:
        for number, item in enumerate(node):
            yield from leaves(item, (*path, number))
    else:
        yield path, node


def changed(configuration, path, value):
    """A copy of a configuration with a different value at a path."""
    new = copy.deepcopy(configuration)
    node = new
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return new


def misspelt(configuration, path):
    """A copy of a configuration with an extra letter in the last key of a path."""
    new = copy.deepcopy(configuration)
    node = new
    for step in path[:-1]:
        node = node[step]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    return new
