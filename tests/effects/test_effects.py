"""Average, conditional and individual effects, and their division, against closed forms."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from linear_worlds import coin, image_model, image_rows, linear, mediated, product

from deepscm_pl.effects import (
    Condition,
    EffectSettings,
    Outcome,
    average_effect,
    individual_effects,
    mediated_effects,
)
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variable

FEW = EffectSettings(rows=2000, replicates=200)


def assert_contains(estimate, truth):
    """An interval contains the truth, at three times its width."""
    half = 1.5 * (estimate.high - estimate.low)
    assert estimate.value - half - 1e-6 <= truth <= estimate.value + half + 1e-6


def test_the_average_effect_of_a_linear_world():
    found = average_effect(mediated(), "y", "x=2", "x=0", settings=FEW)
    assert found["effect"].value == pytest.approx(14, abs=1e-5)
    assert found["effect"].low == pytest.approx(found["effect"].high, abs=1e-5)
    assert_contains(found["under do(x = 2)"], 14)
    assert_contains(found["under do(x = 0)"], 0)
    assert list(found) == ["under do(x = 2)", "under do(x = 0)", "effect"]


def test_without_another_intervention_the_reference_is_no_intervention():
    found = average_effect(mediated(), "y", "x=2", settings=FEW)
    assert "under no intervention" in found.estimates
    assert_contains(found["effect"], 14)
    assert found["effect"].high - found["effect"].low > 0.1
    shifted = average_effect(mediated(), "y", "x+=1", settings=FEW)
    assert shifted["effect"].value == pytest.approx(7, abs=1e-5)


def test_the_interval_of_a_mean_is_that_of_normal_theory():
    found = average_effect(mediated(), "y", "x=2", settings=EffectSettings(rows=4000))
    # y under do(x = 2) has the variance 2² + 1² + (3 · 0.5)².
    width = 2 * 1.96 * math.sqrt(4 + 1 + 2.25) / math.sqrt(4000)
    one = found["under do(x = 2)"]
    assert one.high - one.low == pytest.approx(width, rel=0.1)


def test_the_same_seed_gives_the_same_estimates_and_keeps_the_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = average_effect(mediated(), "y", "x=2", settings=FEW)
    assert torch.equal(torch.rand(3), expected)
    assert first.describe() == average_effect(mediated(), "y", "x=2", settings=FEW).describe()
    other = EffectSettings(rows=2000, replicates=200, seed=1)
    assert first["effect"] != average_effect(mediated(), "y", "x=2", settings=other)["effect"]


def test_an_effect_in_groups_of_a_class_and_of_a_number():
    scm = StructuralCausalModel("x, s -> y", {"x": linear(), "s": coin(0.3), "y": product()}).eval()
    found = average_effect(scm, "y", "x=2", "x=0", by="s", settings=FEW)
    assert found["effect, s = 0"].value == 0
    assert found["effect, s = 1"].value == pytest.approx(2, abs=1e-6)
    assert found["effect, s = 0"].rows + found["effect, s = 1"].rows == 2000
    assert_contains(found["effect"], 0.6)
    scm = StructuralCausalModel("x, s -> y", {"x": linear(), "s": linear(), "y": product()}).eval()
    thirds = average_effect(scm, "y", "x=1", "x=0", by="s:3", settings=FEW)
    names = [name for name in thirds if name.startswith("effect, ")]
    assert [thirds[name].rows for name in names] == [667, 666, 667]
    # The mean of the lowest third of N(0, 1) is −φ(Φ⁻¹(1/3)) · 3.
    assert_contains(thirds[names[0]], -1.0908)
    assert_contains(thirds[names[1]], 0)
    limits = average_effect(scm, "y", "x=1", "x=0", by="s:-4,9", settings=FEW)
    assert math.isnan(limits["effect, s from 9"].value)
    assert any("only 0 rows" in note for note in limits.notes)
    halves = [average_effect(scm, "y", "x=1", by=by, settings=FEW) for by in ("s:0", "s:0,")]
    assert list(halves[0]) == list(halves[1])
    assert list(halves[0])[3:] == ["effect, s below 0", "effect, s from 0"]


def test_no_directed_path_gives_exactly_zero_and_says_why():
    for cause, outcome in (("y", "x"), ("w", "y"), ("x", "z")):
        found = average_effect(mediated(), outcome, {cause: 3.0}, settings=FEW)["effect"]
        assert (found.value, found.low, found.high) == (0, 0, 0)
        found = average_effect(mediated(), outcome, {cause: 3.0}, settings=FEW)
        assert f"no directed path from {cause} to {outcome}" in found.notes[0]
        parts = mediated_effects(mediated(), outcome, {cause: 3.0}, settings=FEW)
        assert all(each.value == each.low == each.high == 0 for each in parts.estimates.values())
        assert "exactly 0" in parts.notes[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y", "y=3"), "effect of a variable on itself"),
        (("y", "x=3, y=2"), "effect of a variable on itself"),
        (("m > 2", "m=3"), "effect of a variable on itself"),
        (("ym", "x=3"), r"outcome: expected one of .*, but got 'ym' \(did you mean 'y'\?\)"),
        (("y", "xx=3"), r"unknown variable 'xx' \(did you mean 'x'\?\)"),
        (("y", ""), "do: "),
        (("y", {}), "do: expected an intervention"),
        (("y", {"x": float("nan")}), "NaN"),
        (("y > yes", "x=3"), "y: expected a number, but got 'yes'"),
        (("y > 2 or y", "x=3"), "expected a number"),
        (("y > 2 or q < 1", "x=3"), "expected a number"),
        (("c=2", "x=3"), "c: expected a class index from 0 to 1, but got 2"),
        (("p > -1", "x=3"), "p: expected a number within its domain.*every value or none"),
    ],
)
def test_questions_without_an_answer_are_refused(arguments, message):
    positive = Domain(lower=0.0, open=True)
    scm = StructuralCausalModel(
        "x -> m; x, m -> y; c; p",
        {
            "x": linear(),
            "m": linear(x=1.0),
            "y": linear(x=1.0, m=1.0),
            "c": coin(),
            "p": linear(offset=50.0, domain=positive),
        },
    )
    with pytest.raises(ValueError, match=message):
        average_effect(scm, *arguments, settings=FEW)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("q", "by: expected one of z, x"),
        ("z:3,2", "by: expected a class, or a number with"),
        ("z:a", "by: expected a class, or a number with"),
    ],
)
def test_impossible_groups_are_refused(by, message):
    with pytest.raises(ValueError, match=message):
        average_effect(mediated(), "y", "x=1", by=by, settings=FEW)


@pytest.mark.parametrize("settings", [{"rows": 1}, {"level": 1.0}, {"replicates": 3}, {"seed": -1}])
def test_settings_out_of_bounds_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        EffectSettings(**settings)


def test_direct_and_indirect_effects_of_a_linear_world():
    found = mediated_effects(mediated(), "y", "x=2", "x=0", settings=FEW)
    values = {name: round(each.value, 4) for name, each in found.estimates.items()}
    assert values == {"total": 14, "direct": 2, "indirect": 12, "interaction": 0}
    assert "Indirect: through m." in found.notes
    # The effect of the confounder: x and m are mediators, each alone or both.
    parts = {}
    for through in (None, ["x"], ["m"]):
        found = mediated_effects(mediated(), "y", "z=1", "z=0", through, settings=FEW)
        parts[str(through)] = [round(found[n].value, 4) for n in ("total", "direct", "indirect")]
    assert parts == {
        "None": [2.5, -1.0, 3.5],
        "['x']": [2.5, -1.0, 3.5],
        "['m']": [2.5, -0.5, 3.0],
    }


def test_an_interaction_of_both_paths():
    scm = StructuralCausalModel(
        "x -> m; x, m -> y", {"x": linear(), "m": linear(x=2.0), "y": product()}
    ).eval()
    found = mediated_effects(scm, "y", "x=3", "x=1", settings=FEW)
    # Y(a, M(b)) = a · (2b + u): total 18 − 2, direct 6 − 2, indirect 6 − 2.
    for name, truth in {"total": 16, "direct": 4, "indirect": 4, "interaction": 8}.items():
        assert_contains(found[name], truth)
    parts = [found[name].value for name in ("direct", "indirect", "interaction")]
    assert found["total"].value == pytest.approx(sum(parts), abs=1e-9)


def test_a_missing_path_makes_a_part_zero_and_says_why():
    chain = StructuralCausalModel(
        "x -> m -> y", {"x": linear(), "m": linear(x=2.0), "y": linear(m=1.0)}
    ).eval()
    found = mediated_effects(chain, "y", "x=1", settings=FEW)
    assert found["direct"].value == found["direct"].high == 0
    assert any(
        "direct effect is exactly 0: every directed path leads through m" in n for n in found.notes
    )
    found = mediated_effects(chain, "y", "m=1", settings=FEW)
    assert found["indirect"].value == 0
    assert any("indirect effect is exactly 0" in note for note in found.notes)
    with pytest.raises(
        ValueError, match=r"through: expected variables on directed paths.*choose from m"
    ):
        mediated_effects(chain, "y", "x=1", through=["y"])
    with pytest.raises(ValueError, match="did you mean 'm'"):
        mediated_effects(chain, "y", "x=1", through=["mm"])


def observations(scm, rows=40):
    torch.manual_seed(3)
    with torch.no_grad():
        return scm.sample(rows)


def test_individual_effects_are_differences_of_counterfactuals():
    scm = StructuralCausalModel("x, s -> y", {"x": linear(), "s": linear(), "y": product()}).eval()
    factual = observations(scm)
    found = individual_effects(scm, "y", "x=2", "x=0", factual, settings=FEW)
    values = torch.tensor([each.value for each in found.estimates.values()], dtype=torch.float64)
    torch.testing.assert_close(values, 2 * factual["s"][:, 0])
    assert found.rows["effect"] == pytest.approx(values.tolist())
    mean = average_effect(scm, "y", "x=2", "x=0", observed=factual, settings=FEW)["effect"]
    assert mean.value == pytest.approx(float(values.mean()))
    assert mean.rows == 40
    expected = 2 * 1.96 * float(values.std(correction=0)) / math.sqrt(40)
    assert mean.high - mean.low == pytest.approx(expected, rel=0.2)
    with pytest.raises(ValueError, match="observed: expected observations"):
        individual_effects(scm, "y", "x=2")
    broken = {**factual, "x": factual["x"] * math.inf}
    with pytest.raises(ValueError, match="x: expected values in"):
        individual_effects(scm, "y", "x=2", observed=broken)


def test_observations_keep_their_values_without_an_intervention():
    scm = mediated()
    factual = observations(scm)
    found = individual_effects(scm, "y", "z+=0", observed=factual, settings=FEW)
    assert max(abs(each.value) for each in found.estimates.values()) < 1e-5
    rows = found.rows["no intervention"]
    assert rows == pytest.approx(factual["y"][:, 0].tolist())


def test_several_models_widen_the_interval():
    models = []
    for slope in (1.0, 3.0):
        mechanisms = {"x": linear(), "y": linear(x=slope)}
        models.append(StructuralCausalModel("x -> y", mechanisms).eval())
    found = average_effect(Ensemble(models), "y", "x=1", "x=0", settings=FEW)["effect"]
    assert found.value == pytest.approx(2, abs=1e-6)
    assert found.members == pytest.approx((1, 3), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1, 3), abs=1e-6)
    found = average_effect(Ensemble(models, [3, 1]), "y", "x=1", "x=0", settings=FEW)["effect"]
    assert found.value == pytest.approx(1.5, abs=1e-6)
    found = average_effect(Ensemble(models, [1, 0]), "y", "x=1", "x=0", settings=FEW)["effect"]
    assert found.value == pytest.approx(1, abs=1e-6)


def test_an_image_as_outcome_stands_for_its_mean_grey_level():
    scm = image_model()
    factual = image_rows(6)
    settings = EffectSettings(num_particles=3, rows=50, replicates=50)
    found = individual_effects(
        scm, "image", "thickness=5", "thickness=2", factual, settings=settings
    )
    assert found.outcome.heading == "mean of image (grey levels)"
    assert all(each.low <= each.value <= each.high for each in found.estimates.values())
    measured = Outcome("top", ("image",), lambda v: v["image"][:, 0, 0, 0], "first pixel")
    both = mediated_effects(
        scm, measured, "thickness=5", "thickness=2", observed=factual, settings=settings
    )
    assert both.outcome.label == "first pixel"
    parts = mediated_effects(scm, "image", "thickness=5", "thickness=2", settings=settings)
    value = {name: each.value for name, each in parts.estimates.items()}
    assert value["total"] == pytest.approx(
        value["direct"] + value["indirect"] + value["interaction"]
    )


def test_a_tensor_sets_a_value_of_each_observation_for_all_particles():
    scm = image_model()
    factual = image_rows(4)
    value = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    found = average_effect(
        scm, "intensity", {"thickness": value}, observed=factual,
        settings=EffectSettings(num_particles=3),
    )  # fmt: skip
    moved = 10 * (value - factual["thickness"])
    assert found.rows["effect"] == pytest.approx(moved[:, 0].tolist(), rel=1e-4)


def test_results_print_as_tables_frames_and_pictures():
    found = average_effect(mediated(), "y", "x=2", "x=0", by="z:2", settings=FEW)
    text = repr(found)
    assert text.startswith("effect of do(x = 2) against do(x = 0) on y\n")
    assert "95 % interval" in text
    frame = found.to_frame()
    assert list(frame.index) == list(found)
    assert list(frame.columns) == ["value", "low", "high", "unit", "rows"]
    assert "<table" in found._repr_html_()
    axes = found.plot().axes[0]
    assert axes.get_xlabel() == "y"
    assert len(axes.get_yticks()) == 3
    assert np.isfinite(axes.get_xlim()).all()


def test_observations_may_be_a_frame_or_lists_and_lack_values():
    pandas = pytest.importorskip("pandas")
    scm = mediated()
    factual = observations(scm, 30)
    table = {name: value[:, 0].tolist() for name, value in factual.items()}
    frame = pandas.DataFrame({**table, "site": "A"}, index=[f"p{k}" for k in range(30)])
    expected = individual_effects(scm, "y", "z=1", observed=factual, settings=FEW)
    for given in (table, frame):
        found = individual_effects(scm, "y", "z=1", observed=given, settings=FEW)
        values = [each.value for each in found.estimates.values()]
        assert values == pytest.approx([each.value for each in expected.estimates.values()])
    assert list(found)[:2] == found.rows["observation"][:2] == ["p0", "p1"]
    average = average_effect(scm, "y", "z=1", observed=frame.drop(columns="w"), settings=FEW)
    assert average.rows["observation"][0] == "p0"
    with pytest.raises(ValueError, match="observations: expected the columns"):
        average_effect(scm, "y", "z=1", observed=frame.drop(columns="m"), settings=FEW)


def test_missing_values_are_inferred():
    scm = mediated()
    factual = observations(scm, 4)
    factual["z"][:2] = math.nan
    settings = EffectSettings(num_particles=400)
    found = individual_effects(scm, "y", "z=1", observed=factual, settings=settings)
    # z given x, m and y is normal: 1/(1 + 0.25 + 1/4) times (0.5 x − (y − x − 3m)/4).
    x, m, y = (factual[name][:, 0].double() for name in "xmy")
    mean = (0.5 * x - (y - x - 3 * m) / 4) / 1.5
    half = 1.96 * 2.5 / 1.5**0.5
    for row in (0, 1):
        each = found[str(row)]
        assert each.value == pytest.approx(2.5 * (1 - float(mean[row])), abs=0.5)
        assert each.high - each.low == pytest.approx(2 * half, rel=0.3)
    for row in (2, 3):
        assert found[str(row)].value == pytest.approx(
            2.5 * (1 - float(factual["z"][row])), abs=1e-4
        )
    total = average_effect(scm, "y", "z=1", "z=0", observed=factual, settings=settings)
    assert total["effect"].value == pytest.approx(2.5, abs=1e-4)


def test_interventions_that_draw_read_others_or_change_a_group():
    scm = mediated()
    found = average_effect(scm, "y", "x~normal(2, 0.5)", "x=0", settings=FEW)["effect"]
    assert_contains(found, 14)
    assert found.high - found.low > 0.1
    # The change reads z, which the question would not need otherwise.
    found = average_effect(scm, "m", "x = x + z", settings=FEW)["effect"]
    assert_contains(found, 0)
    found = average_effect(scm, "m", "x = x + 2 if z > 0 else x", settings=FEW)["effect"]
    assert_contains(found, 2)
    group = average_effect(scm, "m", "x += 2 where z > 0", by="z:0,", settings=FEW)
    assert group["effect, z below 0"].value == pytest.approx(0, abs=1e-6)
    assert group["effect, z from 0"].value == pytest.approx(4, abs=1e-5)
    parts = mediated_effects(scm, "y", "x~normal(2, 0.5)", "x=0", settings=FEW)
    for name, truth in {"direct": 2, "indirect": 12, "interaction": 0}.items():
        assert_contains(parts[name], truth)
    # Both parts have the same draw of x in each row.
    assert abs(parts["interaction"].value) < 1e-5


def test_conditions_have_the_grammar_of_groups():
    variables = mediated().variables
    values = {"z": torch.tensor([[1.0], [-1.0]]), "x": torch.tensor([[3.0], [0.5]])}
    for text, truth in {
        "z > 0 or x < 1": [True, True],
        "not z > 0": [False, True],
        "0 < x <= 2": [False, True],
        "z + x > 3": [True, False],
        "z ≥ 1 and x != 2": [True, False],
        "`z` = 1": [True, False],
    }.items():
        condition = Condition.parse(text, variables)
        assert condition(values).tolist() == truth
        assert condition.negated()(values).tolist() == [not each for each in truth]
        again = Condition.parse(str(condition), variables)
        assert again(values).tolist() == truth
    assert set(Condition.parse("z > 0 or x < 1", variables).names) == {"z", "x"}
    found = average_effect(mediated(), "y > 2 or y < -2", "x=2", "x=0", settings=FEW)
    assert found.outcome.label == "probability of y > 2 or y < -2"
    assert 0 < found["effect"].value < 1


CLASSES = ("female", "fe male", ">89, frail", "it's", 'a"b', "x and y", "18-38", "≥61", "3xTG", "1")


def test_a_printed_condition_is_read_back():
    sex = Variable("sex", Domain(categories=len(CLASSES)), classes=CLASSES)
    variables = {"sex": sex, "age": Variable("age", unit="years"), "is": Variable("is")}
    generator = np.random.default_rng(0)
    for _ in range(200):
        parts = []
        for _ in range(generator.integers(1, 4)):
            name = ("sex", "age", "`is`")[generator.integers(3)]
            operator = ("=", "!=", ">", "<=", "==")[generator.integers(5)]
            value = f"{generator.normal() * 10.0 ** generator.integers(-9, 9):.9g}"
            if name == "sex":
                text = CLASSES[generator.integers(len(CLASSES))]
                operator, value = operator[:1], "'" + text.replace("'", "''") + "'"
                operator = "=" if operator != "!" else "!="
            parts.append(f"{name} {operator} {value}")
        condition = Condition.parse(" and ".join(parts), variables)
        assert Condition.parse(str(condition), variables) == condition
        if len(parts) == 1:
            opposite = condition.negated()
            assert Condition.parse(str(opposite), variables) == opposite
            assert opposite.negated() == condition


def test_interventions_beyond_the_training_data_are_noted():
    scm = mediated()
    with torch.no_grad():
        scm.training_distribution.fit(scm.sample(2000))
    near = average_effect(scm, "m", "x=0.1", "x=0", settings=FEW)
    far = average_effect(scm, "m", "x=50", "x=0", settings=FEW)
    assert not any("extrapolate" in note for note in near.notes)
    note = next(note for note in far.notes if "extrapolate" in note)
    assert note.startswith("do(x = 50): 500 of 500 answers extrapolate; x is from")
    assert re.search(r"\(without an intervention, \d\)\.$", note)
    factual = observations(scm, 7)
    for ask in (average_effect, individual_effects, mediated_effects):
        found = ask(scm, "m", "x=50", observed=factual, settings=FEW)
        assert any("7 of 7 answers extrapolate" in note for note in found.notes)
