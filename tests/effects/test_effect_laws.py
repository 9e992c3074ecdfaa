"""Laws of every kind of effect: pairing of noise, coverage, exact zeros, symmetry, and order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear_worlds import coin, image_model, image_rows, linear, mediated, product

from deepscm_pl.effects import (
    EffectSettings,
    Outcome,
    average_effect,
    causes_of_event,
    contributions_of_changes,
    contributions_to_difference,
    contributions_to_rows,
    contributions_to_variance,
    individual_effects,
    mediated_effects,
    smallest_changes,
    units as units_of_effects,
)
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.mechanisms.known import Given
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

FEW = EffectSettings(rows=500, replicates=50)


def model(graph, **mechanisms):
    return StructuralCausalModel(graph, mechanisms).eval()


def sampled(scm, rows, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        return scm.sample(rows)


class Rule(Given):
    """x := a class, a given function of the noise and the parents; observed with the noise 0."""

    def __init__(self, context, categories, rule):
        super().__init__(context, Domain(categories=categories))
        self.rule = rule

    def forward(self, noise, parents):
        return self.rule(noise["u"], **parents).double()

    def infer(self, value, parents):
        return torch.zeros_like(value)


def by_rule(categories, rule):
    return lambda context: Rule(context, categories, rule)


def slopes(*values):
    return [model("x -> y", x=linear(), y=linear(x=value)) for value in values]


def of_the_rows(factual):
    """The effect of z on the outcome of each row, in which x, m and y respond."""
    return (2.5 * (1 - factual["z"][:, 0])).tolist()


# Pairing: both potential outcomes of a row have its own noise.


@pytest.mark.parametrize("size", [2**14, 7, 1])
def test_rows_keep_their_own_noise_whatever_the_size_of_a_batch(monkeypatch, size):
    scm = mediated()
    factual = sampled(scm, 20)
    monkeypatch.setattr(units_of_effects, "_UNITS", size)
    found = individual_effects(scm, "y", "z=1", observed=factual, settings=FEW)
    values = [each.value for each in found.estimates.values()]
    assert values == pytest.approx(of_the_rows(factual), abs=1e-4)
    average = average_effect(scm, "y", "z=1", observed=factual, settings=FEW)
    assert average.rows["effect"] == pytest.approx(of_the_rows(factual), abs=1e-4)
    parts = mediated_effects(scm, "y", "z=1", observed=factual, settings=FEW)
    assert parts["total"].value == pytest.approx(np.mean(values), abs=1e-4)
    shares = contributions_of_changes(scm, "y", "z=1", observed=factual, settings=FEW)
    assert shares["total"].value == pytest.approx(np.mean(values), abs=1e-4)


def test_an_effect_that_is_equal_in_all_rows_has_an_interval_without_width():
    scm = mediated()
    found = [
        average_effect(scm, "y", "x=2", "x=0", settings=FEW)["effect"],
        contributions_of_changes(scm, "y", "x=2, z=1", "x=0, z=0", settings=FEW)["x"],
        *mediated_effects(scm, "y", "x=2", "x=0", settings=FEW).estimates.values(),
    ]
    for each, truth in zip(found, [14, 14, 14, 2, 12, 0], strict=True):
        assert (each.value, each.low, each.high) == pytest.approx((truth,) * 3, abs=1e-4)


def test_nested_counterfactuals_keep_the_noise_of_the_mediator():
    factual = {
        "x": torch.tensor([[1.0], [1.0]]),
        "m": torch.tensor([[2.0], [5.0]]),  # u = 0 and u = 3
        "y": torch.tensor([[2.0], [5.0]]),
    }
    scm = model("x -> m; x, m -> y", x=linear(), m=linear(x=2.0), y=product())
    for row, noise in enumerate((0.0, 3.0)):
        one = {name: value[row : row + 1] for name, value in factual.items()}
        found = mediated_effects(scm, "y", "x=3", "x=1", observed=one, settings=FEW)
        # Y(a, M(b)) = a · (2b + u)
        truth = {
            "total": 3 * (6 + noise) - (2 + noise),
            "direct": 3 * (2 + noise) - (2 + noise),
            "indirect": (6 + noise) - (2 + noise),
        }
        for name, value in truth.items():
            assert found[name].value == pytest.approx(value, abs=1e-5)
    both = mediated_effects(scm, "y", "x=3", "x=1", observed=factual, settings=FEW)
    assert both["direct"].value == pytest.approx((4 + 10) / 2, abs=1e-5)


# Effects of opposite questions.


def test_the_opposite_question_has_the_opposite_effect():
    scm = model("s -> x; s, x -> y", s=coin(0.4), x=linear(s=1.0), y=product())
    one = average_effect(scm, "y", "x=2", "x=-1", by="s", settings=FEW)
    two = average_effect(scm, "y", "x=-1", "x=2", by="s", settings=FEW)
    for name in ("effect", "effect, s = 0", "effect, s = 1"):
        assert one[name].value == pytest.approx(-two[name].value, abs=1e-9)
    factual = sampled(scm, 6)
    one, two = (
        individual_effects(scm, "y", *dos, factual, settings=FEW)
        for dos in (("x=2", "x=-1"), ("x=-1", "x=2"))
    )
    assert one.rows["effect"] == pytest.approx([-each for each in two.rows["effect"]])
    forth = mediated_effects(scm, "y", "s=1", "s=0", settings=FEW)
    back = mediated_effects(scm, "y", "s=0", "s=1", settings=FEW)
    # TE(a, b) = NDE(a, b) − NIE(b, a), Pearl 2001, equation 17.
    assert forth["total"].value == pytest.approx(
        forth["direct"].value - back["indirect"].value, abs=1e-5
    )


def test_the_effect_is_the_mean_of_its_groups():
    scm = model("x, s -> y", x=linear(), s=linear(), y=product())
    found = average_effect(scm, "y", "x=2", "x=0", by="s:4", settings=FEW)
    groups = [each for name, each in found.estimates.items() if name.startswith("effect, ")]
    mean = np.average([each.value for each in groups], weights=[each.rows for each in groups])
    assert found["effect"].value == pytest.approx(mean, abs=1e-9)
    assert [each.rows for each in groups] == [125] * 4


def numbers(count, each=40):
    """A model with rows of ``count`` different values of s, and an effect of s on every row."""
    scm = model("x, s -> y", x=linear(), s=linear(), y=product())
    s = torch.arange(1.0, count + 1).repeat(each)[:, None]
    return scm, {"x": torch.ones_like(s), "s": s, "y": s}


def test_a_limit_belongs_to_the_group_above_it():
    scm, factual = numbers(3)
    found = average_effect(scm, "y", "x=2", by="s:2,", observed=factual, settings=FEW)
    assert found["effect, s below 2"].value == pytest.approx(1, abs=1e-6)
    assert found["effect, s from 2"].value == pytest.approx(2.5, abs=1e-6)
    assert [found[name].rows for name in list(found)[3:]] == [40, 80]
    three = average_effect(scm, "y", "x=2", by="s:2,3", observed=factual, settings=FEW)
    assert list(three)[3:] == ["effect, s below 2", "effect, s from 2 to 3", "effect, s from 3"]
    assert [three[name].value for name in list(three)[3:]] == pytest.approx([1, 2, 3], abs=1e-6)


def test_few_values_are_groups_of_their_own_and_more_are_quarters():
    scm, factual = numbers(10)
    found = average_effect(scm, "y", "x=2", by="s", observed=factual, settings=FEW)
    assert list(found)[3:] == [f"effect, s = {k}" for k in range(1, 11)]
    assert found["effect, s = 7"].value == pytest.approx(7, abs=1e-5)
    scm, factual = numbers(11)
    found = average_effect(scm, "y", "x=2", by="s", observed=factual, settings=FEW)
    assert len(found) == 3 + 4


def test_a_number_of_groups_is_at_most_twenty():
    scm = model("x, s -> y", x=linear(), s=linear(offset=21.0), y=product())
    found = average_effect(scm, "y", "x=2", by="s:20", settings=FEW)
    assert len(found) == 3 + 20
    found = average_effect(scm, "y", "x=2", by="s:21", settings=FEW)
    assert list(found)[3:] == ["effect, s below 21", "effect, s from 21"]


def test_small_groups_and_groups_that_the_intervention_changes_are_noted():
    scm, factual = numbers(2, each=30)
    found = average_effect(scm, "y", "x=2", by="s", observed=factual, settings=FEW)
    assert not any("rough" in note for note in found.notes)
    fewer = {name: value[1:] for name, value in factual.items()}
    found = average_effect(scm, "y", "x=2", by="s", observed=fewer, settings=FEW)
    assert "s = 1: only 29 rows; its estimate is rough." in found.notes
    found = average_effect(mediated(), "y", "x=2", by="m:0,", settings=FEW)
    assert any(note.startswith("m is an effect of x: rows are grouped") for note in found.notes)
    found = average_effect(mediated(), "y", "x=2", by="z:0,", settings=FEW)
    assert not any("rows are grouped" in note for note in found.notes)
    with pytest.raises(ValueError, match="by: expected a number or a class, but image is an image"):
        average_effect(image_model(), "intensity", "thickness=2", by="image", settings=FEW)


# Intervals.


def test_intervals_cover_the_truth_as_often_as_stated():
    scm = model("x, s -> y", x=linear(), s=linear(offset=1.0), y=product())
    covered = 0
    for seed in range(200):
        settings = EffectSettings(rows=60, replicates=100, seed=seed, level=0.8)
        found = average_effect(scm, "y", "x=2", "x=0", settings=settings)["effect"]
        covered += found.low <= 2 <= found.high  # E[2 s] = 2
    # Four standard errors of a share of 0.8, and a little less because of the bootstrap.
    assert 0.67 < covered / 200 < 0.92


def test_replicates_are_drawn_from_the_seed():
    scm = mediated()
    factual = sampled(scm, 30)
    found = [
        average_effect(
            scm, "y", "z=1", observed=factual, settings=EffectSettings(replicates=50, seed=seed)
        )["effect"]
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0].value == pytest.approx(found[2].value, abs=1e-6)
    assert found[0].low != found[2].low


def test_the_interval_of_an_individual_effect_is_that_of_its_unknown_noise():
    scm = mediated()
    factual = {**sampled(scm, 1), "z": torch.tensor([[math.nan]])}
    widths = {}
    for level in (0.95, 0.5):
        settings = EffectSettings(num_particles=2000, level=level)
        one = individual_effects(scm, "y", "z=1", observed=factual, settings=settings)["0"]
        widths[level] = one.high - one.low
    # z given x, m and y is normal with the variance 1 / 1.5.
    for level, quantile in ((0.95, 1.96), (0.5, 0.6745)):
        assert widths[level] == pytest.approx(2 * quantile * 2.5 / 1.5**0.5, rel=0.1)


def test_members_that_differ_widen_the_interval_and_equal_ones_draw_their_own_rows():
    one, two = slopes(1.0, 1.0)
    equal = average_effect(Ensemble([one, two]), "y", "x=1", "x=0", settings=FEW)
    members = equal["under do(x = 1)"].members
    assert members[0] != members[1]
    assert members == pytest.approx((1, 1), abs=0.2)
    single = average_effect(one, "y", "x=1", "x=0", settings=FEW)["under do(x = 1)"]
    apart = average_effect(Ensemble(slopes(0.0, 3.0)), "y", "x=1", "x=0", settings=FEW)
    each = apart["under do(x = 1)"]
    assert each.high - each.low > 5 * (single.high - single.low)
    assert "and over the models" in apart.notes[0]
    assert "several models show it" in average_effect(one, "y", "x=1", settings=FEW).notes[0]


def test_individual_effects_of_several_models_have_their_weights():
    ensemble = Ensemble(slopes(1.0, 3.0), [3, 1])
    factual = {"x": torch.zeros(2, 1), "y": torch.zeros(2, 1)}
    settings = EffectSettings(num_particles=4, level=0.4)
    found = individual_effects(ensemble, "y", "x=1", observed=factual, settings=settings)
    for each in found.estimates.values():
        assert each.value == pytest.approx(1.5, abs=1e-6)
        assert each.members == pytest.approx((1, 3), abs=1e-6)
        # Six of eight particles are those of the first model.
        assert (each.low, each.high) == pytest.approx((1, 1), abs=1e-6)
    assert found.rows["effect"] == pytest.approx([1.5, 1.5], abs=1e-6)


def test_one_particle_of_one_model_has_an_interval_without_width():
    scm = mediated()
    found = individual_effects(scm, "y", "z=1", observed=sampled(scm, 2), settings=FEW)
    assert all(each.low == each.value == each.high for each in found.estimates.values())
    assert any("One particle of one model" in note for note in found.notes)
    assert not average_effect(scm, "y", "z=1", settings=FEW).rows


def test_names_that_are_given_come_before_labels():
    pandas = pytest.importorskip("pandas")
    scm = mediated()
    values = {name: value[:, 0].tolist() for name, value in sampled(scm, 2).items()}
    frame = pandas.DataFrame(values, index=["p", "q"])
    assert list(individual_effects(scm, "y", "z=1", observed=frame)) == ["p", "q"]
    named = individual_effects(scm, "y", "z=1", observed=frame, row_names=["Ada", "Bo"])
    assert list(named) == named.rows["observation"] == ["Ada", "Bo"]
    shares = contributions_to_rows(scm, "y", frame, references=20, row_names=["Ada", "Bo"])
    assert shares.rows["observation"] == ["Ada", "Bo"]
    changes = smallest_changes(scm, "y > 9", ["x"], frame, row_names=["Ada", "Bo"])
    assert list(changes.changes) == ["Ada", "Bo"]


# No path.


def test_without_a_path_every_kind_is_exactly_zero_and_says_why():
    scm = mediated()
    factual = sampled(scm, 5)
    for found in (
        average_effect(scm, "x", "y=3", "y=1", settings=FEW),
        individual_effects(scm, "x", "y=3", observed=factual, settings=FEW),
        mediated_effects(scm, "x", "y~normal(0, 1)", settings=FEW),
        contributions_of_changes(scm, "x", "y=3, w=1", settings=FEW),
    ):
        named = {n: each for n, each in found.estimates.items() if not n.startswith("under")}
        assert all(each.value == each.low == each.high == 0 for each in named.values())
        assert any("exactly 0: the graph has no directed path from y" in n for n in found.notes)
    event = causes_of_event(scm, "x > 0", "y=3", "y=1", exposed="y > 0", settings=FEW)
    assert event["necessity"].value == event["sufficiency"].value == event["both"].value == 0


def test_an_intervention_on_an_effect_leaves_the_drawn_causes_alone():
    found = average_effect(mediated(), "z", "x~normal(0, 5)", settings=FEW)
    names = list(found)
    assert found[names[0]].value == found[names[1]].value


# Events.


def bounds_of(p_x, p_y_exposed, p_y_unexposed, p_y_x, p_y_not):
    """The bounds of Tian and Pearl (2000, equations 10 to 12) from probabilities."""
    xy, x_y = p_x * p_y_exposed, (1 - p_x) * p_y_unexposed
    xny, xnyn = p_x * (1 - p_y_exposed), (1 - p_x) * (1 - p_y_unexposed)
    y = xy + x_y
    return {
        "both": (
            max(0, p_y_x - p_y_not, y - p_y_not, p_y_x - y),
            min(p_y_x, 1 - p_y_not, xy + xnyn, p_y_x - p_y_not + xny + x_y),
        ),
        "necessity": (max(0, (y - p_y_not) / xy), min(1, (1 - p_y_not - xnyn) / xy)),
        "sufficiency": (max(0, (p_y_x - y) / xnyn), min(1, (p_y_x - xy) / xnyn)),
    }


@pytest.mark.parametrize("effect", [2.0, -2.0, 0.3])
@pytest.mark.parametrize("confounding", [-3.0, 0.0, 3.0])
def test_bounds_are_those_of_the_probabilities_of_the_rows(effect, confounding):
    outcome = linear(z=confounding, x=effect)
    coin_by_z = by_rule(2, lambda u, z: u + z > 0)
    scm = model("z -> x; z, x -> y", z=linear(), x=coin_by_z, y=outcome)
    assert_bounds(scm, "y > 0.5", lambda y: y > 0.5)


def test_bounds_of_rows_that_have_what_is_good_for_them():
    # The exposure is good for rows with z > 0 and bad for others, and most rows have what is good.
    scm = model(
        "z -> x; z, x -> y",
        z=linear(),
        x=by_rule(2, lambda u, z: z + 0.3 * u > 0),
        y=by_rule(2, lambda u, z, x: (x > 0.5) == (z > 0)),
    )
    low = assert_bounds(scm, "y=1", lambda y: y == 1, ["both"])["both"][0]
    assert low == pytest.approx(0.41, abs=0.03)


def assert_bounds(scm, text, event, names=("both", "necessity", "sufficiency")):
    settings = EffectSettings(rows=4000, replicates=20)
    found = causes_of_event(scm, text, "x=1", "x=0", settings=settings)
    under = average_effect(scm, text, "x=1", "x=0", settings=settings)
    factual = sampled(scm, 40_000)
    exposed = factual["x"][:, 0] == 1
    occurs = event(factual["y"][:, 0]).double()
    truth = bounds_of(
        float(exposed.double().mean()),
        float(occurs[exposed].mean()),
        float(occurs[~exposed].mean()),
        under["under do(x = 1)"].value,
        under["under do(x = 0)"].value,
    )
    for name in names:
        low, high = truth[name]
        assert found[f"{name}, at least"].value == pytest.approx(low, abs=0.05)
        assert found[f"{name}, at most"].value == pytest.approx(high, abs=0.05)
        assert found[f"{name}, at least"].value - 1e-9 <= found[name].value
        assert found[name].value <= found[f"{name}, at most"].value + 1e-9
    return truth


def test_bounds_of_an_exposure_among_three_classes_are_experimental():
    scm = model("x -> y", x=by_rule(3, lambda u: (u > -0.5).int() + (u > 0.5)), y=linear(x=1.0))
    for threshold in (0.5, 1.5):
        event = f"y > {threshold}"
        found = causes_of_event(scm, event, "x=2", "x=0", settings=FEW)
        assert "necessity, at least" not in found.estimates
        under = average_effect(scm, event, "x=2", "x=0", settings=FEW)
        p, p_not = (under[f"under do(x = {k})"].value for k in (2, 0))
        assert found["both, at least"].value == pytest.approx(max(0, p - p_not), abs=1e-9)
        assert found["both, at most"].value == pytest.approx(min(p, 1 - p_not), abs=1e-9)


# Contributions.


def test_equal_players_have_equal_shares_and_a_dummy_has_none():
    scm = model("a, b, c -> y", a=linear(), b=linear(), c=linear(), y=linear(a=2.0, b=2.0, c=0.0))
    found = contributions_of_changes(scm, "y", "a=1, b=1, c=9", "a=0, b=0, c=0", settings=FEW)
    assert found["a"].value == pytest.approx(found["b"].value, abs=1e-5)
    assert found["c"].value == pytest.approx(0, abs=1e-5)
    one = {name: torch.ones(1, 1) for name in "abc"} | {"y": torch.tensor([[4.0]])}
    rows = contributions_to_rows(scm, "y", one, references=400, settings=FEW)
    assert rows["a"].value == pytest.approx(rows["b"].value, abs=0.4)
    assert rows["c"].value == pytest.approx(0, abs=1e-6)
    variance = contributions_to_variance(scm, "y", EffectSettings(rows=4000, replicates=20))
    assert variance["a"].value == pytest.approx(variance["b"].value, abs=7)
    assert variance["c"].value == pytest.approx(0, abs=1e-6)
    difference = contributions_to_difference(scm, "y", "a > 0", settings=FEW)
    assert difference["c"].value == pytest.approx(0, abs=1e-6)


def test_shares_of_a_variance_do_not_depend_on_the_mean():
    weights = {"a": 1.0, "b": 2.0}
    settings = EffectSettings(rows=4000, replicates=20)
    for offset in (0.0, 1000.0):
        y = linear(scale=2.0, offset=offset, **weights)
        found = contributions_to_variance(model("a, b -> y", a=linear(), b=linear(), y=y), "y",
                                          settings)  # fmt: skip
        for name, truth in {"a": 1, "b": 4, "y": 4}.items():
            assert found[name].value == pytest.approx(100 * truth / 9, abs=6)


def test_changes_of_an_outcome_without_other_intervention_start_from_the_row():
    scm = model("a, b -> y", a=linear(), b=linear(), y=product())
    factual = {"a": torch.tensor([[2.0]]), "b": torch.tensor([[3.0]]), "y": torch.tensor([[6.0]])}
    found = contributions_of_changes(scm, "y", "a=4, b=5", observed=factual, settings=FEW)
    # Worths 6, 12, 10 and 20: ((6 + 10) / 2, (4 + 8) / 2).
    values = [found[name].value for name in ("a", "b", "total")]
    assert values == pytest.approx([8, 6, 14], abs=1e-5)
    # A variable of only the other intervention is a player, too.
    found = contributions_of_changes(scm, "y", "a=4", "b=5", observed=factual, settings=FEW)
    # From (2, 5) to (4, 3): worths 10, 20, 6 and 12.
    values = [found[name].value for name in ("a", "b", "total")]
    assert values == pytest.approx([8, -6, 2], abs=1e-5)


def test_contributions_to_rows_are_against_the_same_drawn_rows():
    scm = mediated()
    factual = sampled(scm, 3)
    found = contributions_to_rows(scm, "y", factual, references=50, settings=FEW)
    # Of a linear outcome, each share is the noise of the row minus the mean of the drawn rows.
    noise = {
        "z": 2.5 * factual["z"],
        "x": 7 * (factual["x"] - 0.5 * factual["z"]),
        "m": 3 * (factual["m"] - 2 * factual["x"]),
    }
    for name, truth in noise.items():
        shares = np.asarray(found.rows[name])
        differences = truth[:, 0].double().numpy() - shares
        assert np.ptp(differences) < 1e-4
    assert found.rows["observation"] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="references: expected a whole number"):
        contributions_to_rows(scm, "y", factual, references=1)


def test_contributions_to_rows_of_several_particles_are_means_over_them():
    scm = mediated()
    factual = sampled(scm, 2)
    factual["z"][0] = math.nan
    settings = EffectSettings(num_particles=50, replicates=20)
    found = contributions_to_rows(scm, "y", factual, references=40, settings=settings)
    sums = np.sum([found.rows[name] for name in "zxmy"], axis=0)
    assert found.rows["total"] == pytest.approx(sums.tolist())
    for name in ("z", "x", "total"):
        assert np.mean(found.rows[name]) == pytest.approx(found[name].value)
    # The difference of the two rows does not depend on the drawn rows.
    apart = found.rows["total"][0] - found.rows["total"][1]
    assert apart == pytest.approx(float(factual["y"][0] - factual["y"][1]), abs=1e-3)


def test_contributions_to_rows_of_several_models_have_their_weights():
    factual = {"x": torch.ones(2, 1), "y": torch.ones(2, 1)}
    alone = [contributions_to_rows(each, "y", factual, 50, settings=FEW) for each in slopes(1, 3)]
    both = contributions_to_rows(Ensemble(slopes(1, 3), [3, 1]), "y", factual, 400, settings=FEW)
    truth = 0.75 * alone[0]["x"].value + 0.25 * alone[1]["x"].value
    assert both.rows["x"] == pytest.approx([truth] * 2, abs=0.4)
    assert both.rows["x"] == pytest.approx([1.5] * 2, abs=0.2)
    assert both.rows["x"] == pytest.approx([both["x"].value] * 2)


def test_equal_models_draw_their_own_references():
    factual = {"x": torch.ones(1, 1), "y": torch.ones(1, 1)}
    found = contributions_to_rows(Ensemble(slopes(1, 1)), "y", factual, 50, settings=FEW)
    assert found["x"].members[0] != found["x"].members[1]
    found = contributions_to_difference(Ensemble(slopes(1, 1)), "y", "x > 0", settings=FEW)
    assert found["x"].members[0] != found["x"].members[1]


def test_groups_of_a_row_and_of_unknown_names_are_refused():
    scm, factual = numbers(2, each=1)
    with pytest.raises(ValueError, match=r"at least two rows with s = 1, but got 1 of 2"):
        contributions_to_difference(scm, "y", "s = 1", observed=factual)
    with pytest.raises(ValueError, match=r"group: expected one of .*did you mean 's'"):
        contributions_to_difference(scm, "y", "ss = 1")
    with pytest.raises(ValueError, match=r"outcome: expected one of .*did you mean 'y'"):
        contributions_to_variance(scm, "yy")


def test_every_row_is_in_the_pairs_of_two_groups_equally_often():
    scm, factual = numbers(2, each=3)
    factual = {name: torch.cat([value, value[:1]]) for name, value in factual.items()}
    found = contributions_to_difference(scm, "y", "s = 1", observed=factual, settings=FEW)
    # 4 rows with s = 1, and 3 with s = 2.
    assert found["total"].value == pytest.approx(-1, abs=1e-5)
    assert found["s"].value == pytest.approx(-1, abs=1e-5)


def test_only_causes_of_the_outcome_are_players_and_a_root_has_no_note():
    found = contributions_to_difference(mediated(), "m", "w > 0", settings=FEW)
    assert list(found) == ["z", "x", "m", "total"]
    found = contributions_to_variance(mediated(), "z", FEW)
    assert list(found) == ["z", "total"]
    assert found["z"].value == pytest.approx(100)
    assert not any("what its causes do not explain" in note for note in found.notes)


# Smallest changes.


def test_a_change_of_class_counts_one_and_two_count_the_root_of_two():
    scm = model("s, t -> y", s=coin(), t=coin(), y=linear(s=1.0, t=1.0))
    start = {name: torch.zeros(1, 1) for name in "sty"}
    one = smallest_changes(scm, "y >= 1", ["s", "t"], start)["0"]
    assert one.distance == 1
    two = smallest_changes(scm, "y >= 2", ["s", "t"], start)["0"]
    assert two.distance == pytest.approx(math.sqrt(2))
    assert set(two.changed) == {"s", "t"}
    assert two.after == {"s": 1, "t": 1}


def test_a_class_and_a_number_together_are_nearer_than_the_number_alone():
    scm = model("a, s -> y", a=linear(), s=coin(), y=linear(a=1.0, s=3.0))
    start = {name: torch.zeros(1, 1) for name in ("a", "s", "y")}
    found = smallest_changes(scm, "y >= 4", ["a", "s"], start, settings=FEW)["0"]
    # s = 1 at a distance of 1 leaves 1 for a: √2 instead of 4.
    assert set(found.changed) == {"a", "s"}
    assert found.distance == pytest.approx(math.sqrt(2), rel=0.03)


def test_the_spread_without_training_data_is_that_of_the_model():
    scm = model("a, b -> y", a=linear(scale=4.0), b=linear(), y=linear(a=1.0, b=1.0))
    start = {name: torch.zeros(1, 1) for name in "aby"}
    found = smallest_changes(scm, "y >= 4", ["a"], start)["0"]
    assert found.distance == pytest.approx(1, rel=0.05)
    assert not found.is_beyond


def test_a_reachable_goal_is_within_the_farthest_shift_of_each_cause():
    scm = model("a, b -> y", a=linear(), b=linear(), y=linear(a=1.0, b=1.0))
    scm.training_distribution.fit({n: torch.randn(2000, 1) for n in "aby"})
    deviations = {n: scm.training_distribution.deviation_of(n) for n in "ab"}
    start = {name: torch.zeros(1, 1) for name in "aby"}
    found = smallest_changes(scm, "y >= 3", ["a", "b"], start, farthest=2.0)["0"]
    assert found.reached
    assert all(abs(found.after[n]) <= 2.001 * deviations[n] for n in "ab")
    # In a corner: 3.9 of at most 4 needs nearly the farthest shift of both.
    corner = smallest_changes(scm, "y >= 3.7", ["a", "b"], start, farthest=2.0)["0"]
    assert all(abs(corner.after[n]) <= 2.001 * deviations[n] for n in "ab")
    never = smallest_changes(scm, "y >= 4.5", ["a", "b"], start, farthest=2.0)["0"]
    assert not never.reached
    assert never.outcome > 3
    assert never.outcome < 4.2


def test_the_nearest_point_is_within_the_farthest_shift_if_the_line_leads_out_of_it():
    scm = model("a, b -> y", a=linear(), b=linear(), y=linear(a=3.0, b=1.0))
    scm.training_distribution.fit({n: torch.randn(2000, 1) for n in "aby"})
    deviations = {n: scm.training_distribution.deviation_of(n) for n in "ab"}
    start = {name: torch.zeros(1, 1) for name in "aby"}
    found = smallest_changes(scm, "y >= 3.9", ["a", "b"], start, farthest=1.0)["0"]
    # Without the limit, a would be shifted by 1.17.
    assert found.reached
    assert 0.9 * deviations["a"] < found.after["a"] <= 1.0001 * deviations["a"]


def test_an_unreached_goal_has_the_nearest_outcome_over_all_classes():
    scm = model("a, s -> y", a=linear(), s=coin(), y=linear(a=1.0, s=-3.0))
    start = {name: torch.zeros(1, 1) for name in ("a", "s", "y")}
    never = smallest_changes(scm, "y >= 50", ["a", "s"], start)
    assert never["0"].changed == ("a",)
    assert never["0"].outcome == pytest.approx(5, abs=0.3)


def test_each_row_has_its_own_change_and_ends_below_the_training_data_are_marked():
    scm = model("a -> y", a=linear(), y=linear(a=1.0))
    scm.training_distribution.fit({n: torch.rand(500, 1) for n in "ay"})
    rows = {"a": torch.tensor([[0.5], [0.2]]), "y": torch.tensor([[0.5], [0.2]])}
    found = smallest_changes(scm, "y <= 0.1", ["a"], rows)
    assert [each.before["a"] for each in found.changes.values()] == pytest.approx([0.5, 0.2])
    assert [each.after["a"] for each in found.changes.values()] == pytest.approx(
        [0.1, 0.1], abs=2e-3
    )
    below = smallest_changes(scm, "y <= -0.5", ["a"], rows)["0"]
    assert below.reached
    assert below.is_beyond


def test_a_class_as_goal_is_reached_where_its_probability_is_a_half():
    scm = model("a -> s", a=linear(), s=by_rule(2, lambda u, a: a > 0))
    start = {"a": torch.tensor([[-2.0]]), "s": torch.tensor([[0.0]])}
    found = smallest_changes(scm, "s=1", ["a"], start)["0"]
    assert found.reached
    assert found.after["a"] == pytest.approx(0, abs=0.02)


def test_the_outcome_of_a_search_is_the_weighted_mean_over_particles_and_models():
    factual = {"x": torch.zeros(1, 1), "y": torch.zeros(1, 1)}
    ensemble = Ensemble(slopes(1.0, 3.0), [3, 1])
    found = smallest_changes(ensemble, "y >= 3", ["x"], factual)["0"]
    assert found.after["x"] == pytest.approx(2, abs=0.01)
    scm = mediated()
    missing = {**sampled(scm, 1), "z": torch.tensor([[math.nan]])}
    settings = EffectSettings(num_particles=200)
    found = smallest_changes(scm, "y >= 20", ["x"], missing, settings=settings)["0"]
    values = {"x": torch.full((1, 1), found.after["x"])}
    answered = average_effect(scm, "y", values, observed=missing, settings=settings)
    assert answered.rows[next(n for n in answered.rows if n.startswith("do"))][0] == pytest.approx(
        20, abs=0.3
    )


# Images.


def test_the_mean_grey_level_is_that_of_counterfactual_images():
    scm = image_model()
    factual = image_rows(3)
    found = average_effect(scm, "image", "thickness=5", observed=factual, settings=FEW)
    assert found.rows["no intervention"] == pytest.approx(
        factual["image"].double().flatten(1).mean(dim=1).tolist()
    )
    first = Outcome("first", ("image",), lambda v: v["image"].double().flatten(1).mean(1), "mean")
    again = average_effect(scm, first, "thickness=5", observed=factual, settings=FEW)
    assert again.rows["effect"] == found.rows["effect"]


def test_images_are_neither_conditions_nor_causes_of_a_search():
    scm = image_model()
    with pytest.raises(ValueError, match="outcome: expected a number or a class, but image"):
        average_effect(scm, "image > 3", "thickness=2")
    factual = image_rows(1)
    with pytest.raises(ValueError, match="goal: expected a number or a class, but image"):
        smallest_changes(scm, "image > 3", ["thickness"], factual)


def test_latents_are_resampled_if_asked(monkeypatch):
    asked = []
    abduct = StructuralCausalModel.abduct

    def recorded(self, values, particles=1, resample=None):
        asked.append(resample)
        return abduct(self, values, particles, resample)

    monkeypatch.setattr(StructuralCausalModel, "abduct", recorded)
    scm = image_model()
    factual = image_rows(3)
    missing = {**factual, "thickness": torch.full((3, 1), math.nan)}
    for observed in (factual, missing):
        found = []
        for resample in (None, 16):
            settings = EffectSettings(num_particles=2, resample=resample)
            answer = individual_effects(
                scm, "image", "intensity=200", observed=observed, settings=settings
            )
            found.append(answer.rows["effect"])
            assert asked[-1] == resample
        assert found[0] != pytest.approx(found[1], abs=1e-6)
