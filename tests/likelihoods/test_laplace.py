"""Laplace noise against the Laplace distribution, also at the limits of single precision."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Laplace

from deepscm_pl.likelihoods import LaplaceLikelihood


def unit(size):
    """A likelihood of scale 1 and location 0, with the corresponding output of the decoder."""
    return LaplaceLikelihood((1, 1, size), log_scale=0.0), torch.zeros(2, 1, size)


def test_density_is_laplace(double):
    likelihood = LaplaceLikelihood((1, 2, 3), log_scale=-1.0, smallest_log_scale=-40.0)
    decoded = torch.randn(2, 2, 3)
    truth = Laplace(decoded[:1], (decoded[1:] - 1).exp())
    value = truth.sample((7,))
    found = likelihood.log_prob(decoded, value)
    torch.testing.assert_close(found, truth.log_prob(value).sum((-3, -2, -1)))


def test_quantiles_agree(double):
    """F(y) = Φ(u)."""
    noise = torch.linspace(-5, 5, 101)
    likelihood, decoded = unit(101)
    value = likelihood(decoded, noise.view(1, 1, 101)).flatten()
    torch.testing.assert_close(Laplace(0.0, 1.0).cdf(value), torch.special.ndtr(noise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_recovered_in_the_far_tails_and_in_the_middle(dtype):
    """Relative errors are a few units in the last place where Φ rounds to 1, and around 0."""
    size = torch.logspace(-12, 4, 400, dtype=torch.float64).to(dtype)
    value = torch.cat([-size.flip(0), size]).view(1, 1, 800)
    likelihood, decoded = unit(800)
    decoded = decoded.to(dtype)
    noise = likelihood.abduct(decoded, value)
    assert bool((noise.diff() > 0).all())
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(likelihood(decoded, noise), value, rtol=tolerance, atol=0)


def test_gradient_of_abduction_is_that_of_the_map(double):
    likelihood, decoded = unit(9)
    value = torch.linspace(-30, 30, 9).view(1, 1, 9).requires_grad_()
    torch.autograd.gradcheck(lambda image: likelihood.abduct(decoded, image), value)


def test_scale_is_bounded():
    with pytest.raises(ValueError, match="smallest_log_scale: expected less than log_scale"):
        LaplaceLikelihood((1, 2, 2), log_scale=-7.0)
