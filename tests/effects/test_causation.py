"""Probabilities of necessity and sufficiency in worlds where they are known."""

from __future__ import annotations

import math

import pytest
import torch
from linear_worlds import coin, linear
from scipy.stats import norm

from deepscm_pl.effects import EffectSettings, causes_of_event
from deepscm_pl.mechanisms.known import Given
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

MANY = EffectSettings(rows=40_000, replicates=100)


class Rule(Given):
    """x := a given truth of the parents, and of a coin of its own."""

    def __init__(self, context, rule, probability=0.5):
        super().__init__(context, Domain(categories=2))
        self.rule, self.threshold = rule, float(norm.ppf(probability))

    def forward(self, noise, parents):
        own = noise["u"] < self.threshold
        found = self.rule(own, **{name: value > 0.5 for name, value in parents.items()})
        return found.double()

    def infer(self, value, parents):
        raise NotImplementedError


def rule(function, probability=0.5):
    return lambda context: Rule(context, function, probability)


def discrete(function, confounded=False):
    """y is a given function of x and its own coin of 0.4; x of its own, or of a confounder."""
    if not confounded:
        return StructuralCausalModel("x -> y", {"x": coin(0.3), "y": rule(function, 0.4)}).eval()
    return StructuralCausalModel(
        "z -> x; z, x -> y",
        {
            "z": coin(0.5),
            "x": rule(lambda own, z: own | z, 0.2),
            "y": rule(function, 0.4),
        },
    ).eval()


@pytest.mark.parametrize(
    ("function", "necessity", "sufficiency", "both"),
    [
        (lambda own, x: x & own, 1.0, 0.4, 0.4),  # y needs x and the coin
        (lambda own, x: x | own, 0.6, 1.0, 0.6),  # either is enough
        (lambda own, x: x, 1.0, 1.0, 1.0),
        (lambda own, x: own, 0.0, 0.0, 0.0),
        (lambda own, x: x ^ own, 1.0, 1.0, 0.6),  # not monotone: the coin turns the effect around
    ],
)
def test_a_discrete_world(function, necessity, sufficiency, both):
    found = causes_of_event(discrete(function), "y=1", "x=1", "x=0", settings=MANY)
    for name, truth in (("necessity", necessity), ("sufficiency", sufficiency), ("both", both)):
        assert found[name].value == pytest.approx(truth, abs=0.015)
        assert found[f"{name}, at least"].value <= found[name].value + 1e-9
        assert found[name].value <= found[f"{name}, at most"].value + 1e-9
        assert found[name].low <= found[name].value <= found[name].high


def test_bounds_with_a_confounder():
    found = causes_of_event(
        discrete(lambda own, z, x: (x & own) | (z & x), confounded=True), "y=1", "x=1", "x=0",
        settings=MANY,
    )  # fmt: skip
    # x always if z, else with 0.2; y if x and (coin or z); never without x.
    assert found["necessity"].value == pytest.approx(1, abs=1e-9)
    # Of unexposed rows, all without z, the coin of 0.4 decides.
    assert found["sufficiency"].value == pytest.approx(0.4, abs=0.015)
    assert found["both"].value == pytest.approx(0.5 + 0.5 * 0.4, abs=0.015)
    for name in ("necessity", "sufficiency", "both"):
        assert found[f"{name}, at least"].value == pytest.approx(found[name].value, abs=0.015)


def test_a_threshold_of_a_number_and_of_a_cause():
    scm = StructuralCausalModel("x -> y", {"x": coin(0.5), "y": linear(x=2.0)}).eval()
    found = causes_of_event(scm, "y > 1", "x=1", "x=0", settings=MANY)
    both = norm.cdf(1) - norm.cdf(-1)
    assert found["both"].value == pytest.approx(both, abs=0.01)
    assert found["necessity"].value == pytest.approx(both / norm.cdf(1), abs=0.01)
    assert found["sufficiency"].value == pytest.approx(both / norm.cdf(1), abs=0.01)
    scm = StructuralCausalModel("x -> y", {"x": linear(), "y": linear(x=2.0)}).eval()
    with pytest.raises(ValueError, match=r"exposed: expected a condition.*such as 'x > 3'"):
        causes_of_event(scm, "y > 1", "x=1", "x=0")
    found = causes_of_event(scm, "y > 1", "x=1", "x=0", "x > 0", settings=MANY)
    assert "Exposed: x > 0." in found.notes
    assert "necessity, at least" not in found.estimates  # bounds need exact exposure
    # Under x = 0, y > 1 only if u > 1; exposed rows with the event have 2x + u > 1.
    torch.manual_seed(1)
    x, u = torch.randn(2, 400_000)
    chosen = (x > 0) & (2 * x + u > 1)
    assert found["necessity"].value == pytest.approx(
        float((u[chosen] <= 1).float().mean()), abs=0.01
    )


def test_no_path_and_no_rows():
    scm = StructuralCausalModel("x; y", {"x": coin(0.5), "y": linear()}).eval()
    found = causes_of_event(scm, "y > 0", "x=1", "x=0", settings=MANY)
    assert [found[name].value for name in ("necessity", "sufficiency", "both")] == [0, 0, 0]
    assert any("no directed path" in note for note in found.notes)
    scm = StructuralCausalModel("x -> y", {"x": coin(0.5), "y": linear(x=2.0)}).eval()
    found = causes_of_event(scm, "y > 50", "x=1", "x=0", settings=MANY)
    assert math.isnan(found["necessity"].value)
    assert any("necessity is unknown" in note for note in found.notes)


def test_impossible_questions_are_refused():
    scm = StructuralCausalModel("x -> y", {"x": coin(0.5), "y": linear(x=2.0)}).eval()
    with pytest.raises(ValueError, match="outcome: expected an event, such as 'y > 3'"):
        causes_of_event(scm, "y", "x=1", "x=0")
    with pytest.raises(ValueError, match="versus: expected the opposite"):
        causes_of_event(scm, "y > 1", "x=1", "")
    with pytest.raises(ValueError, match="exposed: expected one of x, y, but got 'v'"):
        causes_of_event(scm, "y > 1", "x=1", "x=0", "v > 1")
