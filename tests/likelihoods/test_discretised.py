"""Distributions of grey levels: probabilities, gradients, and exact recovery of levels."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from scipy import special

from deepscm_pl.likelihoods import DiscretisedGaussian, DiscretisedLogisticMixture, discretised
from deepscm_pl.transforms import Dequantise

LEVELS = torch.arange(256.0)
MAKES = {
    "gaussian": DiscretisedGaussian,
    "one": partial(DiscretisedLogisticMixture, num_components=1),
    "mixture": DiscretisedLogisticMixture,
}


def all_levels(make, decoded, levels=256):
    """A likelihood of images with one pixel for each level and one distribution for all pixels."""
    likelihood = make((1, 1, levels), levels)
    return likelihood, decoded[..., None, None].expand(*decoded.shape, 1, levels)


def outputs(make):
    return make((1, 1, 1)).outputs_per_channel


@pytest.fixture(params=MAKES)
def make(request):
    return MAKES[request.param]


@pytest.mark.parametrize("levels", [2, 7, 256])
def test_probabilities_sum_to_one(double, make, levels):
    for scale in (0.3, 3.0, 50.0):
        likelihood, decoded = all_levels(make, scale * torch.randn(20, outputs(make)), levels)
        image = torch.arange(levels).double().expand(20, 1, 1, levels)
        probability = likelihood._probability(likelihood.components(decoded), image)
        assert (probability >= 1e-4 / levels).all()
        torch.testing.assert_close(probability.sum((1, 2, 3)), torch.ones(20))


def test_probabilities_are_integrals_of_the_gaussian():
    """Compare with SciPy: location ½ + a/2 of the range, and scale L/2 at zero."""
    likelihood, decoded = all_levels(DiscretisedGaussian, torch.tensor([[0.4, 0.0]]))
    edges = torch.arange(257).double().numpy()
    cumulative = special.ndtr((edges - 256 * 0.7) / 128)
    cumulative[0], cumulative[-1] = 0, 1
    expected = (1 - 1e-4) * torch.from_numpy(cumulative[1:] - cumulative[:-1]) + 1e-4 / 256
    image = LEVELS.view(1, 1, 1, 256) + 0.3
    found = likelihood._probability(likelihood.components(decoded), image.floor()).flatten()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    total = likelihood.log_prob(decoded, image)
    torch.testing.assert_close(total.double(), expected.log().sum()[None], rtol=1e-6, atol=0)


def test_probabilities_are_integrals_of_the_mixture():
    """Compare with SciPy: weights by softmax, components spread over the range."""
    raw = torch.tensor([[0.5, -0.5, 0.0, 0.3, -1.0, 1.0]])
    likelihood, decoded = all_levels(partial(DiscretisedLogisticMixture, num_components=2), raw)
    scale = likelihood.log_scale(raw[0, 4:].double()).exp().numpy()
    location = 256 * (torch.tensor([0.25, 0.75]) + 0.5 * raw[0, 2:4]).double().numpy()
    z = (torch.arange(257).double().numpy()[:, None] - location) / scale
    cumulative = special.expit(z) @ raw[0, :2].softmax(0).double().numpy()
    cumulative[0], cumulative[-1] = 0, 1
    expected = (1 - 1e-4) * torch.from_numpy(cumulative[1:] - cumulative[:-1]) + 1e-4 / 256
    image = LEVELS.view(1, 1, 1, 256)
    found = likelihood._probability(likelihood.components(decoded), image).flatten()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 30.0, 1e4])
@pytest.mark.parametrize("remainder", ["drawn", "edges"])
def test_every_level_is_recovered_exactly(make, scale, remainder):
    """Single precision, all levels, thousands of distributions from broad to degenerate."""
    likelihood, decoded = all_levels(make, scale * torch.randn(2000, outputs(make)))
    recorded = LEVELS.expand(2000, 1, 1, 256)
    if remainder == "drawn":
        image = Dequantise().sample(recorded)
    else:
        end = torch.where(torch.rand_like(recorded) < 0.5, 0.0, 1 - 2.0**-15)
        image = recorded + end
    assert torch.equal(image.floor(), recorded)
    noise = likelihood.abduct(decoded, image)
    assert torch.isfinite(noise).all()
    assert torch.equal(likelihood(decoded, noise).floor(), recorded)


@pytest.mark.parametrize("block", [1, 20, 70, 400])
def test_results_do_not_depend_on_the_size_of_blocks(double, make, monkeypatch, block):
    """Images are (6, 5) pixels: blocks of one row, some rows, one image, some images."""
    likelihood = make((1, 6, 5))
    decoded = torch.randn(2, 3, outputs(make), 6, 5)
    value = 256 * torch.rand(4, 1, 3, 1, 6, 5)  # broadcasts with the decoder's batch
    noise, gradient = _noise_and_gradient(likelihood, decoded, value)
    image = likelihood(decoded, noise)
    monkeypatch.setattr(discretised, "_CPU_BLOCK", block)
    in_blocks, gradient_in_blocks = _noise_and_gradient(likelihood, decoded, value)
    assert noise.shape == (4, 2, 3, 1, 6, 5)
    torch.testing.assert_close(in_blocks, noise)
    torch.testing.assert_close(gradient_in_blocks, gradient)
    torch.testing.assert_close(likelihood(decoded, noise), image)
    torch.testing.assert_close(image, value.expand_as(image))


def _noise_and_gradient(likelihood, decoded, value):
    decoded = decoded.clone().requires_grad_()
    noise = likelihood.abduct(decoded, value)
    return noise.detach(), torch.autograd.grad(noise.square().sum(), decoded)[0]


@pytest.mark.parametrize("levels", [2, 7, 1000, 4096])
def test_images_of_any_number_of_levels_are_recovered(double, make, levels):
    likelihood, decoded = all_levels(make, 3 * torch.randn(50, outputs(make)), levels)
    image = torch.arange(levels) + torch.rand(50, 1, 1, levels).clamp(1e-5, 1 - 1e-5)
    again = likelihood(decoded, likelihood.abduct(decoded, image))
    assert torch.equal(again.floor(), image.floor())
    torch.testing.assert_close(again, image, rtol=0, atol=1e-6)


def test_the_least_probable_level_keeps_its_share_in_single_precision():
    """Weights that sum to 1 + 10⁻⁷ would take a third of the ε/L of the last level."""
    likelihood = DiscretisedLogisticMixture((1, 1, 1))
    decoded = torch.randn(1000, 15, 1, 1)
    decoded[:, 5:] = -50.0  # all components are far below
    last = 1 - likelihood._below(
        likelihood._exact_components(decoded), torch.full((1, 1, 1), 255.0)
    )
    torch.testing.assert_close(
        last.float(), torch.full((1000, 1, 1, 1), 1e-4 / 256), rtol=1e-5, atol=0
    )


def test_any_noise_gives_a_level(make):
    likelihood = make((1, 1, 1000))
    noise = torch.linspace(-40, 40, 1000).expand(50, 1, 1, 1000)
    decoded = 3 * torch.randn(50, outputs(make), 1, 1).expand(-1, -1, 1, 1000)
    image = likelihood(decoded, noise)
    assert ((image >= 0) & (image < 256)).all()
    # Monotone in the noise, as inverse distribution functions are.
    assert (image.diff(dim=-1) >= -1e-3).all()
    assert (image[..., 0] < 1).all()
    assert (image[..., -1] >= 255).all()


def test_noise_of_dequantised_levels_is_standard_normal(double, make):
    """With levels drawn from P and uniform dequantisation, u is N(0, 1) for all parameters."""
    decoded = torch.randn(outputs(make), 1, 1).expand(-1, 1, 4000)
    likelihood = make((1, 1, 4000))
    image = likelihood(decoded, torch.randn(1, 1, 4000)).floor() + torch.rand(1, 1, 4000)
    noise = likelihood.abduct(decoded, image).flatten().sort().values
    uniform = torch.special.ndtr(noise)
    distance = (uniform - (torch.arange(4000) + 0.5) / 4000).abs().max()
    assert distance < 1.63 / 4000**0.5  # Kolmogorov–Smirnov, 1 %


def test_gradients_are_finite_for_saturated_pixels(make):
    for scale in (1.0, 100.0, 1e5):
        for sign in (-1, 1):
            raw = (sign * scale * torch.rand(50, outputs(make))).requires_grad_()
            likelihood, decoded = all_levels(make, raw)
            log_prob = likelihood.log_prob(decoded, LEVELS.expand(50, 1, 1, 256) + 0.5)
            log_prob.sum().backward()
            assert torch.isfinite(log_prob).all()
            assert torch.isfinite(raw.grad).all()


def test_gradients_agree_with_differences(double, make):
    decoded = torch.randn(2, outputs(make), 1, 6, requires_grad=True)
    image = torch.tensor([0.5, 1.5, 100.5, 200.5, 254.5, 255.5]).expand(2, 1, 1, 6)
    likelihood = make((1, 1, 6))
    assert torch.autograd.gradcheck(lambda d: likelihood.log_prob(d, image), decoded)


def test_values_outside_of_the_range_are_impossible(make):
    likelihood = make((1, 1, 1))
    decoded = torch.zeros(2, outputs(make), 1, 1)
    image = torch.tensor([-0.5, 256.0]).view(2, 1, 1, 1)
    assert torch.equal(likelihood.log_prob(decoded, image), torch.full((2,), -torch.inf))


def test_cost_of_the_uniform_share():
    """A distribution that is certain of level 0 costs −log(1 − ε) nats there, else log(L/ε)."""
    likelihood = DiscretisedGaussian((1, 1, 1))
    certain = torch.tensor([-50.0, -50.0]).view(2, 1, 1)
    right = likelihood.log_prob(certain, torch.full((1, 1, 1), 0.5))
    wrong = likelihood.log_prob(certain, torch.full((1, 1, 1), 200.5))
    assert float(right) == pytest.approx(-1e-4, rel=1e-2)
    assert float(wrong) == pytest.approx(-14.76, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 0}, "num_components: expected a whole number from 1 to 1000"),
        ({"num_components": 1001}, "num_components: expected a whole number from 1 to 1000"),
        ({"smallest_scale": 0.0}, "smallest_scale: expected a number above 0"),
        ({"uniform_weight": 0.0}, "uniform_weight: expected a number of at least"),
        ({"uniform_weight": 1.0}, "uniform_weight: expected a number of at least"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiscretisedLogisticMixture((1, 2, 2), **arguments)
