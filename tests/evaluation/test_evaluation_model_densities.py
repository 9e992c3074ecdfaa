"""Densities of a model of data without a known world."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from deepscm_pl.evaluation import EvaluationSettings, evaluate
from deepscm_pl.evaluation.densities import DensityResult, Sample, evaluate_densities
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.mechanisms import AffineFlow, Bernoulli
from deepscm_pl.reports import Report
from deepscm_pl.reports.report import _plain_density
from deepscm_pl.reports.tables import density_table
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain, Variable

from tiny import image_mechanism

SLOPE, NOISE = 0.8, 0.6
VALUES = {"sex": [0.0, 1.0], "age": [-1.0, 1.0], "volume": [0.5], "length": [0.0]}


@pytest.fixture(scope="module")
def model():
    """Sex and age cause a volume, which causes a length, all linear and Gaussian but sex."""
    torch.manual_seed(0)
    scm = StructuralCausalModel(
        "sex, age -> volume -> length",
        {
            "sex": Bernoulli,
            "age": AffineFlow,
            "volume": partial(AffineFlow, hidden=()),
            "length": partial(AffineFlow, hidden=()),
        },
    )
    age, sex = torch.randn(4000, 1), (torch.rand(4000, 1) < 0.5).float()
    volume = SLOPE * age + sex + NOISE * torch.randn(4000, 1)
    rows = {"sex": sex, "age": age, "volume": volume}
    rows["length"] = -volume + torch.randn(4000, 1)
    scm.fit(rows)
    optimiser = torch.optim.Adam(scm.parameters(), lr=2e-2)
    for _ in range(400):
        optimiser.zero_grad()
        loss = -sum(scm[n].log_prob(rows[n], rows).mean() for n in scm.graph.nodes)
        loss.backward()
        optimiser.step()
    sex = Variable("sex", classes=("male", "female"))
    scm.describe({"volume": Variable("volume", unit="mm³"), "sex": sex})
    return ModelOnData(scm.eval(), rows, None, None)


@pytest.fixture(scope="module")
def densities(model):
    torch.manual_seed(0)
    with torch.no_grad():
        found = evaluate_densities(model, VALUES, size=20_000, progress=False)
    return {each.title: each for each in found}


def test_there_is_no_truth_to_compare_with(densities):
    assert all(each.world is each.distance is each.floor is None for each in densities.values())


def test_densities_that_cannot_move_are_omitted(densities):
    assert "p(volume | do(age = 1))" in densities
    assert "p(age | volume = 0.5 mm³)" in densities
    assert "p(age | do(volume = 0.5 mm³))" not in densities
    assert not any(title.startswith("p(sex | do(") for title in densities)


@pytest.mark.parametrize(
    ("title", "mean", "deviation"),
    [
        ("p(volume | do(age = 1))", SLOPE + 0.5, math.hypot(NOISE, 0.5)),
        ("p(volume | sex = female, age = -1)", 1 - SLOPE, NOISE),
        ("p(volume | do(sex = male))", 0.0, math.hypot(SLOPE, NOISE)),
        ("p(length | do(volume = 0.5 mm³))", -0.5, 1.0),
        ("p(volume | length = 0)", None, None),
    ],
)
def test_densities_are_those_of_the_equations(densities, title, mean, deviation):
    if mean is None:
        # Bayes' rule on a grid: the prior of the volume is a mixture of two normal distributions.
        grid = np.linspace(-6, 6, 4001)
        prior = sum(np.exp(-0.5 * (grid - m) ** 2 / (SLOPE**2 + NOISE**2)) for m in (0, 1))
        posterior = prior * np.exp(-0.5 * grid**2)
        posterior /= posterior.sum()
        mean = posterior @ grid
        deviation = np.sqrt(posterior @ (grid - mean) ** 2)
    sample = densities[title].model
    assert sample.mean == pytest.approx(mean, abs=0.06)
    assert sample.deviation == pytest.approx(deviation, rel=0.06)


def test_weights_are_equivalent_to_repetitions():
    values = torch.randn(50, dtype=torch.float64)
    times = torch.randint(1, 5, (50,))
    sample = Sample(values, times.double() / times.sum())
    repeated = values.repeat_interleave(times).numpy()
    assert sample.mean == pytest.approx(repeated.mean())
    assert sample.deviation == pytest.approx(repeated.std())
    for share in (0.1, 0.5, 0.93):
        expected = np.quantile(repeated, share, method="inverted_cdf")
        assert sample.quantile(share) == pytest.approx(expected)


def test_the_report_describes_densities_of_the_model(model):
    evaluation = evaluate(
        model,
        EvaluationSettings(density_values=VALUES, density_size=2000, detail_rows=50),
        progress=False,
    )
    report = Report(model, evaluation)
    table = report.tables["densities"]
    assert table.columns == [
        "density", "unit", "mean", "standard deviation", "10 %", "median", "90 %",
        "probability",
    ]  # fmt: skip
    row = next(row for row in table.rows if row[0] == "p(length | do(volume = 0.5 mm³))")
    assert float(row[2]) == pytest.approx(-0.5, abs=0.15)
    assert row[-1] == "–"
    row = next(row for row in table.rows if row[0] == "p(sex = female | length = 0)")
    assert 0.3 < float(row[-1]) < 0.7
    assert row[2] == "–"
    assert any(row[0].startswith("p(volume | sex = male, age = ") for row in table.rows)
    markdown = report.as_markdown()
    assert "world's" not in markdown
    assert "![Densities of the model](densities.png)" in markdown
    assert report.pictures["densities"].legends == []
    plain = {each["density"]: each for each in report.as_plain_data()["intervention"]}
    assert plain["p(length | do(volume = 0.5))"]["wasserstein_distance"] is None
    quantiles = plain["p(length | do(volume = 0.5))"]["model"]["quantiles"]
    assert quantiles["0.1"] < quantiles["0.5"] < quantiles["0.9"]
    assert not any("density/" in name for name in report.scalars())


def test_values_outside_the_model_are_refused(model):
    with pytest.raises(ValueError, match="no attribute 'thickness' in model; expected sex, age"):
        evaluate(model, EvaluationSettings(density_values={"thickness": [1.0]}), progress=False)


def of(scm: StructuralCausalModel, rows: dict[str, torch.Tensor]) -> ModelOnData:
    scm.fit(rows)
    return ModelOnData(scm.eval(), rows, None, None)


def test_a_model_of_an_image_alone_has_no_densities():
    image = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    model = of(StructuralCausalModel("image", {"image": image_mechanism()}), {"image": image})
    evaluation = evaluate(model, EvaluationSettings(num_particles=2), progress=False)
    assert evaluation.densities == []


def test_effects_of_an_image_are_reported_as_left_out():
    mechanisms = {"age": AffineFlow, "image": image_mechanism(), "diagnosis": AffineFlow}
    scm = StructuralCausalModel("age -> image -> diagnosis", mechanisms)
    image = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    rows = {"age": torch.randn(5, 1), "image": image, "diagnosis": torch.randn(5, 1)}
    model = ModelOnData(scm.eval(), rows, None, None)
    assert model.distributed == ("age",)
    assert evaluate_densities(model, progress=False) == []


def test_equal_quantiles_are_evaluated_once(model):
    rows = {**model.variables, "age": (model.variables["age"] > 1).float()}
    found = evaluate_densities(replace(model, variables=rows), size=100, progress=False)
    titles = [each.title for each in found]
    assert "p(volume | do(age = 0))" in titles
    assert len(titles) == len(set(titles))


def test_an_infinite_draw_of_weight_zero_does_not_reach_the_report():
    values = torch.tensor([1.0, math.inf, 2.0], dtype=torch.float64)
    unseen = Sample(values, torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64))
    assert (unseen.mean, unseen.deviation) == (1.5, 0.5)
    seen = Sample(values.repeat(100), torch.full((300,), 1 / 300, dtype=torch.float64))
    result = DensityResult("volume", {"age": 1.0}, True, seen)
    plain = _plain_density(result)["model"]
    assert plain["mean"] is plain["standard_deviation"] is None
    table = density_table([result])
    assert "mean" not in table.columns
    assert "median" in table.columns


def test_densities_of_few_effective_draws_have_no_numbers():
    values = torch.randn(1000, dtype=torch.float64)
    for spread, shown in ((0.1, True), (5.0, False)):
        weights = (spread * torch.randn(1000, dtype=torch.float64)).softmax(0)
        result = DensityResult("age", {"volume": 1.0}, False, Sample(values, weights))
        assert (result.model.effective_size > 100) == shown
        assert ("mean" in density_table([result]).columns) == shown


@pytest.mark.parametrize("count", [2, 3])
def test_each_class_has_a_probability(count):
    values = torch.arange(count, dtype=torch.float64)
    weights = torch.tensor([0.25, 0.5, 0.25][-count:], dtype=torch.float64)
    site = Variable("site", Domain(categories=count), classes=("Bath", "Cork", "York")[:count])
    sample = Sample(values, weights / weights.sum())
    result = DensityResult("site", {"age": 1.0}, True, sample, variables={"site": site})
    rows = density_table([result]).rows
    expected = [("York", "0.25"), ("Cork", "0.5"), ("Bath", "0.25")][::-1]
    expected = expected if count == 3 else [("Cork", "0.333")]
    assert [(row[0], row[-1]) for row in rows] == [
        (f"p(site = {name} | do(age = 1))", share) for name, share in expected
    ]
