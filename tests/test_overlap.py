"""Verdicts on how far questions are from the training data, where the truth is known."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical, ConditionalVAE
from deepscm_pl.overlap import VERDICTS, OverlapEstimator, OverlapThresholds
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training_distribution import TrainingDistribution
from deepscm_pl.transforms import Positive
from deepscm_pl.variables import Domain

ROWS = 4000


def fitted(scm, variables, steps=200):
    """Trained by maximum likelihood."""
    scm.fit(variables)
    optimiser = torch.optim.Adam(scm.parameters(), 0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        (-scm.log_prob(variables).mean()).backward()
        optimiser.step()
    return scm.eval()


@pytest.fixture(scope="module")
def correlated():
    """a, b of correlation 0.95, c of both."""
    torch.manual_seed(0)
    a = torch.randn(ROWS, 1)
    b = 0.95 * a + (1 - 0.95**2) ** 0.5 * torch.randn(ROWS, 1)
    c = a + b + 0.1 * torch.randn(ROWS, 1)
    values = {"a": a, "b": b, "c": c}
    scm = StructuralCausalModel("a -> b; a, b -> c", dict.fromkeys("abc", AffineFlow))
    return fitted(scm, values), values


def overlap_of(scm, do, factual):
    answer = {name: each[0] for name, each in scm.counterfactual(factual, do).items()}
    return OverlapEstimator(scm).estimate(answer, do)


def verdicts(overlap):
    assert overlap.verdicts == [VERDICTS[k] for k in overlap.verdict.flatten()]
    return overlap.verdicts


def test_each_row_has_its_own_verdict_however_often_it_occurs(correlated):
    scm, _ = correlated
    rows = torch.linspace(-6, 6, 300)[:, None]
    answer = {"a": rows, "b": rows.flip(0), "c": rows}
    estimator = OverlapEstimator(scm)
    once = estimator.estimate(answer, {"a": 0.0})
    order = torch.randint(300, (4, 500))
    repeated = estimator.estimate({name: v[order] for name, v in answer.items()}, {"a": 0.0})
    assert torch.equal(repeated.verdict, once.verdict[order])
    torch.testing.assert_close(repeated.rows, once.rows[order])
    quantiles = once.quantiles["a"][order]
    torch.testing.assert_close(repeated.quantiles["a"], quantiles, equal_nan=True)


def test_ends_of_the_data_and_combinations_are_told_apart(correlated):
    scm, values = correlated
    factual = {name: each[:1] * 0 for name, each in values.items()}
    assert verdicts(overlap_of(scm, {"a": 0.5}, factual)) == ["supported"]
    assert verdicts(overlap_of(scm, {"a": 40.0}, factual)) == ["extrapolated"]
    # Both values occur, but never together.
    found = overlap_of(scm, {"a": 2.0, "b": -2.0}, factual)
    assert verdicts(found) == ["extrapolated"]
    assert float(found.quantiles["a"]) > 0.99
    assert float(overlap_of(scm, {"a": 2.0, "b": 2.0}, factual).rows) > 10


def test_effective_rows_are_those_of_the_density(correlated):
    """In one dimension, N·p(x)·h·√(2π) for a small bandwidth h."""
    scm, values = correlated
    factual = {name: each[:1] * 0 for name, each in values.items()}
    bandwidth = ROWS ** (-1 / 5)
    for value in (0.0, 1.0, 2.0):
        scores = torch.tensor(value).double()
        variance = 1 + bandwidth**2
        expected = ROWS * bandwidth * (-0.5 * scores**2 / variance).exp() / variance**0.5
        restricted = scm.restrict(["b"])
        few = {name: factual[name] for name in ("a", "b")}
        found = OverlapEstimator(restricted).estimate(
            {n: e[0] for n, e in restricted.counterfactual(few, {"a": value}).items()}, ["a"]
        )
        assert float(found.rows) == pytest.approx(float(expected), rel=0.15)


def test_rows_near_data_are_supported_and_none_are_refused(correlated):
    scm, values = correlated
    overlap = overlap_of(scm, {"a": lambda a: a}, {n: e[:500] for n, e in values.items()})
    assert overlap.count("supported") > 470
    assert overlap.count("extrapolated") <= 5
    quantiles = overlap.quantiles["a"]
    assert bool(((quantiles >= 0) & (quantiles <= 1)).all())


def test_error_against_the_truth_rises_with_the_verdict():
    """The truth is a parabola, and the model a line."""
    torch.manual_seed(0)
    a = torch.randn(ROWS, 1)
    b = a**2 + 0.1 * torch.randn(ROWS, 1)
    scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": partial(AffineFlow, hidden=(32,))})
    fitted(scm, {"a": a, "b": b}, steps=600)
    factual = {"a": a[:300], "b": b[:300]}
    places = torch.linspace(-7, 7, 29)[:, None, None]
    answer = {n: e[0] for n, e in scm.counterfactual(factual, {"a": places}).items()}
    truth = factual["b"] - factual["a"] ** 2 + places**2
    error = (answer["b"] - truth).abs().squeeze(-1)
    found = OverlapEstimator(scm).estimate(answer, ["a"])
    means = [float(error[found.verdict == k].mean()) for k in range(3)]
    assert means[0] < 0.3 * means[2]
    assert means[0] < means[1] < means[2]


def test_rows_are_those_of_the_formula_in_double_precision(correlated):
    """Rows at the same place are computed once, and draws are compared in single precision."""
    scm, values = correlated
    factual = {name: each[:40] for name, each in values.items()}
    do = {"a": torch.tensor([[[0.5]], [[2.5]]])}
    answer = {name: each[0] for name, each in scm.counterfactual(factual, do).items()}
    estimator = OverlapEstimator(scm)
    found = estimator.estimate(answer, do)
    kept, draws = scm.training_distribution, estimator._draws
    size = len(draws["a"])
    expected = torch.full((2, 40), float(ROWS), dtype=torch.float64)
    for parents in (["a"], ["a", "b"]):
        width = size ** (-1 / (len(parents) + 4))
        gaps = [kept.scores(n, answer[n])[..., None] - draws[n].double() for n in parents]
        square = sum(gap.square() for gap in gaps) / width**2
        expected = torch.minimum(expected, (-square / 2).exp().sum(-1) * ROWS / size)
    torch.testing.assert_close(found.rows, expected.expand(2, 40), rtol=1e-4, atol=1e-6)
    without = estimator.estimate(answer, do, quantiles=False)
    assert torch.equal(without.verdict, found.verdict)
    assert without.quantiles == {}


def test_tails_of_mechanisms_beyond_the_data_are_no_training_rows(correlated):
    """The mechanism is normal, but no training row is beyond 1."""
    scm, values = correlated
    cut = (values["a"].abs() < 1).squeeze(-1)
    narrow = TrainingDistribution(scm.training_distribution.domains)
    narrow.fit({name: each[cut] for name, each in values.items()})
    factual = {name: each[:1] * 0 for name, each in values.items()}
    answer = {n: e[0] for n, e in scm.counterfactual(factual, {"a": 1.7}).items()}
    assert float(OverlapEstimator(scm).estimate(answer, ["a"]).rows) > 10
    beyond = OverlapEstimator(scm, distribution=narrow).estimate(answer, ["a"])
    assert float(beyond.rows) < 0.01
    assert verdicts(beyond) == ["extrapolated"]


def test_leaves_are_supported_whatever_they_are_set_to(correlated):
    scm, values = correlated
    factual = {name: each[:3] for name, each in values.items()}
    assert verdicts(overlap_of(scm, {"c": 1e6}, factual)) == ["supported"] * 3


def test_classes_are_counted_by_equality():
    torch.manual_seed(0)
    site = torch.cat([torch.zeros(3000, 1), torch.ones(990, 1), torch.full((10, 1), 2.0)])
    size = torch.exp(0.1 * torch.randn(4000, 1))
    mechanisms = {
        "site": partial(Categorical, categories=3),
        "size": partial(AffineFlow, constraint=Positive),
    }
    scm = StructuralCausalModel("site -> size", mechanisms)
    scm.fit({"site": site, "size": size})
    factual = {"site": torch.zeros(1, 1), "size": torch.ones(1, 1)}
    rows = [float(overlap_of(scm, {"site": float(k)}, factual).rows) for k in range(3)]
    assert rows == pytest.approx([3000, 990, 10], rel=0.5)
    assert rows[0] > rows[1] > rows[2]


def test_skewed_and_tied_values_have_normal_scores():
    torch.manual_seed(0)
    kept = TrainingDistribution({"x": Domain(), "k": Domain()})
    x = torch.randn(20_000, 1).exp()
    k = torch.poisson(torch.full((20_000, 1), 1.5))
    kept.fit({"x": x, "k": k})
    scores = kept.scores("x", x)
    assert float(scores.mean()) == pytest.approx(0, abs=0.01)
    assert float(scores.std()) == pytest.approx(1, abs=0.02)
    assert bool((kept.scores("k", torch.arange(6.0)[:, None]).diff() > 0).all())
    beyond = kept.scores("x", torch.tensor([[-5.0], [500.0], [1000.0]]))
    assert float(beyond[0]) < -4
    assert 4 < float(beyond[1]) < float(beyond[2])


def test_saved_and_older_models_load(correlated):
    scm, _ = correlated
    fresh = StructuralCausalModel("a -> b; a, b -> c", dict.fromkeys("abc", AffineFlow))
    fresh.load_state_dict(scm.state_dict())
    assert int(fresh.training_distribution.rows) == ROWS
    older = {k: v for k, v in scm.state_dict().items() if "training_distribution" not in k}
    fresh = StructuralCausalModel("a -> b; a, b -> c", dict.fromkeys("abc", AffineFlow))
    fresh.load_state_dict(older)
    with pytest.raises(ValueError, match="contains no training distribution"):
        OverlapEstimator(fresh)


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="edge: expected"):
        OverlapThresholds(extrapolated=2, edge=1)


def test_effects_of_images_need_no_images(correlated):
    """The diagnosis follows from an image, which is not drawn."""

    class NeverDrawn(ConditionalVAE):
        def forward(self, noise, parents):
            raise AssertionError("an image was drawn")

    image = partial(NeverDrawn, shape=(1, 8, 8), latent=2)
    scm = StructuralCausalModel(
        "a -> image -> diagnosis", {"a": AffineFlow, "image": image, "diagnosis": Bernoulli}
    )
    scm.training_distribution.fit({"a": torch.randn(100, 1), "diagnosis": torch.ones(100, 1)})
    answer = {"a": torch.tensor([[0.0], [9.0]]), "image": torch.zeros(2, 1, 8, 8)}
    answer["diagnosis"] = torch.ones(2, 1)
    assert verdicts(OverlapEstimator(scm).estimate(answer, ["a"])) == ["supported", "extrapolated"]


def test_values_beyond_the_training_data_are_extrapolated_whatever_the_thresholds(correlated):
    scm, values = correlated
    largest = float(values["a"].max())
    factual = {name: each[:1] * 0 for name, each in values.items()}
    thresholds = OverlapThresholds(extrapolated=1e-300, edge=1e-300)
    for asked, expected in ((largest - 0.01, "supported"), (largest + 0.01, "extrapolated")):
        answer = {n: e[0] for n, e in scm.counterfactual(factual, {"a": asked}).items()}
        assert verdicts(OverlapEstimator(scm, thresholds).estimate(answer, ["a"])) == [expected]


def test_effective_rows_are_those_of_the_training_split_not_of_the_draws():
    """100 rows, of which the estimator draws 2,000."""
    torch.manual_seed(0)
    a = torch.randn(100, 1)
    scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
    fitted(scm, {"a": a, "b": a + torch.randn(100, 1)})
    overlap = OverlapEstimator(scm).estimate({"a": a[:1] * 0, "b": a[:1]}, ["a"])
    assert 5 < float(overlap.rows) < 100


def test_rows_like_those_of_the_training_are_supported_however_many_the_parents():
    """With six parents and 300 rows, most training rows have no other row near them."""
    torch.manual_seed(0)
    names = [f"x{number}" for number in range(6)]
    values = {name: torch.randn(300, 1) for name in names}
    values["x1"] = 0.99 * values["x0"] + 0.14 * values["x1"]
    values["y"] = sum(values[name] for name in names) + torch.randn(300, 1)
    graph = f"x0 -> x1; {', '.join(names)} -> y"
    scm = StructuralCausalModel(graph, dict.fromkeys(values, partial(AffineFlow, hidden=())))
    fitted(scm, values)
    estimator = OverlapEstimator(scm)
    within = estimator.estimate(scm.intervene({"x5": 0.1}, 400), ["x5"])
    assert within.count("extrapolated") < 0.1 * 400
    assert within.count("supported") > 0.6 * 400
    torn = scm.intervene({"x0": 1.5, "x1": -1.5}, 400)
    assert estimator.estimate(torn, ["x0", "x1"]).count("extrapolated") > 0.9 * 400
