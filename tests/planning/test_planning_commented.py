"""YAML with comments reads as the settings that it was written from."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from deepscm_pl.planning import commented_yaml

SCALARS: list[Any] = [
    None, True, False, 0, -3, 1e-5, 2.5, 1e300, "", "no", "1.5", "null", "a: b", "# not", "- x",
    "{file}", "C57BL/6", "≥61", "it's", '"quoted"', "tab\tinside", "two\nlines", "  blanks  ", "~",
    "0x1F", "2020-01-01", "*a", "&b", "%c", "@d", "`e`", "word " * 60, "word; " * 60,
]  # fmt: skip


def settings(generator: random.Random, depth: int = 0) -> Any:
    kind = generator.choice(["scalar", "mapping", "list", "mappings"] if depth < 4 else ["scalar"])
    if kind == "mapping":
        names = generator.sample([each for each in SCALARS if isinstance(each, str)], 3)
        return {name: settings(generator, depth + 1) for name in names}
    if kind == "list":
        return generator.sample(SCALARS, 3)
    if kind == "mappings":
        return [{"a": settings(generator, depth + 1), "b": [1]} for _ in range(2)]
    return generator.choice(SCALARS)


def paths(node: Any, path: str = "") -> list[str]:
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in entries:
        where = f"{path}.{key}" if path else str(key)
        found += [where, *(paths(value, where) if isinstance(value, dict | list) else [])]
    return found


@pytest.mark.parametrize("seed", range(30))
def test_reads_as_what_was_written(seed: int) -> None:
    generator = random.Random(seed)
    written = {f"key {number}": settings(generator) for number in range(4)}
    reasons = {
        path: generator.choice(["because", "long reason " * 20, "a: b # c"])
        for path in paths(written)
        if generator.random() < 0.7
    }
    assert yaml.safe_load(commented_yaml(written, reasons)) == written


def test_every_reason_is_in_the_text() -> None:
    written = {"a": 1, "b": {"c": [1, 2], "d": "text"}, "e": [{"f": 1}, {"g": 2}]}
    reasons = {path: f"reason-of-{path}" for path in ("a", "b", "b.c", "b.d", "e.0", "e.1.g")}
    text = commented_yaml(written, reasons)
    assert [reason for reason in reasons.values() if f"# {reason}" not in text] == []


def test_long_texts_are_folded() -> None:
    text = "; ".join(f"cause_{number} -> effect_{number}" for number in range(20))
    written = commented_yaml({"model": {"graph": text}}, {"model.graph": "as stated"})
    assert yaml.safe_load(written) == {"model": {"graph": text}}
    assert max(map(len, written.splitlines())) <= 100
