"""Stochastic and conditional interventions, and groups, in a model whose answers are known."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from torch import distributions
from torch.distributions import AffineTransform

from deepscm_pl import Bernoulli, Ensemble, OfFactual, StructuralCausalModel, Variable
from deepscm_pl.callbacks.images import CounterfactualGrid, InterventionGrid
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.questions import Question, answer
from deepscm_pl.interventions import Conditional, Draw, Where, format_do, parse_do
from deepscm_pl.mechanisms import AffineFlow, Known
from deepscm_pl.overlap import OverlapEstimator
from deepscm_pl.sensitivity import sensitivity_to_coupling
from deepscm_pl.transforms import Positive

from oracle import make
from tiny import KnownTinyDataModule


def linear(**slopes):
    """x := Σ slope · parent + u."""

    def layers(parents):
        location = sum(slope * parents[name] for name, slope in slopes.items())
        return [AffineTransform(location if slopes else 0.0, 1.0)]

    return partial(Known, layers=layers)


@pytest.fixture(scope="module")
def scm():
    """age ~ N(0, 1), sex ~ Bernoulli, b := 10·age + 2·sex + u, c := b + u."""
    made = StructuralCausalModel(
        "age, sex -> b -> c",
        {"age": linear(), "sex": Bernoulli, "b": linear(age=10, sex=2), "c": linear(b=1)},
    )
    made.describe({"sex": Variable("sex", classes=("female", "male"))})
    with torch.no_grad():
        torch.manual_seed(1)
        drawn = made.sample(5000)
        drawn["sex"] = (torch.arange(5000.0) % 4 == 0).float()[:, None]
        made.fit(drawn)
    return made.requires_grad_(False)


FACTUAL = {"age": [1.0, 2.0, -1.0], "sex": [0.0, 1.0, 1.0], "b": [11.0, 20.0, -7.0],
           "c": [12.0, 20.5, -7.0]}  # fmt: skip


@pytest.fixture(scope="module")
def factual():
    return {name: torch.tensor(values)[:, None] for name, values in FACTUAL.items()}


def ask(scm, factual, text, **options):
    answer = scm.counterfactual(factual, parse_do(text, scm.variables), **options)
    return {
        name: [round(x, 3) for x in value[0].flatten().tolist()] for name, value in answer.items()
    }


@pytest.mark.parametrize(
    ("text", "b", "c"),
    [
        ("b=0.5*b", [5.5, 10, -3.5], [6.5, 10.5, -3.5]),
        ("b=0.5*b if sex == male", [11, 10, -3.5], [12, 10.5, -3.5]),
        ("b=0 if age > 1.5 else b+1", [12, 0, -6], [13, 0.5, -6]),
        ("b=b+age", [12, 22, -8], [13, 22.5, -8]),
        # Names are values under the other changes, factual(name) the observed ones.
        ("age+=1, b=b+age", [23, 33, 3], [24, 33.5, 3]),
        ("age+=1, b=b+factual(age)", [22, 32, 2], [23, 32.5, 2]),
        ("age+=1, b=factual+age", [13, 23, -7], [14, 23.5, -7]),
        ("age+=1, b=factual/2", [5.5, 10, -3.5], [6.5, 10.5, -3.5]),
        ("sex=male, b=0 if sex == male", [0, 0, 0], [1, 0.5, 0]),
        ("sex=male, b=0 if factual(sex) == male", [13, 0, 0], [14, 0.5, 0]),
        # In the group all changes hold, outside none.
        ("age=0, b+=1 where sex == male", [11, 1, 4], [12, 1.5, 4]),
        ("age=0 where c < 15", [1, 20, 3], [2, 20.5, 3]),
        ("b=factual/2 where age >= 2", [11, 10, -7], [12, 10.5, -7]),
        ("b=0 where age > 100", [11, 20, -7], [12, 20.5, -7]),
    ],
)
def test_counterfactuals_under_changes_that_read_others(scm, factual, text, b, c):
    found = ask(scm, factual, text)
    assert found["b"] == b
    assert found["c"] == c


def test_rows_outside_of_a_group_are_exactly_factual(scm, factual):
    odd = {**factual, "b": factual["b"] + 1 / 3, "c": factual["c"] * 1.1}
    do = parse_do("age~train where sex == male", scm.variables)
    found = scm.counterfactual(odd, [do, {}], num_particles=5)
    for name, value in odd.items():
        assert torch.equal(found[name][:, 0, 0], value[0].expand(5, 1))
        assert torch.equal(found[name][:, 1], value.expand(5, 3, 1))
    assert found["age"][:, 0, 1:].unique().numel() == 10


def test_python_functions_read_others(scm, factual):
    change = Conditional(lambda b, others: b + 100 * others["sex"] + others["age"], ["sex", "age"])
    found = scm.counterfactual(factual, {"age": lambda age: age + 1, "b": change})["b"]
    assert found.flatten().tolist() == pytest.approx([23, 133, 103])


def test_draws_are_from_their_distribution_and_independent(scm):
    torch.manual_seed(0)
    do = parse_do("age~normal(3, 0.5)", scm.variables)
    found = scm.intervene(do, 20000)
    assert found["age"].mean().item() == pytest.approx(3, abs=0.02)
    assert found["age"].std().item() == pytest.approx(0.5, abs=0.01)
    cut = scm.intervene(parse_do("b~uniform(0, 1)", scm.variables), 20000)
    joint = torch.cat([cut["age"], cut["b"]], dim=1).T
    assert abs(torch.corrcoef(joint)[0, 1].item()) < 0.03
    assert (found["b"] - 10 * found["age"]).std().item() == pytest.approx(1.32, abs=0.1)
    assert scm.act(do).graph.parents["age"] == scm.act(parse_do("b~train")).graph.parents["b"] == ()


def test_every_particle_and_row_has_its_own_draw(scm, factual):
    torch.manual_seed(0)
    do = parse_do("age~normal(3, 0.5)", scm.variables)
    found = scm.counterfactual(factual, do, num_particles=4)
    assert found["age"].unique().numel() == 12
    noise = factual["b"] - 10 * factual["age"] - 2 * factual["sex"]
    expected = 10 * found["age"] + 2 * factual["sex"] + noise
    torch.testing.assert_close(found["b"], expected, check_dtype=False)
    torch.manual_seed(0)
    again = scm.counterfactual(factual, do, num_particles=4)
    assert torch.equal(again["age"], found["age"])
    both = scm.counterfactual(factual, [do, {"age": 1.0}], num_particles=4)
    assert both["age"][:, 0].unique().numel() == 12
    assert both["age"][:, 1].unique().tolist() == [1.0]


def test_the_training_data_are_drawn_from(scm):
    torch.manual_seed(0)
    found = scm.intervene(parse_do("age~train, sex~train", scm.variables), 20000)
    assert found["sex"].mean().item() == pytest.approx(0.25, abs=0.01)
    assert found["age"].std().item() == pytest.approx(1, abs=0.05)
    low, high = scm.training_distribution.limits("age")
    assert low <= found["age"].min() < found["age"].max() <= high
    assert set(found["sex"].unique().tolist()) == {0.0, 1.0}


def test_draws_with_conditions_and_shifts(scm, factual):
    torch.manual_seed(0)
    text = "age ~ uniform(5, 6) if sex == male else normal(-50, 0.1)"
    found = scm.counterfactual(factual, parse_do(text, scm.variables), num_particles=200)["age"]
    assert -51 < found[:, 0].min() < found[:, 0].max() < -49
    assert 5 < found[:, 1:].min() < found[:, 1:].max() < 6
    shifted = scm.counterfactual(factual, parse_do("b = b + normal(0, 2)"), num_particles=2000)["b"]
    assert (shifted - factual["b"]).std().item() == pytest.approx(2, abs=0.1)
    grown = scm.intervene(parse_do("age+=normal(3, 0.1) if sex == male", scm.variables), 4000)
    means = [grown["age"][grown["sex"] == k].mean().item() for k in (0.0, 1.0)]
    assert means == pytest.approx([0, 3], abs=0.2)


def test_torch_distributions(scm, factual):
    per_row = distributions.Normal(torch.tensor([[0.0], [100.0], [200.0]]), 0.1)
    found = scm.counterfactual(factual, {"b": per_row}, num_particles=50)["b"].mean(dim=0)
    assert found.flatten().tolist() == pytest.approx([0, 100, 200], abs=0.1)
    wrapped = Where(distributions.Uniform(5.0, 6.0), parse_do("age=1 where age>1")["age"].condition)
    found = scm.counterfactual(factual, {"age": wrapped})["age"].flatten()
    assert found[[0, 2]].tolist() == [1, -1]
    assert 5 < found[1] < 6
    with pytest.raises(
        ValueError, match=r"do\(b\): expected a distribution whose draws have a shape"
    ):
        scm.counterfactual(factual, {"b": distributions.Normal(torch.zeros(7, 1), 1.0)})


def test_draws_of_a_group_are_those_of_the_same_noise(scm):
    torch.manual_seed(3)
    before = scm.intervene([{}], 1000)
    torch.manual_seed(3)
    do = parse_do("age=3 where age > 0 and sex == female", scm.variables)
    alone = scm.intervene(do, 1000)
    group = (before["age"][0] > 0) & (before["sex"][0] == 0)
    assert torch.equal(alone["age"], torch.where(group, 3.0, before["age"][0]))
    assert torch.equal(alone["c"][~group], before["c"][0][~group])
    torch.manual_seed(3)
    several = scm.intervene([do, {}], 1000)
    assert torch.equal(several["c"][0], alone["c"])
    assert torch.equal(several["c"][1], before["c"][0])
    with pytest.raises(ValueError, match=r"needs observations or draws; .* scm.intervene"):
        scm.act(do)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("b=0 if c > 3", r"do\(b\): the change reads c, which is an effect of b.*factual\(c\)"),
        ("age=b", r"do\(age\): the change reads b, which is an effect of age"),
        ("age=1 if sex==male, sex=1 if age>3", r"do: the changes of age, sex read each other"),
        ("sex~normal(0, 1)", r"do\(sex\): .*all of those of normal\(0, 1\) are others; draw"),
        ("sex~categorical(0, 0, 1)", r"do\(sex\): expected draws of a class index from 0 to 1"),
        ("p~normal(1, 1)", r"do\(p\): .*in \(0, inf\), but 16 % of those.*lognormal or gamma"),
        ("p~uniform(-1, 1) if age > 3", r"do\(p\): expected draws"),
        ("p~bernoulli(0.5)", r"do\(p\): expected draws of .* but 50 % of"),
    ],
)  # fmt: skip
def test_impossible_changes_are_refused_before_anything_is_drawn(do, message):
    positive = partial(AffineFlow, constraint=Positive)
    scm = StructuralCausalModel(
        "age, sex -> b -> c; p",
        {
            "age": linear(),
            "sex": Bernoulli,
            "b": linear(age=10, sex=2),
            "c": linear(b=1),
            "p": positive,
        },
    )
    scm.describe({"sex": Variable("sex", classes=("female", "male"))})
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=message):
        scm.check_do(parse_do(do, scm.variables))
    assert torch.equal(before, torch.random.get_rng_state())
    if "~" not in do and "," not in do:
        observed = do.replace("c >", "factual(c) >").replace("=b", "=factual(b)")
        scm.check_do(parse_do(observed, scm.variables))


def test_a_few_draws_outside_of_the_domain_are_drawn_again():
    scm = StructuralCausalModel("p", {"p": partial(AffineFlow, constraint=Positive)})
    drawn = scm.intervene(parse_do("p~normal(3, 1.25)"), 20000)["p"]
    assert drawn.min() > 0
    assert scm.intervene({"p": Draw("normal", (3.0, 0.5))}, 10)["p"].shape == (10, 1)


def test_unknown_training_data_and_images():
    scm = StructuralCausalModel("a", {"a": AffineFlow})
    with pytest.raises(ValueError, match=r"do\(a\): .* no training distribution; give one"):
        scm.check_do({"a": Draw("train")})
    with pytest.raises(ValueError, match=r"do\(b\): the distribution of images"):
        scm.training_distribution.marginal("b")
    images = make()
    with pytest.raises(
        ValueError, match=r"do\(thickness\): the change reads image, which is an image|effect"
    ):
        images.check_do({"thickness": Conditional(lambda x, _: x, ["image"])})
    with pytest.raises(ValueError, match=r"do\(thickness\): unknown variable 'x'"):
        images.check_do({"thickness": Conditional(lambda x, _: x, ["x"])})
    with pytest.raises(ValueError, match=r"reads: expected names, but got the text 'sex'"):
        Conditional(lambda x, _: x, "sex")


def test_sites_of_pyro(scm):
    acted = scm.act(parse_do("age~normal(3, 0.5), b=b+normal(0, 1) if sex == male", scm.variables))
    trace = pyro.poutine.trace(acted.model).get_trace(50)
    trace.compute_log_prob()
    assert trace.nodes["age"]["value"].shape == trace.nodes["b.draw.0"]["value"].shape == (50, 1)
    expected = distributions.Normal(3.0, 0.5).log_prob(trace.nodes["age"]["value"]).squeeze(-1)
    torch.testing.assert_close(trace.nodes["age"]["log_prob"], expected)
    value = acted.sample(20)
    torch.testing.assert_close(
        acted["age"].log_prob(value["age"], {}),
        distributions.Normal(3.0, 0.5).log_prob(value["age"]).squeeze(-1),
    )
    assert acted["age"].abduct(value["age"], {})["draw.0"].shape == (20, 1)


def test_ensembles_overlap_and_sensitivity_accept_all_kinds(scm, factual):
    ensemble = Ensemble([scm, scm, scm])
    for text in ("age~train", "b=0.9*b if sex == male", "age=0.5 where sex == male"):
        do = parse_do(text, scm.variables)
        found = ensemble.counterfactual(factual, [do, {}], num_particles=4)
        assert found["c"].shape == (4, 2, 3, 1)
        assert ensemble.intervene(do, 7)["c"].shape == (7, 1)
        overlap = OverlapEstimator(scm).estimate(ensemble.intervene(do, 7), do)
        assert len(overlap.verdicts) == 7
        changes = sensitivity_to_coupling(scm, factual, do)
        assert {each.variable for each in changes} >= {"c"}
    far = OverlapEstimator(scm).estimate(
        ensemble.intervene(parse_do("age~normal(90, 1)"), 7), ["age"]
    )
    assert far.verdicts == ["extrapolated"] * 7


def test_evaluations_answer_where_a_change_is_possible(scm, factual):
    for text in ("b=log(b)", "b=log(b) where age > -5", "b=log(b)+0*age", "b=log(factual)"):
        (found,) = answer(scm, factual, [Question(text, scm.variables)], 1)
        assert found.possible.tolist() == [True, True, False]
        assert found.values["b"].flatten().tolist() == pytest.approx([2.3979, 2.9957, -7], abs=1e-3)
    (found,) = answer(scm, factual, [Question("b=log(b) where b > 0", scm.variables)], 1)
    assert found.possible.tolist() == [True, True, True]


def test_evaluations_compare_changes_with_the_world_and_refuse_draws():
    """The oracle is the world, so that its errors are zero."""
    texts = [
        "thickness=thickness-0.5 if intensity > 100",
        "intensity=0.9*intensity where thickness > 2",
    ]
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=40))
    with pytest.raises(ValueError, match="is an effect of thickness"):
        evaluate(model, EvaluationSettings(texts, workers=1), progress=False)
    texts[0] = "thickness=thickness-0.5 if factual(intensity) > 100"
    settings = EvaluationSettings(texts, workers=1, num_particles=1, density_size=50)
    found = evaluate(model, settings, progress=False)
    for each in found.counterfactuals:
        assert each.quantities["error/mean_absolute_error/particle"].mean == 0
        assert each.quantities["error/mean_absolute_error/factual"].mean > 0
    with pytest.raises(ValueError, match=r"do\(thickness\): model and world .* different values"):
        Question("thickness~normal(2, 0.1)", model.scm.variables).check(model)


def test_grids_accept_all_kinds():
    images = make()
    texts = ["thickness~normal(2, 0.1)", "intensity=0.9*intensity where thickness > 2"]
    for grid in (InterventionGrid(texts), CounterfactualGrid(texts)):
        assert grid.check(images) is None
    with pytest.raises(ValueError, match="factual value, which only counterfactuals have"):
        InterventionGrid(["intensity=factual(thickness)+100"]).check(images)
    titles = CounterfactualGrid(texts)._titles(images)
    assert titles[1].startswith("do(intensity = 0.9 * intensity where thickness > 2")
    assert format_do({"b": OfFactual(torch.exp)}) == "do(b = factual, …)"
