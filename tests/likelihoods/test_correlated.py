"""Correlated Gaussians against their covariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from deepscm_pl.likelihoods import (
    FixedVarianceGaussian,
    PredictedCovarianceGaussian,
    PredictedLowRankGaussian,
    SharedCovarianceGaussian,
    SharedLowRankGaussian,
    SharedVarianceGaussian,
)

from likelihoods_of_all_kinds import LIKELIHOODS

SHAPE = (2, 4, 5)
SIZE = math.prod(SHAPE)


def square_root(likelihood, decoded):
    """dy/du, ``(SIZE, SIZE)``, of one decoder's output."""
    zero = torch.zeros(SHAPE)
    jacobian = torch.autograd.functional.jacobian(lambda noise: likelihood(decoded, noise), zero)
    return jacobian.reshape(SIZE, SIZE)


def perturbed(likelihood):
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return likelihood


@pytest.mark.parametrize("make", [SharedLowRankGaussian, PredictedLowRankGaussian])
def test_low_rank_density_is_that_of_its_covariance(double, make):
    likelihood = perturbed(make(SHAPE, rank=3))
    decoded = 3 * torch.randn(2 * likelihood.outputs_per_channel, 4, 5)
    location, log_scale = likelihood.location_and_log_scale(decoded)
    scale = log_scale.exp().flatten()
    factors = likelihood.factors(decoded).flatten(-3)
    truth = LowRankMultivariateNormal(location.flatten(), scale[:, None] * factors.T, scale**2)
    value = truth.sample((6,))
    found = likelihood.log_prob(decoded, value.view(6, *SHAPE))
    torch.testing.assert_close(found, truth.log_prob(value))
    root = square_root(likelihood, decoded)
    torch.testing.assert_close(root @ root.T, truth.covariance_matrix)


@pytest.mark.parametrize("make", [SharedCovarianceGaussian, PredictedCovarianceGaussian])
def test_density_is_that_of_the_covariance_of_draws(double, make):
    likelihood = perturbed(make(SHAPE))
    decoded = torch.randn(2 * likelihood.outputs_per_channel, 4, 5)
    location, _ = likelihood.location_and_log_scale(decoded)
    truth = MultivariateNormal(location.flatten(), scale_tril=square_root(likelihood, decoded))
    value = truth.sample((6,))
    found = likelihood.log_prob(decoded, value.view(6, *SHAPE))
    torch.testing.assert_close(found, truth.log_prob(value))


@pytest.mark.parametrize("radius", [1, 2, 6])
def test_predicted_precision_is_a_band_and_the_covariance_is_full(double, radius):
    """Pixels depend on earlier ones of their channel within the radius."""
    likelihood = PredictedCovarianceGaussian(SHAPE, radius=radius)
    decoded = torch.randn(2 * likelihood.outputs_per_channel, 4, 5)
    root = square_root(likelihood, decoded)
    factor = torch.linalg.inv(root)
    channel, row, column = (
        part.flatten() for part in torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij")
    )
    up, right = row[:, None] - row, column - column[:, None]
    near = (up <= radius) & (right.abs() <= radius)
    before = (up > 0) | ((up == 0) & (right <= 0))
    neighbours = near & before & (channel[:, None] == channel)
    nothing = torch.zeros(())
    torch.testing.assert_close(factor[~neighbours], nothing.expand(int((~neighbours).sum())))
    assert bool((factor[neighbours] != 0).all())
    same = channel[:, None] == channel
    assert bool(((root @ root.T)[same] != 0).all())


def test_shared_covariance_can_be_arbitrary(double):
    """The factor can be the Cholesky factor of any precision."""
    likelihood = SharedCovarianceGaussian((1, 2, 2))
    root = torch.randn(4, 4)
    covariance = root @ root.T + torch.eye(4)
    unit = torch.linalg.inv(torch.linalg.cholesky(covariance))  # u = unit · (y − μ)
    scale = 1 / unit.diagonal()
    weights = -(scale[:, None] * unit)
    with torch.no_grad():
        likelihood.log_scale.copy_(scale.log().view(1, 2, 2))
        likelihood.weights.copy_(weights)
    value = torch.randn(5, 4)
    truth = MultivariateNormal(torch.zeros(4), covariance).log_prob(value)
    found = likelihood.log_prob(torch.zeros(1, 2, 2), value.view(5, 1, 2, 2))
    torch.testing.assert_close(found, truth)


def test_zeros_of_the_decoder_are_independent_pixels():
    """The initial density is that of an independent Gaussian of the same variance."""
    for make in (PredictedCovarianceGaussian, PredictedLowRankGaussian):
        likelihood = make(SHAPE, log_variance=-2.0)
        root = square_root(likelihood, torch.zeros(2 * likelihood.outputs_per_channel, 4, 5))
        torch.testing.assert_close(root, math.exp(-1) * torch.eye(SIZE))


def test_shared_factors_learn_from_the_start():
    """The gradient of a factor of 0 is 0, so that factors must not start there."""
    likelihood = SharedLowRankGaussian(SHAPE)
    likelihood.log_prob(torch.zeros(SHAPE), torch.randn(SHAPE)).backward()
    assert bool((likelihood.shared_factors.grad != 0).all())


