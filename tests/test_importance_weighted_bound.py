"""The importance-weighted bound, compared with closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE, Constant, Context, SplineFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

from linear_image import LinearImage, LogitFeatures


@pytest.fixture
def linear_image(double):
    """x -> image with a linear decoder and an inexact guide, recorded values and log p(·)."""
    made = {}

    def factory(context):
        made["vae"] = ConditionalVAE(
            context, (1, 2, 3), latent=2, encoder=LogitFeatures, decoder=LinearImage
        )
        return made["vae"]

    scm = StructuralCausalModel("x -> image", {"x": AffineFlow, "image": factory})
    vae = made["vae"]
    linear = vae.decoder.linear
    with torch.no_grad():
        linear.weight.mul_(0.3)
    recorded = {
        "x": torch.randn(4, 1),
        "image": torch.randint(100, 140, (4, 1, 2, 3)).double(),
    }
    continuous = vae.dequantise(recorded["image"])
    scm.dequantise = lambda values: {**values, "image": continuous}
    weight = linear.weight.detach()
    location = linear.bias.detach() + recorded["x"] @ weight[:, 2:].T
    variance = torch.tensor(-5.0).exp()
    covariance = weight[:, :2] @ weight[:, :2].T + variance * torch.eye(6)
    processed = vae.preprocessing(continuous)
    log_determinant = vae.preprocessing.log_abs_det_jacobian(continuous, processed)
    exact = MultivariateNormal(location, covariance).log_prob(processed.flatten(1))
    # The guide is twice as wide as the posterior, with a mean that is off by half its scale.
    precision = torch.eye(2) + weight[:, :2].T @ weight[:, :2] / variance
    gain = torch.linalg.solve(precision, weight[:, :2].T) / variance
    scale = precision.diagonal().rsqrt()
    head = torch.nn.Linear(7, 4)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[:2, :6] = gain
        head.weight[:2, 6:] = -gain @ weight[:, 2:]
        head.bias[:2] = -gain @ linear.bias + 0.5 * scale
        head.bias[2:] = (2 * scale).log()
    vae.posterior_head = head
    return scm, recorded, exact + log_determinant.flatten(1).sum(1)


def average(scm, recorded, num_particles, repetitions):
    """Mean bound of the image over repetitions, ``(B,)``."""
    repeated = {name: value.expand(repetitions, *value.shape) for name, value in recorded.items()}
    continuous = scm.dequantise(recorded)["image"]
    scm.dequantise = lambda values: {
        **values,
        "image": continuous.expand(*values["image"].shape[:-4], *continuous.shape),
    }
    with torch.no_grad():
        found = scm.importance_weighted_bound(repeated, num_particles, chunk=num_particles)
    return found.bounds["image"].mean(0)


def test_one_particle_is_the_evidence_lower_bound(linear_image):
    scm, recorded, _ = linear_image
    with torch.no_grad():
        elbo = scm.elbo(recorded, 20000).evidence["image"].bound
    torch.testing.assert_close(average(scm, recorded, 1, 20000), elbo, atol=0.15, rtol=0)


def test_bound_rises_to_the_log_probability(linear_image):
    scm, recorded, exact = linear_image
    bounds = [average(scm, recorded, k, 20000 // k) for k in (1, 3, 9)]
    for below, above in zip(bounds, [*bounds[1:], exact], strict=True):
        assert (below < above).all()
    with torch.no_grad():
        found = scm.importance_weighted_bound(recorded, 40000, chunk=7000).bounds["image"]
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)
    assert (bounds[0] < exact - 0.5).all()


def test_the_lower_bound_of_the_same_draws_is_the_evidence_lower_bound(linear_image):
    scm, recorded, exact = linear_image
    with torch.no_grad():
        elbo = scm.elbo(recorded, 20000).evidence["image"].bound
        found = scm.importance_weighted_bound(recorded, 40000, chunk=7000)
    lower = found.evidence_lower_bounds["image"]
    torch.testing.assert_close(lower, elbo, atol=0.1, rtol=0)
    # The gap tends to the divergence of the guide from the posterior.
    torch.testing.assert_close(found.gaps["image"], exact - elbo, atol=0.15, rtol=0)


def test_evidence_and_weights_agree(linear_image):
    """The bound of the evidence equals that of the weights of the same draws."""
    scm, recorded, _ = linear_image
    value, parents = scm.dequantise(recorded)["image"], {"x": recorded["x"]}
    torch.manual_seed(1)
    evidence = scm["image"].evidence(value, parents, 5)
    torch.manual_seed(1)
    weights = scm["image"].log_weights(value, parents, 5)
    assert weights.shape == (5, 4)
    torch.testing.assert_close(evidence.latent.log_weights, weights)
    mean = weights.exp().mean(0).log()
    torch.testing.assert_close(evidence.importance_weighted_bound, mean)
    total = evidence.latent.divergences.sum(-1)
    torch.testing.assert_close(evidence.divergence, total)
    assert evidence.latent.divergences.shape == (4, 2)


@pytest.mark.parametrize("chunk", [1, 3, 4, 12, 100])
def test_chunks_change_nothing_but_memory(linear_image, chunk):
    scm, recorded, _ = linear_image
    sizes = []
    watch = scm["image"].decoder.register_forward_hook(
        lambda _, args, __: sizes.append(len(args[0]) // 4)
    )
    torch.manual_seed(2)
    found = scm.importance_weighted_bound(recorded, 12, chunk)
    watch.remove()
    assert max(sizes) <= chunk
    assert sum(sizes) == 12
    torch.manual_seed(2)
    drawn = [
        scm["image"].log_weights(scm.dequantise(recorded)["image"], {"x": recorded["x"]}, size)
        for size in sizes
    ]
    weights = torch.cat(drawn)
    torch.testing.assert_close(found.bounds["image"], weights.exp().mean(0).log())
    torch.testing.assert_close(found.bound, found.bounds["x"] + found.bounds["image"])
    torch.testing.assert_close(found.evidence_lower_bounds["image"], weights.mean(0))
    gap = found.bounds["image"] - found.evidence_lower_bounds["image"]
    torch.testing.assert_close(found.gaps["image"], gap)
    assert (gap > 0).all()


def test_exact_mechanisms_give_their_log_probability(double):
    scm = StructuralCausalModel("x -> y", {"x": SplineFlow, "y": AffineFlow})
    values = {"x": torch.randn(3, 1), "y": torch.randn(3, 1)}
    for num_particles, chunk in ((1, 1), (7, 3), (7, 1)):
        found = scm.importance_weighted_bound(values, num_particles, chunk)
        torch.testing.assert_close(found.bound, scm.log_prob(values))
        y = scm["y"].log_prob(values["y"], {"x": values["x"]})
        torch.testing.assert_close(found.bounds["y"], y)
        torch.testing.assert_close(found.gaps["y"], torch.zeros(3))
    assert torch.equal(
        scm["x"].evidence(values["x"], {}).importance_weighted_bound,
        scm["x"].log_prob(values["x"], {}),
    )


def test_variables_under_an_intervention(double):
    scm = StructuralCausalModel("x -> y", {"x": AffineFlow, "y": AffineFlow})
    values = {"x": torch.full((3, 1), 2.0), "y": torch.randn(3, 1)}
    found = scm.act({"x": 2.0}).importance_weighted_bound(values, 5)
    assert torch.equal(found.bounds["x"], torch.zeros(3))
    assert Constant(torch.tensor([2.0]), Domain()).log_weights(values["x"], {}).shape == (1, 3)
    with pytest.raises(ValueError, match="under an intervention"):
        scm.act({"x": lambda x: x + 1}).importance_weighted_bound(values)


def test_gradients_pass_through_the_weights():
    vae = ConditionalVAE(Context(), (1, 2, 3), latent=2, encoder=LogitFeatures, decoder=LinearImage)
    value = vae.dequantise(torch.randint(0, 256, (4, 1, 2, 3)))
    vae.evidence(value, {}, 3).importance_weighted_bound.sum().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_particles": 0}, "num_particles"), ({"chunk": 0}, "chunk")],
)
def test_numbers_below_one_are_refused(settings, message):
    scm = StructuralCausalModel("x", {"x": AffineFlow})
    with pytest.raises(ValueError, match=f"{message}: expected a whole number of at least 1"):
        scm.importance_weighted_bound({"x": torch.zeros(1, 1)}, **settings)
    with pytest.raises(ValueError, match="x is missing"):
        scm.importance_weighted_bound({})


def test_resampling_draws_from_the_posterior_of_the_latent(linear_image):
    """The closed form of a linear image, where the guide is twice as wide and off."""
    scm, recorded, _ = linear_image
    vae, parents = scm["image"], {"x": recorded["x"]}
    weight, bias = vae.decoder.linear.weight.detach(), vae.decoder.linear.bias.detach()
    variance = torch.tensor(-5.0).exp()
    precision = torch.eye(2) + weight[:, :2].T @ weight[:, :2] / variance
    # The middle of a cell stands for the cell, which is narrow beside the noise.
    processed = vae.preprocessing(recorded["image"] + 0.5).flatten(1)
    residual = processed - bias - recorded["x"] @ weight[:, 2:].T
    mean = torch.linalg.solve(precision, weight[:, :2].T) @ residual.T / variance
    torch.manual_seed(0)
    with torch.no_grad():
        found = vae.resample(recorded["image"], parents, (1000,), 4000)
    latent = found["z"]
    scale = precision.inverse().diagonal().sqrt()
    torch.testing.assert_close(
        (latent.mean(0) - mean.T) / scale, torch.zeros(4, 2), atol=0.15, rtol=0
    )
    torch.testing.assert_close(latent.std(0) / scale, torch.ones(4, 2), atol=0.15, rtol=0)
    with torch.no_grad():
        again = vae.quantise(vae({"z": latent[:5], "u": found["u"][:5]}, parents))
    torch.testing.assert_close(again, recorded["image"].expand(5, -1, -1, -1, -1).to(again))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_resampling_keeps_the_null_intervention_exact(linear_image, batch):
    scm, recorded, _ = linear_image
    del scm.dequantise
    factual = {name: value[0].expand(*batch, *value.shape[1:]) for name, value in recorded.items()}
    with torch.no_grad():
        noise = scm.abduct(factual, 5, resample=3)
        assert noise["image"]["z"].shape == (5, *batch, 2)
        answer = scm.counterfactual(factual, {"x": lambda x: x + 0}, 5, resample=3)
    for name, value in factual.items():
        assert torch.equal(answer[name], value.expand(5, *value.shape))


@pytest.mark.parametrize("resample", [1, 0, 2.5])
def test_resampling_needs_two_candidates(linear_image, resample):
    scm, recorded, _ = linear_image
    with pytest.raises(ValueError, match="resample: expected"):
        scm.counterfactual(recorded, {"x": 1.0}, resample=resample)


def test_weights_of_recorded_levels_average_to_the_bound(linear_image):
    """The mean of the weights is the evidence lower bound; that of their exponentials is log P."""
    scm, recorded, _ = linear_image
    mechanism, parents = scm["image"], {"x": recorded["x"]}
    with torch.no_grad():
        weights = mechanism.recorded_log_weights(recorded["image"], parents, 4000)
        bound = mechanism.recorded_bound(recorded["image"], parents, 4000)
        other = mechanism.recorded_log_weights(recorded["image"], parents, 4000)
    torch.testing.assert_close(weights.mean(0), bound, atol=0.15, rtol=0)
    first, second = (each.logsumexp(0) for each in (weights, other))
    torch.testing.assert_close(first, second, atol=0.15, rtol=0)
    assert bool((first - math.log(4000) > bound).all())


def test_weights_of_an_exact_mechanism_are_its_log_probability():
    flow = AffineFlow(Context(()))
    value = torch.tensor([[0.3], [2.0]])
    expected = flow.log_prob(value, {})[None]
    torch.testing.assert_close(flow.recorded_log_weights(value, {}, 7), expected)
