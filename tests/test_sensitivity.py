"""Other couplings: equal conditionals (rungs 1 and 2), other counterfactuals (rung 3)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from deepscm_pl import (
    AffineFlow,
    Bernoulli,
    Categorical,
    MultiscaleFlow,
    Ordinal,
    Positive,
    PredictedCovarianceGaussian,
    PredictedLowRankGaussian,
    SharedLowRankGaussian,
    SplineFlow,
    StructuralCausalModel,
    ZeroInflatedFlow,
)
from deepscm_pl.sensitivity import (
    _with_reversed_order,
    couplings,
    recouple,
    sensitivity_to_coupling,
)

from laws import assert_same_levels
from tiny import image_mechanism

SCALARS = {
    "affine": AffineFlow,
    "spline": partial(SplineFlow, constraint=Positive),
    "ordinal": partial(Ordinal, categories=4),
    "zeros": ZeroInflatedFlow,
    "binary": Bernoulli,
    "classes": partial(Categorical, categories=4),
}
IMAGES = {
    "vae": image_mechanism(),
    "raster": image_mechanism(likelihood=partial(PredictedCovarianceGaussian, radius=1)),
    "factors": image_mechanism(likelihood=partial(PredictedLowRankGaussian, rank=2)),
    "flow": partial(MultiscaleFlow, shape=(1, 8, 8), steps=(1, 1)),
}


def model(mechanism, seed=0):
    """a -> x with random parameters."""
    torch.manual_seed(seed)
    scm = StructuralCausalModel("a -> x", {"a": AffineFlow, "x": mechanism}).eval().double()
    with torch.no_grad():
        for parameter in scm["x"].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return scm


def cases(kinds):
    for name, mechanism in kinds.items():
        for coupling in couplings(model(mechanism)["x"]):
            yield pytest.param(mechanism, coupling, id=f"{name}, {coupling}")


def observed(scm, a, rows):
    """Observations with one value of a."""
    with torch.no_grad():
        values = scm.intervene({"a": a}, rows)
    return {name: value.clone() for name, value in values.items()}


def test_the_couplings_of_each_kind():
    found = {
        name: list(couplings(model(kind)["x"])) for name, kind in {**SCALARS, **IMAGES}.items()
    }
    assert found["spline"] == ["independent", "reversed"]
    assert found["classes"] == ["independent", "classes in order"]
    assert found["flow"] == ["independent"]
    assert found["vae"] == ["independent", "rotated latent", "new pixel noise"]
    assert found["raster"] == found["factors"] == [*found["vae"], "reversed raster order"]


@pytest.mark.parametrize(("mechanism", "coupling"), [*cases(SCALARS), *cases(IMAGES)])
def test_null_interventions_return_the_observations(mechanism, coupling):
    scm = model(mechanism)
    factual = observed(scm, 0.5, 6)
    other = recouple(scm, "x", coupling, factual)
    with torch.no_grad():
        again = other.counterfactual(factual, {"a": factual["a"]}, 3)["x"]
    torch.testing.assert_close(again, factual["x"].expand_as(again), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("mechanism", "coupling"), [*cases(SCALARS)])
def test_association_and_intervention_do_not_change(mechanism, coupling):
    scm, rows = model(mechanism), 4000
    factual = observed(scm, 0.5, rows)
    other = recouple(scm, "x", coupling, factual)
    parents = {"a": torch.full((rows, 1), -1.0).double()}
    for each in ({"a": factual["a"]}, parents):
        torch.testing.assert_close(
            other["x"].log_prob(factual["x"], each), scm["x"].log_prob(factual["x"], each)
        )
    with torch.no_grad():
        torch.manual_seed(1)
        drawn = other.intervene({"a": -1.0}, rows)["x"]
        torch.manual_seed(2)
        expected = scm.intervene({"a": -1.0}, rows)["x"]
        # Counterfactuals of a population are draws of the intervention, under every coupling.
        answer = other.counterfactual(factual, {"a": -1.0})["x"][0]
    for each in (drawn, answer):
        assert ks_2samp(each.flatten(), expected.flatten()).pvalue > 1e-3


@pytest.mark.parametrize(("mechanism", "coupling"), [*cases(SCALARS), *cases(IMAGES)])
def test_counterfactuals_change(mechanism, coupling):
    scm = model(mechanism)
    factual = observed(scm, 0.5, 50)
    found = {
        each.coupling: each
        for each in sensitivity_to_coupling(scm, factual, {"a": -1.5}, num_particles=2)
    }
    assert found[coupling].variable == "x"
    assert found[coupling].distance.shape == found[coupling].change.shape == (50,)
    assert found[coupling].distance.mean() > 1e-3


def test_reversed_noise_reverses_the_quantile():
    scm = model(SCALARS["spline"])
    factual = observed(scm, 0.5, 20)
    other = recouple(scm, "x", "reversed", factual)
    answer = other.counterfactual(factual, {"a": -1.0})["x"][0]
    after = scm["x"].abduct(answer, {"a": torch.full((20, 1), -1.0).double()})["u"]
    before = scm["x"].abduct(factual["x"], {"a": factual["a"]})["u"]
    torch.testing.assert_close(after, -before)


def test_only_rows_whose_parents_change_are_coupled_anew():
    scm = model(AffineFlow)
    factual = observed(scm, 0.5, 4)
    do = {"a": torch.tensor([[0.5], [0.5], [2.0], [2.0]]).double()}
    (independent, _) = sensitivity_to_coupling(scm, factual, do)
    assert independent.distance[:2].tolist() == [0, 0]
    assert independent.distance[2:].min() > 0


def probabilities(scm, rows):
    """Shares of the pairs of classes at a = 0.5 and at a = −1.5."""
    factual = observed(scm, 0.5, rows)
    return factual, scm["x"].logits({"a": torch.tensor([[0.5], [-1.5]]).double()}).exp()


def test_classes_in_order_have_the_joint_distribution_of_one_uniform_number():
    rows = 20_000
    scm = model(SCALARS["classes"], seed=3)
    factual, (before, after) = probabilities(scm, rows)
    other = recouple(scm, "x", "classes in order", factual)
    with torch.no_grad():
        answer = other.counterfactual(factual, {"a": -1.5})["x"][0]
    pairs = (4 * factual["x"] + answer).long().flatten()
    found = torch.bincount(pairs, minlength=16).view(4, 4) / rows
    edges = [torch.cat([torch.zeros(1), each.detach().cumsum(0)]) for each in (before, after)]
    low = torch.maximum(edges[0][:-1, None], edges[1][None, :-1])
    high = torch.minimum(edges[0][1:, None], edges[1][None, 1:])
    torch.testing.assert_close(
        found.double(), (high - low).clamp(min=0).double(), atol=0.015, rtol=0
    )


def test_two_classes_in_order_are_gumbel_max():
    """Both are monotone in the probability of a class, which has one coupling."""
    scm = model(partial(Categorical, categories=2, hidden=()), seed=1)
    factual = observed(scm, 0.5, 20_000)
    other = recouple(scm, "x", "classes in order", factual)
    with torch.no_grad():
        kept, found = (
            (each.counterfactual(factual, {"a": -1.5})["x"][0] == factual["x"]).double().mean()
            for each in (scm, other)
        )
    assert found.item() == pytest.approx(kept.item(), abs=0.01)
    assert found < 0.99


@pytest.mark.parametrize("kind", ["raster", "factors"])
def test_the_reversed_raster_order_has_the_same_covariance(kind):
    scm = model(IMAGES[kind])
    factual = observed(scm, 0.5, 3)
    other = recouple(scm, "x", "reversed raster order", factual)["x"].likelihood
    likelihood = scm["x"].likelihood
    decoded = scm["x"].decode(torch.randn(3, 2).double(), {"a": factual["a"]})
    basis = torch.eye(64).double().view(64, 1, 1, 8, 8)
    zero = likelihood.noise_free(decoded)
    roots = [(each(decoded, basis) - zero).flatten(2) for each in (likelihood, other)]
    covariances = [torch.einsum("ubp,ubq->bpq", root, root) for root in roots]
    torch.testing.assert_close(*covariances)
    assert (roots[0] - roots[1]).abs().max() > 1e-3
    # Each pixel depends on its own noise and on that of later pixels.
    assert roots[1].transpose(0, 1).triu(1).abs().max() < 1e-9
    image = zero + torch.randn_like(zero)
    torch.testing.assert_close(other(decoded, other.abduct(decoded, image)), image)
    torch.testing.assert_close(other.log_prob(decoded, image), likelihood.log_prob(decoded, image))


def test_a_covariance_that_parents_do_not_change_has_one_coupling_for_every_root():
    scm = model(image_mechanism(likelihood=partial(SharedLowRankGaussian, rank=1)))
    assert "reversed raster order" not in couplings(scm["x"])
    factual = observed(scm, 0.5, 3)
    other = scm.with_mechanisms({"x": _with_reversed_order(scm["x"])})
    answers = []
    for each in (scm, other):
        torch.manual_seed(0)
        answers.append(each.counterfactual(factual, {"a": -1.0})["x"])
    assert_same_levels(*answers)


def test_a_rotated_latent_keeps_its_length_and_turns_by_thirty_degrees():
    scm = model(image_mechanism())
    factual = observed(scm, 0.5, 5)
    seen = []
    other = recouple(scm, "x", "rotated latent", factual)
    other["x"].mechanism.register_forward_pre_hook(lambda module, given: seen.append(given[0]["z"]))
    noise = other.abduct(factual, 1)
    other.act({"a": 2.0}).predict(noise)
    z, turned = noise["x"]["z"], seen[-1]
    torch.testing.assert_close(turned.norm(dim=-1), z.norm(dim=-1))
    cosine = nn.functional.cosine_similarity(turned, z, dim=-1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, math.cos(math.pi / 6)))


def test_importance_resampling_is_that_of_the_mechanism():
    scm = model(image_mechanism())
    factual = observed(scm, 0.5, 2)
    other = recouple(scm, "x", "rotated latent", factual)
    found = []
    for each in (scm, other):
        torch.manual_seed(0)
        found.append(each.abduct(factual, 2, resample=8)["x"]["z"])
    torch.testing.assert_close(*found)


def test_unknown_couplings_and_effects_that_are_set():
    scm = model(AffineFlow)
    factual = observed(scm, 0.5, 2)
    with pytest.raises(ValueError, match="coupling: expected one of independent, reversed for x"):
        recouple(scm, "x", "rotated latent", factual)
    assert sensitivity_to_coupling(scm, factual, {"a": 1.0, "x": 2.0}) == []
    assert sensitivity_to_coupling(scm, factual, {"x": 2.0}) == []
    with pytest.raises(ValueError, match="do: unknown variable"):
        sensitivity_to_coupling(scm, factual, {"y": 2.0})
