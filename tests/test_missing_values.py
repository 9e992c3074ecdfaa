"""Missing values: bounds and posteriors against closed forms, gradients, questions and files."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from deepscm_pl.mechanisms import (
    AffineFlow,
    Bernoulli,
    Categorical,
    ConditionalVAE,
    Ordinal,
    SplineFlow,
    SteppedFlow,
    ZeroInflatedFlow,
)
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.transforms import Positive

GRAPH = "a -> b; a, b -> c"
linear = partial(AffineFlow, hidden=())


def missing_at(value: torch.Tensor, rows) -> torch.Tensor:
    value = value.clone()
    value[rows] = torch.nan
    return value


@pytest.fixture
def gaussian():
    """a ~ N(0, 1), b = 0.8 a + 0.6 u, c = 0.5 a − 1.2 b + 0.7 u, and the covariance of all."""
    scm = StructuralCausalModel(GRAPH, dict.fromkeys("abc", linear))
    slopes = {"b": [0.8], "c": [0.5, -1.2]}
    scales = {"b": 0.6, "c": 0.7}
    with torch.no_grad():
        for name, slope in slopes.items():
            last = scm[name].parameters_of.layers[-1]
            last.weight[0] = torch.tensor(slope)
            last.bias[1] = math.log(scales[name])
    scm.fitted.fill_(True)
    scm.eval()
    paths = torch.tensor([[0.0, 0, 0], [0.8, 0, 0], [0.5, -1.2, 0]])
    effects = torch.linalg.inv(torch.eye(3) - paths)
    covariance = effects @ torch.diag(torch.tensor([1.0, 0.36, 0.49])) @ effects.T
    return scm, covariance


def conditional(covariance, row):
    """Mean and covariance of the missing values of one row, and log p of the observed ones."""
    known = ~row.isnan()
    seen = covariance[known][:, known]
    log_p = MultivariateNormal(torch.zeros(len(seen)), seen).log_prob(row[known])
    weight = covariance[~known][:, known] @ torch.linalg.inv(seen)
    mean = weight @ row[known]
    return mean, covariance[~known][:, ~known] - weight @ covariance[known][:, ~known], log_p


def rows_of(values):
    return torch.cat([values[name] for name in "abc"], dim=1)


def incomplete(scm, size=6):
    """Rows in which each set of variables is missing once."""
    torch.manual_seed(1)
    values = {name: value.detach() for name, value in scm.sample(7 * size).items()}
    for k, sets in enumerate(["", "a", "b", "c", "ab", "ac", "bc"]):
        for name in sets:
            values[name] = missing_at(values[name], slice(k * size, (k + 1) * size))
    return values


def test_the_importance_weighted_bound_is_the_log_likelihood_of_the_observed_values(gaussian):
    scm, covariance = gaussian
    values = incomplete(scm)
    truth = torch.stack([conditional(covariance, row)[2] for row in rows_of(values)])
    torch.manual_seed(0)
    with torch.no_grad():
        found = scm.importance_weighted_bound(values, num_particles=1000)
        elbo = torch.stack([scm.elbo(values).bound for _ in range(100)]).mean(dim=0)
    torch.testing.assert_close(found.bound, truth, atol=0.25, rtol=0)
    assert (elbo < truth + 0.3).all()
    assert all((gap >= 0).all() for gap in found.gaps.values())


def test_missing_values_without_observed_effects_are_marginalised_exactly(gaussian):
    scm, covariance = gaussian
    values = incomplete(scm)
    truth = torch.stack([conditional(covariance, row)[2] for row in rows_of(values)])
    bound = scm.elbo(values).bound
    for first in (0, 18, 36):  # none, c, b and c
        torch.testing.assert_close(bound[first : first + 6], truth[first : first + 6])


def test_a_missing_value_has_its_posterior(gaussian):
    scm, covariance = gaussian
    values = incomplete(scm, size=3)
    torch.manual_seed(0)
    inferred = scm.infer_missing(values, num_particles=1000, candidates=4000)
    joined = torch.cat([inferred[name].expand(1000, -1, 1) for name in "abc"], dim=-1)
    for n, row in enumerate(rows_of(values)):
        unknown = row.isnan()
        torch.testing.assert_close(
            joined[:, n, ~unknown], row[~unknown].expand(1000, -1), atol=0, rtol=0
        )
        if unknown.any():
            mean, posterior, _ = conditional(covariance, row)
            draws = joined[:, n, unknown]
            torch.testing.assert_close(draws.mean(0), mean, atol=0.12, rtol=0)
            torch.testing.assert_close(
                draws.T.cov().view_as(posterior), posterior, atol=0.15, rtol=0
            )


def train(scm, values, steps, rate=0.02, parameters=None):
    optimiser = torch.optim.Adam(parameters or scm.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    scm.train()
    for _ in range(steps):
        optimiser.zero_grad()
        (-scm.elbo(values).bound.mean()).backward()
        optimiser.step()
        schedule.step()
    scm.eval()


def test_a_trained_posterior_makes_the_bound_tight(gaussian):
    scm, covariance = gaussian
    values = {name: value.detach() for name, value in scm.sample(2000).items()}
    hidden = missing_at(values["a"], slice(0, 1000))
    other = missing_at(values["b"], slice(500, 1500))
    values |= {"a": hidden, "b": other}
    scm.declare_incomplete(values)
    assert scm.missing_values.names == ("a", "b")
    truth = torch.stack([conditional(covariance, row)[2] for row in rows_of(values)])
    before = (truth - scm.elbo(values).bound).mean()
    train(scm, values, 300, parameters=list(scm.missing_values.parameters()))
    torch.manual_seed(2)
    with torch.no_grad():
        gap = torch.stack([truth - scm.elbo(values).bound for _ in range(20)]).mean()
    assert before > 0.3
    assert -0.01 < gap < 0.02, gap


def test_parameters_are_recovered_where_dropping_rows_is_biased():
    """x is missing where y, which is observed, is large: missing at random."""
    torch.manual_seed(0)
    x = torch.randn(4000, 1)
    y = x + torch.randn(4000, 1)
    unseen = (y[:, 0] > 0.3) & (torch.rand(4000) < 0.9)
    values = {"x": missing_at(x, unseen), "y": y}

    def slope(scm):
        inside = {"x": torch.tensor([[-1.0], [1.0]])}
        with torch.no_grad():
            low, high = scm["y"]({"u": torch.zeros(2, 1)}, inside).flatten()
        return float(high - low) / 2

    def fitted(data):
        scm = StructuralCausalModel("x -> y", dict.fromkeys("xy", linear))
        scm.fit(data)
        train(scm, data, 400)
        return scm

    scm = fitted(values)
    dropped = fitted({name: value[~unseen] for name, value in values.items()})
    assert slope(scm) == pytest.approx(1.0, abs=0.1)
    assert slope(dropped) < 0.8
    with torch.no_grad():
        drawn = scm.sample(20_000)
    assert float(drawn["x"].mean()) == pytest.approx(0.0, abs=0.1)
    assert float(drawn["x"].std()) == pytest.approx(1.0, abs=0.1)
    assert float(values["x"].nanmean()) < -0.3


def test_classes_are_enumerated():
    torch.manual_seed(0)
    scm = StructuralCausalModel(
        "k, s -> y", {"k": partial(Categorical, categories=3), "s": Bernoulli, "y": linear}
    )
    sizes = torch.arange(300.0)
    data = {"k": (sizes % 3)[:, None], "s": (sizes % 2)[:, None], "y": torch.randn(300, 1)}
    data["k"], data["s"] = missing_at(data["k"], slice(0, 60)), missing_at(data["s"], slice(30, 90))
    scm.fit(data)
    for parameter in scm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = {name: value[:100] for name, value in data.items()}
    bound = scm.elbo(rows).bound
    assert torch.equal(bound, scm.elbo(rows).bound)  # nothing is drawn
    # log p of the observed values: the sum over all classes.
    every = []
    for k in range(3):
        for s in range(2):
            full = {
                "k": torch.where(rows["k"].isnan(), k, rows["k"]),
                "s": torch.where(rows["s"].isnan(), s, rows["s"]),
                "y": rows["y"],
            }
            # A known class counts once.
            is_counted = (rows["k"].isnan() | (k == 0)) & (rows["s"].isnan() | (s == 0))
            log_p = scm.log_prob(full)
            every.append(torch.where(is_counted[:, 0], log_p, -torch.inf))
    truth = torch.stack(every).logsumexp(dim=0)
    assert (bound <= truth + 1e-5).all()
    torch.testing.assert_close(bound[90:], truth[90:])
    train(scm, rows, 200, parameters=list(scm.missing_values.parameters()))
    torch.testing.assert_close(scm.elbo(rows).bound, truth, atol=0.02, rtol=0)
    inferred = scm.infer_missing(rows, num_particles=50)
    assert set(inferred["k"].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert set(inferred["s"].unique().tolist()) <= {0.0, 1.0}


COUNTS = {
    "count": (partial(SteppedFlow, flow=partial(AffineFlow, constraint=Positive, hidden=())), 40.0),
    "zero": (
        partial(ZeroInflatedFlow, flow=partial(AffineFlow, constraint=Positive, hidden=())),
        0,
    ),
}


def test_gradients_of_the_score_function_estimator_are_those_of_the_sum_over_counts():
    torch.manual_seed(0)
    scm = StructuralCausalModel("n -> y", {"n": COUNTS["count"][0], "y": linear})
    n = torch.poisson(torch.full((400, 1), 3.0))
    y = 0.7 * n + torch.randn(400, 1)
    scm.fit({"n": missing_at(n, slice(0, 100)), "y": y})
    with torch.no_grad():
        scm["y"].parameters_of.layers[-1].weight[0] = 0.8
    network = scm.missing_values.networks["n"].network
    size = 40_000
    rows = {"n": torch.full((size, 1), torch.nan), "y": torch.full((size, 1), 4.0)}
    free = [network.layers[-1].bias, *scm["n"].flow.parameters()]
    scm.train()
    bound = scm.elbo(rows).bound.mean()
    found = torch.autograd.grad(bound, free)

    counts = torch.arange(0.0, 60.0)[:, None]
    location, log_scale = network.layers[-1].bias
    with torch.no_grad():
        low, high = (each.clamp(-40, 40) for each in scm["n"].cell(counts, {}))
    scale = log_scale.exp().double()
    normal = Normal(location.double(), scale)
    mass = (normal.cdf(high) - normal.cdf(low)).squeeze(-1).clamp(min=1e-30)
    joint = scm["n"].log_prob(counts, {}) + scm["y"].log_prob(
        torch.full((60, 1), 4.0), {"n": counts}
    )
    exact = (mass * (joint - mass.log())).sum()
    expected = torch.autograd.grad(exact, free)
    assert bound.item() == pytest.approx(exact.item(), abs=0.01)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.to(one), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("kind", ["count", "zero", "spline", "ordinal", "positive"])
def test_every_mechanism_of_numbers_and_classes_learns_its_posterior(kind):
    """After training q, the bound is within 0.1 nats of log p, estimated by importance weights."""
    torch.manual_seed(0)
    made = {
        "count": COUNTS["count"][0],
        "zero": COUNTS["zero"][0],
        "spline": partial(SplineFlow, hidden=()),
        "ordinal": partial(Ordinal, categories=3),
        "positive": partial(AffineFlow, constraint=Positive, hidden=()),
    }[kind]
    size = 1500
    n = torch.poisson(torch.full((size, 1), 1.5))
    if kind == "ordinal":
        n = n.clamp(max=2)
    if kind in ("zero", "spline", "positive"):
        n = n * (0.5 + torch.rand(size, 1)) + (0.2 if kind != "zero" else 0)
    y = n + 0.5 * torch.randn(size, 1)
    data = {"n": missing_at(n, slice(0, 700)), "y": y}
    scm = StructuralCausalModel("n -> y", {"n": made, "y": linear})
    scm.fit(data)
    train(scm, data, 250, rate=0.03)
    rows = {name: value[:700] for name, value in data.items()}
    with torch.no_grad():
        bound = scm.elbo(rows, 1).bound.mean()
        truth = scm.importance_weighted_bound(rows, 200).bound.mean()
    assert bound == pytest.approx(float(truth), abs=0.12)
    mean, _ = summarise(scm.infer_missing(rows, 40)["n"])
    error = (mean - n[:700]).abs().mean()
    assert error < 0.5, error
    inferred = scm.infer_missing(rows, 3)
    scm["n"].domain.check("n", inferred["n"])


def image_model():
    scm = StructuralCausalModel(
        "a -> image; k -> image",
        {
            "a": linear,
            "k": Bernoulli,
            "image": partial(
                ConditionalVAE,
                shape=(1, 8, 8),
                latent=2,
                hidden=8,
                encoder=partial(ConvolutionalEncoder, channels=(4, 8), features=8),
                decoder=partial(ConvolutionalDecoder, channels=(8, 4), hidden=16),
            ),
        },
    )
    torch.manual_seed(0)
    size = 64
    a = torch.rand(size, 1)
    image = (255 * a.view(-1, 1, 1, 1) * torch.rand(size, 1, 8, 8)).round()
    data = {"a": a, "k": (torch.arange(size) % 2.0)[:, None], "image": image}
    data["a"] = missing_at(data["a"], slice(0, 20))
    data["k"] = missing_at(data["k"], slice(10, 30))
    scm.fit(data)
    return scm, data


def test_images_inform_the_inference_and_gradients_reach_every_part():
    scm, data = image_model()
    found = scm.elbo(data, num_particles=3)
    assert found.bound.shape == (64,)
    assert found.evidence["image"].latent.log_weights.shape == (3, 64)
    assert found.evidence["image"].latent.divergences.shape == (64, 2)
    found.bound.mean().backward()
    # All but the last layers start without gradients, because these are zero.
    with_gradient = [n for n, p in scm.named_parameters() if p.grad is not None and p.grad.any()]
    for part in ("networks.a.linear", "networks.k.linear", "mechanisms.image", "mechanisms.a"):
        assert any(part in name for name in with_gradient), part
    scm.eval()
    with torch.no_grad():
        bound = scm.importance_weighted_bound(data, 4)
    assert bound.bound.shape == (64,)
    assert bound.bound.isfinite().all()


def test_complete_rows_have_the_same_evidence_beside_incomplete_ones():
    scm, data = image_model()
    for name in ("a", "k"):
        torch.manual_seed(0)
        found = scm.elbo({n: value[30:] for n, value in data.items()})
        some = {n: value[20:] for n, value in data.items()}
        torch.testing.assert_close(
            found.evidence[name].bound, scm.elbo(some).evidence[name].bound[10:]
        )


@pytest.mark.parametrize("resample", [None, 4])
def test_a_null_intervention_keeps_observed_values_and_inferred_ones_of_each_particle(resample):
    scm, data = image_model()
    scm.eval()
    factual = {name: value[5:15] for name, value in data.items()}
    torch.manual_seed(0)
    with torch.no_grad():
        answer = scm.counterfactual(factual, {}, 6, resample)
        same = scm.counterfactual(factual, {"k": lambda k: k, "a": lambda a: a}, 6, resample)
        several = scm.counterfactual(factual, [{"a": 0.5}, {"a": lambda a: a}], 6, resample)
        leading = scm.counterfactual(factual, {"a": torch.rand(3, 1, 1)}, 6, resample)
    for found in (answer, same):
        for name, value in factual.items():
            known = ~value.isnan()
            assert torch.equal(found[name][:, known], value[known].expand(6, -1))
            assert found[name].isfinite().all()
    assert (answer["a"].std(dim=0) > 0).any()  # an inferred value differs between particles
    assert several["a"].shape == (6, 2, 10, 1)
    assert leading["image"].shape == (6, 3, 10, 1, 8, 8)
    # What the question does not change keeps the same inferred value under each of several.
    assert torch.equal(several["k"][:, 0], several["k"][:, 1])


def test_counterfactuals_of_an_incomplete_row_are_those_of_the_posterior(gaussian):
    """E[c under do(b = 1) | b, c, with a missing], linear in the posterior mean of a."""
    scm, covariance = gaussian
    row = torch.tensor([torch.nan, 1.3, -0.4])
    factual = {name: row[None, k, None] for k, name in enumerate("abc")}
    torch.manual_seed(0)
    with torch.no_grad():
        answer = scm.counterfactual(factual, {"b": 0.0}, 1000, 4000)
    # c − 0.5 a + 1.2 b is the noise of c, which stays.
    assert answer["c"].std() < 1e-4
    assert float(answer["c"].mean()) == pytest.approx(-0.4 + 1.2 * 1.3, abs=1e-4)
    mean, variance, _ = conditional(covariance, row)
    assert float(answer["a"].mean()) == pytest.approx(float(mean), abs=0.05)
    assert float(answer["a"].var()) == pytest.approx(float(variance), abs=0.05)
    with torch.no_grad():
        changed = scm.counterfactual(factual, {"a": 0.0}, 1000, 4000)
    # b = 0.8 a + u, so that b under do(a = 0) is 1.3 − 0.8 a.
    assert float(changed["b"].mean()) == pytest.approx(1.3 - 0.8 * float(mean), abs=0.05)


def test_weights_are_saved_and_loaded():
    scm, data = image_model()
    for parameter in scm.missing_values.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = scm.state_dict()
    other = image_model()[0]
    fresh = StructuralCausalModel(
        "a -> image; k -> image", {name: other[name] for name in other.graph}
    )
    assert fresh.missing_values.names == ()
    fresh.load_state_dict(state)
    assert fresh.missing_values.names == ("a", "k")
    for model in (scm, fresh):
        model.eval()
    found = []
    for model in (scm, fresh):
        torch.manual_seed(3)
        found.append(model.infer_missing(data, 2))
    assert torch.equal(found[0]["a"], found[1]["a"])


def test_a_model_of_complete_data_has_no_network_and_draws_nothing_more():
    torch.manual_seed(0)
    scm = StructuralCausalModel(GRAPH, dict.fromkeys("abc", linear))
    data = {name: torch.randn(50, 1) for name in "abc"}
    scm.fit(data)
    assert not [*scm.missing_values.parameters()]
    assert not [name for name in scm.state_dict() if "missing" in name]
    state = torch.get_rng_state()
    scm.elbo(data)
    scm.abduct(data, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_statistics_are_those_of_the_observed_values():
    torch.manual_seed(0)
    a, b = torch.randn(200, 1), 3 + torch.rand(200, 1)
    data = {"a": missing_at(a, slice(0, 50)), "b": missing_at(b, slice(100, 120))}
    scm = StructuralCausalModel("a -> b", {"a": linear, "b": linear})
    scm.fit(data)
    assert float(scm["a"].constraint.location) == pytest.approx(float(a[50:].mean()), abs=1e-6)
    assert float(scm["b"].context.a_mean) == pytest.approx(
        float(torch.cat([a[50:100], a[120:]]).mean()), abs=1e-6
    )
    low, high = scm.training_distribution.limits("a")
    assert (low, high) == (float(a[50:].min()), float(a[50:].max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.full((9, 1), torch.nan)}, "b: every value of the training split is missing"),
        ({"b": torch.full((9, 1), torch.inf)}, "b: expected values"),
    ],
)
def test_what_cannot_be_inferred_is_refused(change, message):
    scm = StructuralCausalModel("a -> b", {"a": linear, "b": linear})
    with pytest.raises(ValueError, match=message):
        scm.fit({"a": torch.randn(9, 1), "b": torch.randn(9, 1), **change})


def test_missing_pixels_and_exact_probabilities_of_incomplete_rows_are_refused():
    scm, data = image_model()
    broken = {**data, "image": missing_at(data["image"], slice(0, 1))}
    with pytest.raises(ValueError, match="image: expected numbers, but got NaN"):
        scm.counterfactual(broken, {})
    attributes = scm.restrict(["a", "k"])
    with pytest.raises(ValueError, match="a: expected numbers, but got NaN"):
        attributes.log_prob(data)
    with torch.no_grad():
        assert attributes.eval().elbo(data).bound.isfinite().all()
        assert attributes.infer_missing(data, 2)["a"].isfinite().all()


def test_every_network_has_a_gradient_in_a_batch_without_missing_values():
    """Processes of a training would otherwise wait for each other's gradients."""
    scm, data = image_model()
    scm.elbo({name: value[40:50] for name, value in data.items()}).bound.mean().backward()
    assert all(each.grad is not None for each in scm.missing_values.parameters())


def test_effects_of_incomplete_observations_are_those_of_inferred_values(gaussian):
    from deepscm_pl.effects.units import Units

    scm, covariance = gaussian
    row = torch.tensor([torch.nan, 1.3, -0.4])
    factual = {name: row[None, k, None].repeat(2, 1) for k, name in enumerate("abc")}
    factual["a"][1] = 0.7
    torch.manual_seed(0)
    with torch.no_grad():
        units = Units.observed(scm, factual, particles=500)
        changed = units.under({"a": 0.0})
    assert units.count == 1000
    inferred = units.factual["a"].view(500, 2)
    assert inferred[:, 1].unique().tolist() == [pytest.approx(0.7)]
    mean, _, _ = conditional(covariance, row)
    assert float(inferred[:, 0].mean()) == pytest.approx(float(mean), abs=0.1)
    # b = 0.8 a + u, with the noise u of the observed b and the inferred a of each unit.
    expected = 1.3 - 0.8 * units.factual["a"]
    torch.testing.assert_close(changed["b"], expected, atol=1e-4, rtol=0)
