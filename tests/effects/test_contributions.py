"""Shapley values, and contributions in linear worlds."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from linear_worlds import coin, linear, mediated, product

from deepscm_pl.effects import (
    EffectSettings,
    contributions_of_changes,
    contributions_to_difference,
    contributions_to_rows,
    contributions_to_variance,
    shapley_values,
)
from deepscm_pl.effects.shapley import permutations_of
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.scm import StructuralCausalModel

FEW = EffectSettings(rows=4000, replicates=100)


def game(players, seed=0):
    """A game of random worths."""
    generator = np.random.default_rng(seed)
    worths = {}

    def worth(coalition):
        if coalition not in worths:
            worths[coalition] = torch.from_numpy(generator.normal(size=5))
        return worths[coalition]

    return worth


def test_shapley_values_are_the_mean_over_all_permutations():
    worth, players = game(4), 4
    expected = torch.zeros(players, 5, dtype=torch.float64)
    orders = list(permutations(range(players)))
    for order in orders:
        for place, player in enumerate(order):
            expected[player] += worth(frozenset(order[: place + 1])) - worth(
                frozenset(order[:place])
            )
    values, by_group = shapley_values(worth, players)
    assert by_group is None
    torch.testing.assert_close(values, expected / len(orders))
    total = worth(frozenset(range(players))) - worth(frozenset())
    torch.testing.assert_close(values.sum(dim=0), total)


def test_a_player_without_effect_gets_nothing_and_equal_players_get_equal_shares():
    def worth(coalition):
        return torch.tensor([float(len(coalition & {0, 1}) ** 2)])

    values, _ = shapley_values(worth, 3)
    assert values.flatten().tolist() == pytest.approx([2, 2, 0])


def test_more_players_are_sampled_and_still_add_up():
    def worth(coalition):
        return torch.tensor([sum(k + 1 for k in coalition) + 2.0 * ({0, 11} <= coalition)])

    values, by_group = shapley_values(worth, 12, permutations=200, seed=1)
    assert values.sum().item() == pytest.approx(80)
    assert values[1:11].flatten().tolist() == pytest.approx(range(2, 12))
    assert by_group.shape == (10, 12, 1)
    # With its reverse, each permutation gives both players one of the two.
    assert values[[0, 11]].flatten().tolist() == pytest.approx([2, 13])
    assert torch.equal(values, shapley_values(worth, 12, permutations=200, seed=1)[0])
    orders = permutations_of(5, 40, 0)
    assert orders.shape == (40, 5)
    assert (orders[1] == orders[0][::-1]).all()


def test_contributions_to_a_variance():
    found = contributions_to_variance(mediated(), "y", FEW)
    # y = 2.5 z + 7 u_x + 3 · 0.5 u_m + 2 u_y
    squares = {"z": 2.5**2, "x": 49, "m": 1.5**2, "y": 4}
    total = sum(squares.values())
    assert list(found) == ["z", "x", "m", "y", "total"]
    for name, square in squares.items():
        assert found[name].value == pytest.approx(100 * square / total, abs=5)
        assert found[name].low < found[name].high
    assert found["total"].value == pytest.approx(100)
    assert sum(found[name].value for name in squares) == pytest.approx(100)
    assert found["x"].unit == "%"
    assert "y: what its causes do not explain." in found.notes


def test_contributions_to_the_difference_of_two_groups():
    found = contributions_to_difference(mediated(), "y", "z > 0", settings=FEW)
    # Rows are chosen by z, whose noise is all that differs: 2.5 · 2 · φ(0) / 0.5
    truth = 2.5 * 2 * np.sqrt(2 / np.pi)
    assert found["z"].value == pytest.approx(truth, abs=0.01 + 0.1)
    for name in ("x", "m", "y"):
        assert found[name].low - 0.3 < 0 < found[name].high + 0.3
    parts = sum(found[name].value for name in ("z", "x", "m", "y"))
    assert found["total"].value == pytest.approx(parts)
    assert found["total"].low < found["total"].value < found["total"].high
    apart = contributions_to_difference(mediated(), "y", "z > 1", "z < -1", settings=FEW)
    assert apart["z"].value == pytest.approx(2.5 * 2 * 1.5251, abs=0.2)
    with pytest.raises(ValueError, match="group: expected at least two rows with z > 50"):
        contributions_to_difference(mediated(), "y", "z > 50", settings=FEW)


def test_the_total_is_the_difference_of_the_observed_means():
    scm = mediated()
    torch.manual_seed(0)
    with torch.no_grad():
        factual = scm.sample(200)
    inside = factual["x"][:, 0] > 0.5
    found = contributions_to_difference(scm, "y", "x > 0.5", observed=factual, settings=FEW)
    truth = factual["y"][inside].mean() - factual["y"][~inside].mean()
    assert found["total"].value == pytest.approx(float(truth), abs=0.15)
    assert found["x"].value > 5 * abs(found["m"].value)
    # The interval is that of the two groups, not of their pairs.
    error = (
        factual["y"][inside].var() / inside.sum() + factual["y"][~inside].var() / (~inside).sum()
    )
    width = found["total"].high - found["total"].low
    assert width == pytest.approx(2 * 1.96 * float(error.sqrt()), rel=0.2)


def test_contributions_to_observations():
    scm = mediated()
    factual = {
        "z": torch.tensor([[2.0], [0.0]]),
        "x": torch.tensor([[1.0], [3.0]]),
        "m": torch.tensor([[2.0], [6.0]]),
        "y": torch.tensor([[5.0], [21.0]]),
        "w": torch.zeros(2, 1),
    }
    found = contributions_to_rows(scm, "y", factual, references=2000, settings=FEW)
    # The noise of the rows: z 2, x 0, m 0, y 5 − 5 = 0; and x 3, others 0.
    rows = {name: found.rows[name] for name in ("z", "x", "m", "y", "total")}
    for name, truth in {"z": [5, 0], "x": [0, 21], "m": [0, 0], "y": [0, 0]}.items():
        assert rows[name] == pytest.approx(truth, abs=0.6)
    assert rows["total"] == pytest.approx(np.sum([rows[n] for n in "zxmy"], axis=0).tolist())
    assert found["x"].value == pytest.approx(np.mean(rows["x"]))
    one = {name: value[:1] for name, value in factual.items()}
    alone = contributions_to_rows(scm, "y", one, references=2000, settings=FEW)["z"]
    assert alone.low < alone.value < alone.high
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * 2.5 / 2000**0.5, rel=0.4)


def test_contributions_of_several_changes():
    scm = StructuralCausalModel("x, s -> y", {"x": linear(), "s": linear(), "y": product()}).eval()
    found = contributions_of_changes(scm, "y", "x=3, s=2", "x=1, s=0", settings=FEW)
    # The worth of x alone is 0, of s alone 2, of both 6.
    values = [found[name].value for name in ("x", "s", "total")]
    assert values == pytest.approx([2, 4, 6], abs=1e-6)
    single = contributions_of_changes(mediated(), "y", "z=1", "z=0", settings=FEW)
    assert single["z"].value == single["total"].value == pytest.approx(2.5)
    none = contributions_of_changes(mediated(), "z", "x=1, y=2", settings=FEW)
    assert none["total"].value == 0
    assert "no directed path" in none.notes[0]


def test_many_mechanisms_are_sampled_with_a_standard_error():
    names = [f"x{k}" for k in range(11)]
    mechanisms = {name: linear() for name in names}
    weights = {name: float(k + 1) for k, name in enumerate(names)}
    mechanisms["y"] = linear(**weights)
    scm = StructuralCausalModel(f"{', '.join(names)} -> y", mechanisms).eval()
    few = EffectSettings(rows=500, replicates=20)
    found = contributions_to_variance(scm, "y", few)
    assert any(note.startswith("12 players: permutations are drawn") for note in found.notes)
    assert sum(found[name].value for name in (*names, "y")) == pytest.approx(100)
    assert found["x10"].value == pytest.approx(100 * 121 / 507, abs=8)


def test_contributions_of_several_models():
    models = [
        StructuralCausalModel("s -> y", {"s": coin(), "y": linear(s=slope)}).eval()
        for slope in (1.0, 3.0)
    ]
    found = contributions_to_difference(Ensemble(models), "y", "s=1", settings=FEW)
    assert found["s"].members == pytest.approx((1, 3), abs=1e-5)
    assert found["s"].value == pytest.approx(2, abs=1e-5)
