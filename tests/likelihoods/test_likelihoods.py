"""Every likelihood is an invertible map of standard normal noise, with the resulting density."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.likelihoods import (
    FixedVarianceGaussian,
    PredictedVarianceGaussian,
    SharedVarianceGaussian,
)
from deepscm_pl.mechanisms import ConditionalVAE, Context

from likelihoods_of_all_kinds import LIKELIHOODS

SHAPE = (2, 2, 3)


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request):
    made = LIKELIHOODS[request.param](SHAPE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def decode(likelihood, *batch):
    """Output of a decoder, of order 1."""
    return torch.randn(*batch, SHAPE[0] * likelihood.outputs_per_channel, *SHAPE[1:])


def test_log_prob_is_the_density_of_the_map(double, likelihood):
    """log p(y) = log N(u; 0, I) − log |det dy/du|, the determinant by autograd, per sample."""
    decoded = decode(likelihood, 3)
    noise = torch.randn(3, *SHAPE)
    value = likelihood(decoded, noise)
    for k in range(3):
        jacobian = torch.autograd.functional.jacobian(partial(likelihood, decoded[k]), noise[k])
        log_determinant = torch.linalg.slogdet(jacobian.reshape(12, 12)).logabsdet
        base = torch.distributions.Normal(0, 1).log_prob(noise[k]).sum()
        found = likelihood.log_prob(decoded[k], value[k])
        torch.testing.assert_close(found, base - log_determinant)


def test_abduction_inverts_and_batches_broadcast(double, likelihood):
    decoded, noise = decode(likelihood, 4, 1), torch.randn(5, *SHAPE)
    value = likelihood(decoded, noise)
    assert value.shape == (4, 5, *SHAPE)
    found = likelihood.abduct(decoded, value)
    torch.testing.assert_close(found, noise.expand_as(found), atol=1e-8, rtol=1e-8)
    one = likelihood.log_prob(decoded[2, 0], value[2, 3])
    torch.testing.assert_close(likelihood.log_prob(decoded, value)[2, 3], one)
    assert likelihood.log_prob(decode(likelihood, 4, 1), value[0]).shape == (4, 5)


def test_noise_free_image_is_that_of_no_noise(likelihood):
    decoded = decode(likelihood, 2, 3)
    zero = torch.zeros(2, 3, *SHAPE)
    assert torch.equal(likelihood.noise_free(decoded), likelihood(decoded, zero))


def test_gradients_of_all_maps_are_finite_also_in_the_tails(likelihood):
    """Gradients of values and noise are needed by guides and penalties."""
    for scale in (1.0, 30.0):
        decoded = (scale * decode(likelihood, 3)).requires_grad_()
        noise = torch.randn(3, *SHAPE, requires_grad=True)
        value = likelihood(decoded, noise)
        (likelihood.log_prob(decoded, value).sum() + value.sum()).backward()
        likelihood.abduct(decoded, value.detach()).sum().backward()
        assert torch.isfinite(decoded.grad).all()
        assert torch.isfinite(noise.grad).all()


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_temperature_scales_drawn_noise_only(likelihood, temperature):
    decoded = decode(likelihood, 4)
    value = likelihood(decoded, torch.randn(4, *SHAPE))
    log_prob, noise = likelihood.log_prob(decoded, value), likelihood.abduct(decoded, value)
    likelihood.temperature = temperature
    assert torch.equal(likelihood.log_prob(decoded, value), log_prob)
    assert torch.equal(likelihood.abduct(decoded, value), noise)
    drawn = likelihood(decoded, likelihood.sample_noise((500, 4), decoded))
    spread = likelihood.abduct(decoded, drawn).detach().std()
    if temperature == 0:
        torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn))
    else:
        assert float(spread) == pytest.approx(0.5, abs=0.01)


def test_temperature_of_a_mechanism():
    """Pixel noise is halved or zero, the latent is unchanged."""
    vae = ConditionalVAE(Context(), (1, 8, 8), 2, likelihood=FixedVarianceGaussian)
    torch.manual_seed(1)
    before = vae.sample_noise((50,))
    vae.likelihood.temperature = 0.5
    torch.manual_seed(1)
    after = vae.sample_noise((50,))
    assert torch.equal(after["z"], before["z"])
    assert torch.equal(after["u"], 0.5 * before["u"])
    cold = ConditionalVAE(
        Context(), (1, 8, 8), 2, likelihood=partial(FixedVarianceGaussian, temperature=0.0)
    )
    assert torch.equal(cold.sample_noise((3,))["u"], torch.zeros(3, 1, 8, 8))
    drawn = cold.image_distribution(torch.zeros(3, 2), {}).rsample((5,))
    torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn))


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature: expected a number of at least 0"):
        FixedVarianceGaussian(SHAPE, temperature=temperature)


def test_a_shape_that_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"shape: expected 3 .* give \(channels, height, width\)"):
        FixedVarianceGaussian((3, 3))


@pytest.mark.parametrize("make", [FixedVarianceGaussian, SharedVarianceGaussian])
def test_log_variance_is_a_log_variance(make):
    """σ = exp(log σ² / 2): the authors' −5 gives a deviation of 0.082."""
    decoded = torch.zeros(1, 1, 2, 2)
    deviation = make((1, 2, 2), log_variance=-5.0)(decoded, torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(deviation, torch.full_like(deviation, 0.0820850))


def test_predicted_variance_starts_at_the_given_value_and_is_bounded():
    likelihood = PredictedVarianceGaussian(
        (1, 1, 1), log_variance=-5.0, smallest_log_variance=-12.0
    )
    _, log_scale = likelihood.location_and_log_scale(torch.zeros(1, 2, 1, 1))
    assert float(2 * log_scale) == pytest.approx(-5, abs=1e-5)
    _, log_scale = likelihood.location_and_log_scale(torch.full((1, 2, 1, 1), -1e6))
    assert float(2 * log_scale) == pytest.approx(-12, abs=1e-5)
    with pytest.raises(ValueError, match="smallest_log_variance: expected less than log_variance"):
        PredictedVarianceGaussian((1, 1, 1), smallest_log_variance=-5.0)


@pytest.mark.parametrize("make", [FixedVarianceGaussian, SharedVarianceGaussian])
def test_keys_of_saved_states_stay(make):
    """Checkpoints of earlier versions load."""
    assert {key: value.shape for key, value in make(SHAPE).state_dict().items()} == {
        "log_scale": (2, 1, 1)
    }
    assert PredictedVarianceGaussian(SHAPE).state_dict() == {}
