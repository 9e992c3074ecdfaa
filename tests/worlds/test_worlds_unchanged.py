"""The known worlds of version 0.1: their densities, noise, counterfactuals and images are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world_columns

from deepscm_pl.data import BrainWorld, known_world

FIXTURE = Path(__file__).parent.parent / "fixtures" / "worlds.npz"
TOLERANCE = 1e-9
MEASURED = 1e-6
"""Volumes of heads are sums in float32, whose order depends on the processor."""
INTENSITY = {
    "first": {"thickness": 3.0},
    "last": {"intensity": 128.0},
    "shift": {"thickness": lambda x: x + 0.5},
    "both": {"thickness": lambda x: 0.9 * x, "intensity": lambda x: 0.95 * x},
}
HEADS = {
    "first": {"age": 75.0},
    "last": {"ventricle_volume": 5e4},
    "class": {"sex": 1.0},
    "shift": {"age": lambda x: x + 2},
    "both": {"brain_volume": lambda x: 0.97 * x, "ventricle_volume": lambda x: 1.1 * x},
}
WORLDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "thickness-intensity": INTENSITY,
    "thickness-intensity-falling": INTENSITY,
    "thickness-slant": {
        "first": {"thickness": 3.0},
        "last": {"slant": 0.2},
        "shift": {"thickness": lambda x: x + 0.5},
        "both": {"thickness": lambda x: 0.9 * x, "slant": lambda x: 0.9 * x},
    },
    "thickness-width": {
        "first": {"thickness": 3.0},
        "last": {"width": 15.0},
        "shift": {"thickness": lambda x: x + 0.5},
        "both": {"thickness": lambda x: 0.9 * x, "width": lambda x: 0.95 * x},
    },
    "brain": HEADS,
    "brain-volume": {"first": {"age": 75.0}},
}
"""Interventions by name; a function keeps the causes of what it is applied to."""


def open_world(name: str) -> Any:
    """A known world; heads are small, to be drawn fast."""
    sizes = {"brain": (32, 32), "brain-volume": (16, 20, 16)}
    return BrainWorld(*sizes[name]) if name in sizes else known_world(name)


Columns = Mapping[str, np.ndarray]


def ask(world: Any, question: str, *inputs: Any) -> Any:
    """Every question that is asked of a world, by arrays ``(N,)`` in float64.

    The questions are ``log_prob(values)``, ``abduct(values)``, ``predict(noise, do)``,
    ``counterfactual(values, do)``, ``render(originals, values)`` and ``measure(images)``.
    """
    if question in ("render", "measure"):
        return getattr(world, question)(*inputs)
    return getattr(world_columns, question)(world, *inputs)


def answers(world: Any, name: str, values: Columns, originals: np.ndarray) -> dict[str, np.ndarray]:
    """All that is kept of a world, by name.

    Of a counterfactual only the columns are kept that the intervention does not set.
    """
    found: dict[str, np.ndarray] = {}
    if name != "brain-volume":  # of the same attributes as slices
        for question in ("log_prob", "abduct"):
            columns = ask(world, question, values)
            found.update({f"{question}/{each}": column for each, column in columns.items()})
        for key, do in WORLDS[name].items():
            columns = ask(world, "counterfactual", values, do)
            for each, column in columns.items():
                if each not in do and not np.array_equal(column, values[each]):
                    found[f"counterfactual/{key}/{each}"] = column
        columns = ask(world, "counterfactual", values, WORLDS[name]["both"])
        last = list(columns)[-1]
        found[f"counterfactual/both/{last}"] = columns[last]
    drawn = {each: column[: len(originals)].astype(np.float32) for each, column in values.items()}
    changed = ask(world, "counterfactual", drawn, WORLDS[name]["first"])
    found["images"] = ask(world, "render", originals, drawn)
    found["counterfactual_images"] = ask(world, "render", originals, changed)
    measured = ask(world, "measure", found["images"])
    found.update({f"measured/{each}": column for each, column in measured.items()})
    return found


def kept(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return {
            each.removeprefix(f"{name}/"): file[each]
            for each in file.files
            if each.startswith(f"{name}/")
        }


@pytest.fixture(params=WORLDS)
def case(request):
    """The name of a world, its observations, its originals and what it is expected to answer."""
    expected = kept(request.param)
    values = {each: expected.pop(each) for each in list(expected) if each.startswith("values/")}
    values = {each.removeprefix("values/"): column for each, column in values.items()}
    return request.param, values, expected.pop("originals"), expected


def test_a_world_answers_as_it_did(case):
    name, values, originals, expected = case
    found = answers(open_world(name), name, values, originals)
    assert set(expected) <= set(found)
    for each, column in expected.items():
        if column.dtype == np.uint8:
            np.testing.assert_array_equal(found[each], column, err_msg=each)
        else:
            near = MEASURED if each.startswith("measured/") else TOLERANCE
            np.testing.assert_allclose(found[each], column, rtol=near, atol=near, err_msg=each)


def test_noise_gives_the_values_back(case):
    name, values, _, expected = case
    if name == "brain-volume":
        return
    noise = {each: expected[f"abduct/{each}"] for each in values}
    found = ask(open_world(name), "predict", noise, {})
    for each, column in values.items():
        np.testing.assert_allclose(found[each], column, rtol=TOLERANCE, atol=TOLERANCE)


def test_causes_and_what_is_set_are_exact(case):
    name, values, _, _ = case
    for do in WORLDS[name].values():
        found = ask(open_world(name), "counterfactual", values, do)
        for each, value in do.items():
            if not callable(value):
                assert (found[each] == value).all()
        first = next(iter(values))
        if first not in do:
            np.testing.assert_array_equal(found[first], values[first])
