"""The trained models of the repository load, answer, and are those that were measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepscm_pl import load
from deepscm_pl.digest import weights_digest
from deepscm_pl.shipped.names import OBSERVATIONS

ROOT = Path(__file__).parent.parent
FILES = {path.parent.name: path for path in sorted((ROOT / "models").glob("*/model.safetensors"))}
MOST_EACH, MOST_TOGETHER = 20e6, 60e6  # bytes

pytestmark = pytest.mark.parametrize("name", FILES)


def files_of(name: str) -> list[Path]:
    """All models of a folder, those of other seeds too."""
    found = sorted(FILES[name].parent.glob("*.safetensors"))
    return [path for path in found if path.name != OBSERVATIONS]


def texts(value: object) -> Iterator[str]:
    """All texts in nested plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (found for each in value.values() for found in texts(each))
    elif isinstance(value, list | tuple):
        yield from (found for each in value for found in texts(each))


def title_of(figures: dict[str, object]) -> str:
    """The heading of measured figures in a card."""
    return f"Protocol {figures['protocol']}" if "protocol" in figures else "Evaluation"


def test_they_answer_for_their_own_samples(name):
    model = load(FILES[name])
    drawn = model.sample(2, seed=0)
    cause = model.scm.graph.parents[model.scm.image_variables[0]][0]
    answer = model.counterfactual(dict(drawn), {cause: float(drawn[cause][0])})
    for key, values in answer.items():
        assert values.isfinite().all()
        assert values[0, 0].allclose(drawn[key][0], atol=1e-3)  # nothing changes in the first row


def test_their_figures_are_those_of_their_weights(name):
    digest = weights_digest(load(FILES[name]).scm)
    found = [
        json.loads(path.read_text("utf-8"))
        for kind in ("protocol", "evaluation")
        for path in (ROOT / "experiments").glob(f"**/{kind}.json")
    ]
    titles = [
        f"### {title_of(each)}, {each['rows']:,} test rows"
        for each in found
        if each.get("weights") == digest
    ]
    card = FILES[name].with_name("README.md").read_text("utf-8")
    assert titles
    assert all(title in card for title in titles)


def test_they_contain_no_place_of_a_computer(name):
    for path in files_of(name):
        content = dict(load(path).checkpoint.content)
        found = [text for text in texts(content) if "/" in text]
        assert not [text for text in found if text.startswith(("/", "~")) or ".." in text]


def test_they_are_small(name):
    sizes = {path: path.stat().st_size for key in FILES for path in files_of(key)}
    assert all(sizes[path] < MOST_EACH for path in files_of(name))
    assert sum(sizes.values()) < MOST_TOGETHER