@pytest.mark.parametrize("make", [SharedCovarianceGaussian, PredictedCovarianceGaussian])
def test_a_batch_of_noise_for_one_image_draws_its_covariance(make):
    likelihood = perturbed(make((1, 2, 3)))
    decoded = 0.3 * torch.randn(likelihood.outputs_per_channel, 2, 3)
    noise = torch.randn(3, 2, 1, 2, 3)
    drawn = likelihood(decoded, noise)
    assert drawn.shape == noise.shape
    torch.testing.assert_close(drawn[1, 0], likelihood(decoded, noise[1, 0]))


def test_densities_keep_their_precision_under_autocast():
    """Under autocast the products of matrices stay in single precision."""
    for make in (
        SharedCovarianceGaussian,
        PredictedCovarianceGaussian,
        SharedLowRankGaussian,
        PredictedLowRankGaussian,
    ):
        likelihood = perturbed(make(SHAPE))
        decoded = torch.randn(2 * likelihood.outputs_per_channel, 4, 5)
        noise = torch.randn(SHAPE)
        value = likelihood(decoded, noise)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(likelihood(decoded, noise), value)
            torch.testing.assert_close(likelihood.abduct(decoded, value), noise, atol=1e-4, rtol=0)


def test_predicted_covariance_is_stable_for_any_output():
    """Drawn images stay in bounds at real sizes, for outputs far from those of a training."""
    likelihood = PredictedCovarianceGaussian((1, 28, 28), log_variance=0.0)
    for scale in (1.0, 30.0):
        decoded = torch.zeros(4, 14, 28, 28)
        decoded[:, 2:] = scale * torch.randn(4, 12, 28, 28)
        decoded[0, 2:] = scale
        noise = torch.randn(4, 1, 28, 28)
        drawn = likelihood(decoded, noise)
        largest = 1 + decoded[:, 2:].abs().sum(1).amax((1, 2))
        assert bool((drawn.abs().amax((1, 2, 3)) <= largest * noise.abs().amax((1, 2, 3))).all())
        torch.testing.assert_close(likelihood.abduct(decoded, drawn), noise, atol=1e-3, rtol=1e-3)


def test_long_factors_keep_the_noise():
    """Factors are hundreds of times as long as the noise of pixels, some nearly collinear."""
    likelihood = PredictedLowRankGaussian((1, 28, 28), rank=3, log_variance=0.0)
    decoded = torch.zeros(2, 5, 28, 28)
    decoded[:, 2:] = 1000 * torch.randn(2, 1, 28, 28) + torch.randn(2, 3, 28, 28)
    noise = torch.randn(2, 1, 28, 28)
    drawn = likelihood(decoded.double(), noise.double())
    torch.testing.assert_close(likelihood.abduct(decoded, drawn.float()), noise, atol=2e-3, rtol=0)


def test_nan_passes():
    """NaN passes, so that a training reports the step and the quantity."""
    for make in LIKELIHOODS.values():
        likelihood = make((1, 2, 3))
        decoded = torch.zeros(2, likelihood.outputs_per_channel, 2, 3)
        decoded[0] = math.nan
        found = likelihood.log_prob(decoded, torch.ones(2, 1, 2, 3))
        assert torch.isnan(found[0]), type(likelihood).__name__
        assert torch.isfinite(found[1]), type(likelihood).__name__


@pytest.mark.parametrize(
    "make", [FixedVarianceGaussian, SharedVarianceGaussian, SharedCovarianceGaussian]
)
def test_shared_noise_starts_independent_with_the_given_variance(make):
    root = square_root(make(SHAPE, log_variance=-2.0), torch.zeros(SHAPE))
    torch.testing.assert_close(root, math.exp(-1) * torch.eye(SIZE))


def test_shared_factors_start_short():
    """The length is about 1: noise is independent in all directions except one for each factor."""
    likelihood = SharedLowRankGaussian((1, 20, 20), rank=2, log_variance=-2.0)
    assert torch.equal(likelihood.log_scale, torch.full((1, 20, 20), -1.0))
    lengths = likelihood.factors(torch.zeros(1, 20, 20)).flatten(1).norm(dim=1)
    assert bool(((lengths > 0.8) & (lengths < 1.2)).all())


@pytest.mark.parametrize(
    "make",
    [
        FixedVarianceGaussian,
        SharedVarianceGaussian,
        SharedCovarianceGaussian,
        SharedLowRankGaussian,
    ],
)
def test_a_variance_that_is_nan_is_refused(make):
    with pytest.raises(ValueError, match=r"log_variance: expected a number .* but got nan"):
        make(SHAPE, log_variance=math.nan)


@pytest.mark.parametrize("make", [PredictedCovarianceGaussian, PredictedLowRankGaussian])
def test_predicted_variances_are_bounded(make):
    likelihood = make(SHAPE, smallest_log_variance=-8.0)
    decoded = torch.full((2 * likelihood.outputs_per_channel, 4, 5), -1e6)
    _, log_scale = likelihood.location_and_log_scale(decoded)
    torch.testing.assert_close(log_scale, torch.full(SHAPE, -4.0))


def test_invalid_sizes_are_refused():
    with pytest.raises(ValueError, match=r"at most 16,384 values .* got 36,864.*SharedLowRank"):
        SharedCovarianceGaussian((1, 192, 192))
    with pytest.raises(ValueError, match="radius: expected a whole number from 1 to 64, but got 0"):
        PredictedCovarianceGaussian(SHAPE, radius=0)
    for make in (SharedLowRankGaussian, PredictedLowRankGaussian):
        with pytest.raises(ValueError, match="rank: expected a whole number"):
            make(SHAPE, rank=0)
