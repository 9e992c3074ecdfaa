"""The inferred pixel noise returns the recorded image, whatever the decoder's output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepscm_pl.mechanisms import ConditionalVAE, Context

from likelihoods_of_all_kinds import LIKELIHOODS

SHAPE = (1, 12, 12)


class Given(nn.Module):
    """A decoder with a given output."""

    def __init__(self, output):
        super().__init__()
        self.register_buffer("output", output)

    def forward(self, latent, context):
        return self.output.expand(len(latent), *self.output.shape)


def vae(name):
    return ConditionalVAE(Context(), SHAPE, 2, likelihood=LIKELIHOODS[name])


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 100.0, 1e4, 1e8, 1e30])
@pytest.mark.parametrize("name", LIKELIHOODS)
@torch.no_grad()
def test_recorded_images_return(name, size):
    """In single precision, for all grey levels, at outputs of any size."""
    for seed in range(3):
        torch.manual_seed(seed)
        mechanism = vae(name)
        for parameter in mechanism.likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        mechanism.decoder = Given(size * torch.randn(mechanism.outputs, *SHAPE[1:]))
        image = torch.randint(256, (8, *SHAPE)).float()
        image[:2], image[2:4] = 0, 255
        noise = mechanism.abduct_recorded(image, {}, (4,))
        assert bool(noise["u"].isfinite().all())
        again = mechanism.quantise(mechanism(noise, {}))
        assert torch.equal(again, image.expand_as(again))


@pytest.mark.parametrize("name", LIKELIHOODS)
@torch.no_grad()
def test_drawn_images_are_finite_and_have_a_density(name):
    """Also at scales far beyond those of data."""
    mechanism = vae(name)
    for size in (1.0, 30.0, 1e6):
        mechanism.decoder = Given(size * torch.randn(mechanism.outputs, *SHAPE[1:]))
        image = mechanism(mechanism.sample_noise((16,)), {})
        assert bool(((image < 256) & image.isfinite()).all())
        log_prob = mechanism.image_distribution(torch.zeros(16, 2), {}).log_prob(image)
        assert bool(log_prob.isfinite().all()), name


@pytest.mark.parametrize("name", ["predicted", "laplace", "predicted_low_rank", "mixture"])
def test_bounds_change_no_ordinary_output(name):
    """Scales up to e⁸ of the initial one are the exponential of the output."""
    likelihood = LIKELIHOODS[name](SHAPE)
    rule = getattr(likelihood, "log_variance", None) or likelihood.log_scale
    raw = torch.linspace(0, 8, 50, dtype=torch.float64)
    floor = rule.smallest + nn.functional.softplus(raw + rule.shift)
    torch.testing.assert_close(rule(raw), floor, rtol=1e-6, atol=1e-6)
    assert float(rule(torch.tensor(1e30))) < 40
