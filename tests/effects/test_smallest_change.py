"""The smallest change that reaches a goal, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from linear_worlds import coin, linear, mediated

from deepscm_pl.effects import EffectSettings, smallest_changes
from deepscm_pl.mechanisms import Known
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain


def two_causes(second=None):
    """y = 3a + b + u with standard deviations of 1 and 2."""
    return StructuralCausalModel(
        "a; b; a, b -> y",
        {"a": linear(), "b": second or linear(scale=2.0), "y": linear(a=3.0, b=1.0)},
    ).eval()


def row(**values):
    return {name: torch.tensor([[float(value)]]) for name, value in values.items()}


def known_spread(scm, rows=20_000):
    """The model with the distribution of its own draws as that of the training data."""
    torch.manual_seed(0)
    with torch.no_grad():
        scm.training_distribution.fit(scm.sample(rows))
    return scm


def test_two_causes_of_a_linear_outcome():
    scm = known_spread(two_causes())
    found = smallest_changes(scm, "y >= 10", ["a", "b"], row(a=0, b=0, y=0))["0"]
    # The nearest point of the line 3a + b = 10 where a counts 1, and b 1/2: a = 3λ, b = 4λ.
    assert found.reached
    assert found.after["a"] == pytest.approx(30 / 13, rel=0.03)
    assert found.after["b"] == pytest.approx(40 / 13, rel=0.05)
    assert found.distance == pytest.approx(10 / math.sqrt(13), rel=0.03)
    assert 10 <= found.outcome < 10.02
    assert found.before == {"a": 0, "b": 0}


def test_one_cause_from_either_side():
    scm = known_spread(two_causes())
    values = {name: value.expand(3, 1) for name, value in row(a=0, b=0, y=0).items()}
    values["y"] = torch.tensor([[0.0], [5.0], [3.0]])
    found = smallest_changes(scm, "y = 3", ["a"], values)
    after = [each.after["a"] for each in found.changes.values()]
    assert after == pytest.approx([1, -2 / 3, 0], abs=2e-3)
    assert found["2"].distance == 0
    assert not found["2"].changed
    assert "no change is needed" in found.sentences()[2]
    below = smallest_changes(scm, "y < 3", ["a"], values)
    assert [each.reached for each in below.changes.values()] == [True] * 3
    assert below["0"].distance == 0
    assert below["1"].after["a"] == pytest.approx(-2 / 3, abs=2e-3)


def test_causes_that_are_not_chosen_respond():
    scm = known_spread(mediated())
    found = smallest_changes(scm, "y >= 14", ["x"], row(z=0, x=0, m=0, y=0, w=0))["0"]
    assert found.after["x"] == pytest.approx(2, rel=1e-2)
    both = smallest_changes(scm, "y >= 14", ["x", "z"], row(z=0, x=0, m=0, y=0, w=0))["0"]
    assert both.distance < found.distance


def test_domains_are_respected_and_unreachable_goals_are_told():
    small = linear(offset=0.5, scale=0.1, domain=Domain(lower=0.0, upper=1.0))
    scm = StructuralCausalModel(
        "a; b; a, b -> y", {"a": small, "b": small, "y": linear(a=3.0, b=1.0)}
    ).eval()
    scm.training_distribution.fit({n: torch.rand(500, 1) for n in "aby"})
    start = row(a=0.5, b=0.5, y=2)
    found = smallest_changes(scm, "y >= 3.9", ["a", "b"], start)["0"]
    assert found.reached
    assert 0 <= found.after["a"] <= 1
    assert 0 <= found.after["b"] <= 1
    never = smallest_changes(scm, "y >= 4.1", ["a", "b"], start)
    assert not never["0"].reached
    assert never["0"].outcome == pytest.approx(4, abs=1e-6)
    assert "cannot be reached; the nearest is y 4" in never.sentences()[0]
    assert any("Not reached" in note for note in never.notes)


def test_whole_numbers_stay_whole():
    whole = linear(offset=5.0, scale=2.0, domain=Domain(lower=0.0, whole=True))
    scm = StructuralCausalModel("a -> y", {"a": whole, "y": linear(a=2.0)}).eval()
    scm.training_distribution.fit({n: torch.randn(500, 1) for n in "ay"})
    found = smallest_changes(scm, "y >= 13", ["a"], row(a=5, y=10))["0"]
    assert found.after["a"] == 7
    assert found.outcome == 14


def test_classes_are_exchanged_where_that_is_nearer():
    scm = known_spread(two_causes(second=coin()))
    # b = 1 adds 1 at a distance of 1; a adds 3.
    found = smallest_changes(scm, "y >= 0.9", ["b"], row(a=0, b=0, y=0))["0"]
    assert (found.changed, found.after["b"], found.distance) == (("b",), 1, 1)
    found = smallest_changes(scm, "y >= 0.9", ["a", "b"], row(a=0, b=0, y=0))["0"]
    assert found.changed == ("a",)
    assert found.after["a"] == pytest.approx(0.3, abs=0.01)
    none = smallest_changes(scm, "y >= -1", ["a", "b"], row(a=0, b=1, y=1))["0"]
    assert (none.reached, none.changed, none.distance) == (True, (), 0)
    far = smallest_changes(scm, "y >= 15.5", ["a", "b"], row(a=0, b=0, y=0))["0"]
    assert set(far.changed) == {"a", "b"}
    never = smallest_changes(scm, "y >= 1.5", ["b"], row(a=0, b=0, y=0))["0"]
    assert not never.reached
    assert never.outcome == pytest.approx(1)


def test_values_beyond_the_training_data_are_marked():
    scm = known_spread(two_causes())
    found = smallest_changes(scm, "y >= 14.5", ["a"], row(a=0, b=0, y=0))
    assert found["0"].is_beyond
    assert "beyond the training data" in found.sentences()[0]
    assert not smallest_changes(scm, "y >= 3", ["a"], row(a=0, b=0, y=0))["0"].is_beyond


def test_a_class_as_goal():
    scm = StructuralCausalModel("s -> y", {"s": coin(), "y": linear(s=2.0)}).eval()
    with pytest.raises(ValueError, match="no directed path from y to s"):
        smallest_changes(scm, "s=1", ["y"], row(s=0, y=0))

    def layers(parents):
        from torch.distributions import AffineTransform

        return [AffineTransform(parents["a"], 1.0)]

    scm = StructuralCausalModel("a -> y", {"a": linear(), "y": lambda c: Known(c, layers)}).eval()
    found = smallest_changes(scm, "y > 0", ["a"], row(a=-1, y=-2))["0"]
    assert found.after["a"] == pytest.approx(1, abs=0.01)


def test_tables_and_texts():
    scm = known_spread(two_causes())
    found = smallest_changes(scm, "y >= 3", ["a"], row(a=0, b=0, y=0), row_names=["Ada"])
    assert list(found.columns()) == [
        "observation", "a_before", "a_after", "distance", "reached", "outcome",
        "beyond_training_data",
    ]  # fmt: skip
    assert list(found.to_frame().index) == ["Ada"]
    assert repr(found).startswith("smallest change of a for y ≥ 3\n\nAda: a from 0 to 1")
    assert found.describe()["changes"][0]["reached"]
    again = smallest_changes(scm, "y >= 3", ["a"], row(a=0, b=0, y=0), row_names=["Ada"])
    assert again.columns() == found.columns()


@pytest.mark.parametrize(
    ("goal", "causes", "message"),
    [
        ("y >= 3", [], "causes: expected at least one"),
        ("y >= 3", ["aa"], r"causes: expected one of .*did you mean 'a'"),
        ("y >= 3", ["y"], "causes: expected causes of y, but got y itself"),
        ("a >= 3", ["b"], "no directed path from b to a"),
        ("y", ["a"], "goal: expected a comparison"),
        ("y != 3", ["a"], "goal: expected =, >"),
        ("y > 3 and a > 1", ["b"], "goal: expected one comparison"),
        ("q > 3", ["a"], "goal: expected one of"),
    ],
)
def test_impossible_goals_are_refused(goal, causes, message):
    with pytest.raises(ValueError, match=message):
        smallest_changes(two_causes(), goal, causes, row(a=0, b=0, y=0))
    with pytest.raises(ValueError, match="farthest"):
        smallest_changes(two_causes(), "y > 3", ["a"], row(a=0, b=0, y=0), farthest=0)


def test_several_particles_and_settings():
    scm = known_spread(two_causes())
    settings = EffectSettings(num_particles=3, seed=4)
    found = smallest_changes(scm, "y >= 3", ["a"], row(a=0, b=0, y=0), settings=settings)["0"]
    assert found.after["a"] == pytest.approx(1, abs=2e-3)
