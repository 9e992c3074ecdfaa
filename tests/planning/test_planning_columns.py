"""Kinds of columns that decide between counts and amounts with many zeros."""

from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data.tables import Table
from deepscm_pl.planning.columns import describe_column
from deepscm_pl.planning.scalars import scalar_mechanism


def described(values: np.ndarray) -> tuple[str, str]:
    """The kind of a column with these values, and the class of its mechanism."""
    texts = np.array([f"{value:g}" for value in values], dtype=object)
    column = describe_column(Table(Path("t.csv"), {"y": texts}), "y", "y")
    mechanism, _ = scalar_mechanism(column, has_parents=True, rows=len(values))
    path = mechanism if isinstance(mechanism, str) else mechanism["class_path"]
    return column.kind, path.rpartition(".")[2]


@pytest.mark.parametrize("mean", [3, 8])
def test_whole_numbers_with_many_zeros_are_counts(mean: float) -> None:
    generator = np.random.default_rng(0)
    visits = generator.negative_binomial(0.8, 0.8 / (0.8 + mean), 2000)
    assert len(np.unique(visits)) > 20
    assert described(visits) == ("count", "SteppedFlow")


@pytest.mark.parametrize("rounded_to", [1, 100])
def test_amounts_with_many_zeros_are_zero_inflated(rounded_to: int) -> None:
    generator = np.random.default_rng(0)
    amounts = generator.lognormal(9, 0.7, 2000) * (generator.random(2000) < 0.6)
    incomes = np.round(amounts / rounded_to) * rounded_to
    assert described(incomes) == ("continuous", "ZeroInflatedFlow")


def test_numbers_with_fractions_and_many_zeros_are_zero_inflated() -> None:
    generator = np.random.default_rng(0)
    doses = np.round(generator.gamma(2, 3, 2000), 3) * (generator.random(2000) < 0.6)
    assert described(doses) == ("continuous", "ZeroInflatedFlow")


def test_whole_numbers_with_few_zeros_are_no_count() -> None:
    ages = np.random.default_rng(0).integers(0, 90, 2000)
    assert described(ages)[0] == "continuous"
