"""Tests of conditional independence keep their level, and find dependences of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from deepscm_pl.evaluation.independence import IndependenceTest, MixedTable, adjusted

Columns = dict[str, np.ndarray]


def curves(generator: np.random.Generator, size: int) -> tuple[Columns, tuple[str, ...]]:
    """x and y are nonlinear effects of z."""
    z, u, v = generator.normal(size=(3, size))
    return {"x": np.sin(2 * z) + 0.3 * u, "y": z**2 + 0.3 * v, "z": z}, ()


def mixed(generator: np.random.Generator, size: int) -> tuple[Columns, tuple[str, ...]]:
    """A class and a number whose spread depends on z, of which both are effects."""
    z, u = generator.normal(size=(2, size))
    x = generator.random(size) < 1 / (1 + np.exp(-2 * z))
    return {"x": x.astype(float), "y": z + 0.5 * u * np.exp(0.5 * z), "z": z}, ("x",)


def interaction(generator: np.random.Generator, size: int) -> tuple[Columns, tuple[str, ...]]:
    """The causes are a class z and a number w, which interact."""
    z, w = generator.integers(0, 3, size), generator.normal(size=size)
    u, v = 0.5 * generator.normal(size=(2, size))
    return {"x": z * w + u, "y": z - w + v, "z": z.astype(float), "w": w}, ("z",)


@pytest.mark.parametrize(("world", "given"), [(curves, "z"), (mixed, "z"), (interaction, "zw")])
def test_independent_variables_are_rejected_at_the_level(world, given):
    p_values = []
    for seed in range(60):
        table = MixedTable(*world(np.random.default_rng(seed), 200))
        p_values.append(IndependenceTest(table)("x", "y", given).p_value)
    # More than 8 of 60 at a level of 5 % happen in 1 % of all cases.
    assert sum(p < 0.05 for p in p_values) <= 8
    assert np.median(p_values) > 0.3


@pytest.mark.parametrize(("world", "given"), [(curves, ""), (mixed, ""), (interaction, "w")])
def test_causes_that_are_not_given_show(world, given):
    table = MixedTable(*world(np.random.default_rng(0), 300))
    assert IndependenceTest(table)("x", "y", given).p_value < 1e-3


def dependent(kind: str, generator: np.random.Generator, size: int) -> MixedTable:
    z, x, u = generator.normal(size=(3, size))
    classes = generator.integers(0, 4, size).astype(float)
    if kind == "linear":
        return MixedTable({"x": x + z, "y": z + 0.4 * (x + z) + u, "z": z})
    if kind == "square":
        return MixedTable({"x": x, "y": z + 0.5 * x**2 + u, "z": z})
    if kind == "spread":
        return MixedTable({"x": x, "y": z + np.exp(0.6 * x) * u, "z": z})
    if kind == "class":
        return MixedTable({"x": classes, "y": z + (classes == 2) + u, "z": z}, ("x",))
    both = np.where(generator.random(size) < 0.5, classes, generator.integers(0, 4, size))
    return MixedTable({"x": classes, "y": both, "z": z}, ("x", "y"))


@pytest.mark.parametrize("kind", ["linear", "square", "spread", "class", "classes"])
def test_dependences_of_every_kind_are_found(kind):
    table = dependent(kind, np.random.default_rng(1), 500)
    assert IndependenceTest(table)("x", "y", "z").p_value < 1e-3


def test_the_partial_correlation_is_that_of_the_scores():
    z, x, u = np.random.default_rng(0).normal(size=(3, 4000))
    found = IndependenceTest(MixedTable({"x": x + z, "y": x + u - z, "z": z}))("x", "y", "z")
    assert found.correlation == pytest.approx(0.5**0.5, abs=0.05)


def test_the_result_is_the_same_in_both_directions_and_again():
    columns, _ = curves(np.random.default_rng(0), 200)
    test, again = IndependenceTest(MixedTable(columns)), IndependenceTest(MixedTable(columns))
    assert test("x", "y", "z") == test("y", "x", "z") == again("y", "x", "z")


def test_missing_values_leave_out_their_rows():
    columns, _ = curves(np.random.default_rng(0), 200)
    columns["x"][:50] = np.nan
    test = IndependenceTest(MixedTable(columns))
    assert test("x", "y", "z").rows == 150
    assert test("y", "z").rows == 200
    columns["x"][:180] = np.nan
    with pytest.raises(ValueError, match="at least 30 rows with values of x, y, z, but got 20"):
        IndependenceTest(MixedTable(columns))("x", "y", "z")


def test_constant_columns_depend_on_nothing():
    columns = {"x": np.zeros(50), "y": np.arange(50.0), "z": np.ones(50)}
    assert IndependenceTest(MixedTable(columns))("x", "y", "z").p_value == 1


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match=r"at least 30 independent rows.*but got 29"):
        MixedTable({"x": np.zeros(29)})
    with pytest.raises(ValueError, match="columns of one length"):
        MixedTable({"x": np.zeros(50), "y": np.zeros(40)})


def test_p_values_are_adjusted_for_their_number():
    assert adjusted([]) == []
    assert adjusted([0.5, 0.01, 0.2]) == [0.5, 0.03, 0.4]
