"""Pixel noise given recorded grey levels: exact draws, and exact probabilities of the levels."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from deepscm_pl.likelihoods import FixedVarianceGaussian, LaplaceLikelihood
from deepscm_pl.mechanisms import ConditionalVAE, Context
from deepscm_pl.transforms import Dequantise

from likelihoods_of_all_kinds import LIKELIHOODS

ELEMENTWISE = ["fixed", "shared", "predicted", "laplace", "discretised", "mixture"]
SHAPE = (1, 40, 50)


def test_elementwise_likelihoods_say_so():
    found = [name for name, make in LIKELIHOODS.items() if make((1, 2, 2)).elementwise]
    assert found == ELEMENTWISE


def decoder_output(likelihood):
    """Mostly black and white pixels, such as those of digits."""
    decoded = torch.randn(likelihood.outputs_per_channel, *SHAPE[1:])
    if not hasattr(likelihood, "num_components"):
        decoded[0] = torch.tensor([-4.0, -3.0, 0.0, 6.0, 9.0]).repeat(10)
    return decoded


@pytest.mark.parametrize("name", ELEMENTWISE)
@torch.no_grad()
def test_noise_given_levels_is_a_draw_of_its_posterior(name):
    """Over images of the model, it is standard normal again, and it returns their levels."""
    likelihood = LIKELIHOODS[name](SHAPE)
    transform, dequantise = likelihood.preprocessing(0.05), Dequantise()
    decoded = decoder_output(likelihood)
    image = transform.inv(likelihood(decoded, torch.randn(30, *SHAPE)))
    levels = dequantise.inverse(image)
    continuous = dequantise.sample(levels.double())
    noise = likelihood.abduct_recorded(decoded, continuous, transform)
    again = dequantise.inverse(transform.inv(likelihood(decoded, noise)))
    assert torch.equal(again, levels.double())
    assert stats.kstest(noise[:, 0, :, :].flatten().numpy()[::7], "norm").pvalue > 1e-3
    for column in range(5):
        own = noise[..., column::5].flatten()
        assert float(own.std()) == pytest.approx(1, abs=0.03)
        assert float(own.mean()) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("name", ELEMENTWISE)
@torch.no_grad()
def test_probabilities_of_all_levels_sum_to_one(name):
    likelihood = LIKELIHOODS[name]((1, 1, 1))
    transform = likelihood.preprocessing(0.05)
    levels = torch.arange(256.0).view(256, 1, 1, 1)
    for location in (-30.0, -3.0, 0.0, 1.0, 5.0, 40.0):
        decoded = torch.randn(likelihood.outputs_per_channel, 1, 1)
        decoded[-2 if likelihood.outputs_per_channel > 1 else 0] = location
        log_prob = likelihood.log_prob_recorded(decoded, levels, transform)
        assert float(log_prob.double().exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("make", [FixedVarianceGaussian, LaplaceLikelihood])
@torch.no_grad()
def test_probability_is_the_integral_of_the_density(make, double):
    """Over the cell of an inner level; the mean log-density within it is a lower bound."""
    likelihood = make((1, 1, 1))
    transform = likelihood.preprocessing(0.05)
    decoded = torch.full((likelihood.outputs_per_channel, 1, 1), 0.5)
    level = torch.tensor(150.0).view(1, 1, 1)
    x = level + (torch.arange(1000.0) + 0.5).view(-1, 1, 1, 1) / 1000
    y = transform(x)
    density = likelihood.log_prob(decoded, y) + transform.log_abs_det_jacobian(x, y).flatten()
    found = float(likelihood.log_prob_recorded(decoded, level, transform))
    assert found == pytest.approx(float(density.logsumexp(0)) - math.log(1000), abs=1e-5)
    assert found > float(density.mean())


@torch.no_grad()
def test_noise_far_in_the_tails_has_no_atoms():
    """A pixel a thousand deviations from its location: draws differ and lie in the cell."""
    likelihood = FixedVarianceGaussian((1, 1, 1), log_variance=-10.0)
    transform, dequantise = likelihood.preprocessing(0.05), Dequantise()
    decoded = torch.full((1, 1, 1), 12.0)
    levels = torch.full((500, 1, 1, 1), 100.0, dtype=torch.float64)
    noise = likelihood.abduct_recorded(decoded, dequantise.sample(levels), transform)
    assert len(noise.unique()) == 500
    again = dequantise.inverse(transform.inv(likelihood(decoded, noise)))
    assert torch.equal(again, levels)


@torch.no_grad()
def test_recorded_bound_of_a_mechanism_exceeds_the_dequantised_one():
    vae = ConditionalVAE(Context(), (1, 8, 8), 2)
    assert vae.has_recorded_bound
    image = torch.randint(256, (16, 1, 8, 8)).float()
    exact = torch.stack([vae.recorded_bound(image, {}, 8) for _ in range(20)]).mean(0)
    bounds = [vae.evidence(vae.dequantise(image), {}, 8).bound for _ in range(20)]
    assert bool((exact > torch.stack(bounds).mean(0)).all())
    correlated = ConditionalVAE(
        Context(), (1, 8, 8), 2, likelihood=LIKELIHOODS["predicted_low_rank"]
    )
    assert not correlated.has_recorded_bound
    with pytest.raises(NotImplementedError, match=r"correlates pixels.*log_prob\(\)"):
        correlated.recorded_bound(image, {})
