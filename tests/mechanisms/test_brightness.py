"""A parent that acts on an image through its brightness alone."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepscm_pl.likelihoods import (
    DiscretisedGaussian,
    DiscretisedLogisticMixture,
    FixedVarianceGaussian,
)
from deepscm_pl.mechanisms import ConditionalVAE, Context
from deepscm_pl.mechanisms.brightness import Exposure, ParentBrightness
from deepscm_pl.nn import ResidualDecoder, ResidualEncoder
from deepscm_pl.variables import Domain

DOMAINS = {"thickness": Domain(lower=0.0), "intensity": Domain(lower=0.0, upper=255.0)}
LIKELIHOODS = [DiscretisedGaussian, partial(DiscretisedLogisticMixture, num_components=2)]


def make(likelihood=LIKELIHOODS[1], brightness=("intensity",), domains=DOMAINS):
    return ConditionalVAE(
        Context(domains),
        shape=(1, 6, 6),
        latent=3,
        hidden=7,
        encoder=partial(ResidualEncoder, features=8, channels=(4, 4)),
        decoder=partial(ResidualDecoder, hidden=8, channels=(4, 4), embedding=8),
        likelihood=partial(likelihood, brightness=brightness),
    )


def data(size=64):
    """Images whose brightest pixel is their intensity."""
    parents = {
        "thickness": 1 + torch.rand(size, 1),
        "intensity": torch.randint(20, 250, (size, 1)).double(),
    }
    share = torch.rand(size, 1, 6, 6)
    share[..., 0, 0] = 1.0
    return (share * parents["intensity"][..., None, None]).round(), parents


def test_brightness_is_fitted_to_the_brightest_pixel(double):
    images, parents = data()
    brightness = ParentBrightness(Context({"intensity": DOMAINS["intensity"]}), levels=256)
    brightness.fit(images, parents, content=torch.zeros(64, 0))
    expected = (parents["intensity"] + 0.5) / 256
    torch.testing.assert_close(brightness(parents), expected, atol=1e-9, rtol=0)


class Largest(TorchDispatchMode):
    """Records the size of the largest floating-point tensor that is created."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.numbers = max(self.numbers, made.numel())
        return made


def test_fitting_makes_no_copy_of_all_images():
    """The images may be a memory-mapped file that is larger than the memory."""
    image, parents = data()
    parents = {name: each.float() for name, each in parents.items()}
    vae = make()
    with Largest() as largest:
        vae.fit(image.to(torch.uint8), parents)
    assert 0 < largest.numbers < image.numel()
    expected = make()
    expected.fit(image.float(), parents)
    for name, buffer in expected.named_buffers():
        assert torch.equal(vae.get_buffer(name), buffer)


def test_brightness_is_not_confounded_by_the_content(double):
    """Thin strokes are darker and have brighter peaks; the effect of intensity alone is fitted."""
    thickness = torch.linspace(-2, 2, 2000)[:, None]
    intensity = 150 + 40 * thickness + torch.linspace(-20, 20, 2000)[torch.randperm(2000), None]
    peak = intensity * (1.1 - 0.07 * thickness.tanh())
    parents = {"intensity": intensity}
    brightness = ParentBrightness(Context({"intensity": DOMAINS["intensity"]}), levels=256)
    images = peak[..., None, None].expand(-1, 1, 4, 4)
    brightness.fit(images, parents, content=torch.zeros(2000, 0))
    confounded = brightness(parents) / intensity
    brightness.fit(images, parents, content=thickness)
    ratio = brightness(parents) / intensity
    assert confounded.std() / confounded.mean() > 0.02
    assert ratio.std() / ratio.mean() < 0.005


@pytest.mark.parametrize("constant", [False, True])
def test_brightness_of_constant_images_is_finite(double, constant):
    """Neither black images nor an intensity without variance leave the range."""
    images, parents = data()
    if constant:
        parents["intensity"] = torch.full_like(parents["intensity"], 77.0)
    brightness = ParentBrightness(Context({"intensity": DOMAINS["intensity"]}), levels=256)
    brightness.fit(torch.zeros_like(images), parents, content=torch.zeros(64, 0))
    torch.testing.assert_close(
        brightness(parents), torch.full((64, 1), 1 / 256), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_intensity_only_scales_the_image(double, likelihood):
    """Under do(intensity) every quantile of every pixel is scaled, far from the finest scale."""
    mechanism = make(partial(likelihood, smallest_scale=1e-6, uniform_weight=1e-4))
    images, parents = data()
    mechanism.fit(images, parents)
    latent = mechanism.sample_noise((64,))["z"]
    dark = {**parents, "intensity": torch.full((64, 1), 60.0)}
    bright = {**parents, "intensity": torch.full((64, 1), 240.0)}
    ratio = mechanism.brightness.parents(bright) / mechanism.brightness.parents(dark)
    ratio = ratio[..., None, None, None]
    one, two = (
        mechanism.likelihood.components(mechanism.decode(latent, given)) for given in (dark, bright)
    )
    torch.testing.assert_close(two.location, one.location * ratio, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(two.inverse_scale, one.inverse_scale / ratio, atol=1e-6, rtol=1e-4)
    assert two.location.max() <= 256 * mechanism.brightness.parents(bright).max()
    assert one.location.min() >= 0


def test_exposure_scales_the_image_and_follows_the_latent(double):
    mechanism = make(partial(LIKELIHOODS[1], smallest_scale=1e-6))
    images, parents = data()
    mechanism.fit(images, parents)
    latent = mechanism.sample_noise((64,))["z"]
    before = mechanism.likelihood.components(mechanism.decode(latent, parents))
    with torch.no_grad():
        mechanism.brightness.exposure.layers[-1].weight.fill_(0.3)
        mechanism.brightness.exposure.direct.weight.fill_(0.1)
        mechanism.brightness.exposure.spread[0] = 0.2
    content = mechanism.brightness.others(parents)
    factor = mechanism.brightness.exposure(latent, content)[..., None, None, None]
    assert factor.std() > 0.01
    after = mechanism.likelihood.components(mechanism.decode(latent, parents))
    torch.testing.assert_close(after.location, before.location * factor, atol=1e-6, rtol=1e-6)


def test_exposure_is_standardised_given_the_content(double):
    """The bright level rises with the cause of the content, and its spread falls."""
    content = torch.randn(20_000, 1)
    noise = torch.randn_like(content)
    level = 0.02 * content.clamp(-2, 2) + (0.03 - 0.01 * content.clamp(-2, 2)) * noise
    exposure = Exposure(latent=1, content=1)
    exposure.fit(level, content)
    found = exposure.standardise(level, content)
    for inside in (content < -1, content.abs() < 1, content > 1):
        assert found[inside].mean().abs() < 0.15
        assert found[inside].std() == pytest.approx(1, abs=0.15)
    # Outside of the range of the training it is constant.
    edge, far = (exposure(torch.zeros(1, 1), torch.full((1, 1), c)) for c in (2.5, 40.0))
    assert torch.equal(edge, far)
    # The latent with this h returns the level.
    with torch.no_grad():
        exposure.direct.weight.fill_(1.0)
    exact = 4 * (found / 4).atanh()
    common = exact.squeeze(-1).abs() < 3
    latent = 4 * (exact / 4)[common].atanh()
    torch.testing.assert_close(exposure(latent, content[common]).log(), level[common])
    # It is bounded for any image.
    strange = exposure.standardise(torch.full((1, 1), 50.0), torch.zeros(1, 1))
    assert float(strange) == pytest.approx(4)
    assert exposure(torch.full((1, 1), 1e9), torch.zeros(1, 1)).log().abs() < 0.2


def test_the_posterior_depends_on_the_brightest_pixel(double):
    """The posterior is more precise than a network in low precision."""
    mechanism = make()
    images, parents = data()
    mechanism.fit(images, parents)
    with torch.no_grad():
        mechanism.posterior_head[0].weight[:, :-1] = 0  # all but the brightest pixel
    one, two = (mechanism.posterior(images * factor, parents).location for factor in (1, 1.01))
    assert (one - two).abs().amax(dim=-1).min() > 1e-5


def test_the_latent_does_not_depend_on_the_brightness(double):
    """q(z | a·x, a) = q(z | x, 1) for every brightness a."""
    mechanism = make()
    images, parents = data()
    mechanism.fit(images, parents)
    other = {**parents, "intensity": parents["intensity"].flip(0)}
    ratio = mechanism.brightness.parents(other) / mechanism.brightness.parents(parents)
    one = mechanism.posterior(images, parents)
    two = mechanism.posterior(images * ratio[..., None, None], other)
    torch.testing.assert_close(one.location, two.location)
    changed = {**parents, "thickness": parents["thickness"] + 1}
    assert not torch.allclose(mechanism.posterior(images, changed).location, one.location)


def test_a_checkpoint_without_brightness_keeps_its_keys():
    keys = make(brightness=()).state_dict().keys()
    assert not any("brightness" in key for key in keys)


def test_bad_brightness_is_refused():
    with pytest.raises(ValueError, match=r"brightness: expected names of parents.*'colour'"):
        make(brightness=("colour",))
    categorical = {"intensity": Domain(categories=2)}
    with pytest.raises(ValueError, match=r"brightness: .*intensity is categorical"):
        make(domains=categorical)
    with pytest.raises(TypeError, match="brightness"):
        make(likelihood=FixedVarianceGaussian)


def exposed():
    mechanism = make(partial(LIKELIHOODS[1], exposure=True), brightness=())
    images, parents = data(400)
    # As in a world in which thick strokes are bright.
    parents["thickness"] = parents["intensity"] / 100 + 0.3 * torch.randn(400, 1).double()
    mechanism.fit(images, parents)
    return mechanism, images, parents


def test_an_exposure_finds_the_parent_that_scales_the_image(double):
    """Without its name, from images in which another parent is correlated with it."""
    mechanism, _, _ = exposed()
    values = {
        "thickness": torch.tensor([[0.9], [0.9], [2.1]]),
        "intensity": torch.tensor([[80.0], [200], [200]]),
    }
    context = mechanism.context(values)
    with torch.no_grad():
        dark, bright, thick = mechanism.brightness.exposure(torch.zeros(3, 3), context)[:, 0]
    assert float(bright / dark) == pytest.approx(2.5, rel=0.05)
    assert float(thick / bright) == pytest.approx(1.0, rel=0.05)


def test_the_encoder_sees_images_of_one_exposure_and_their_level(double):
    mechanism, images, parents = exposed()
    halved = 2 * (images // 4)
    _, one, _, seen = mechanism._observed_rows(2 * halved, parents)
    _, two, _, other = mechanism._observed_rows(halved, parents)
    torch.testing.assert_close(one, two)
    assert bool((seen[:, -1] > other[:, -1]).all())
    assert torch.equal(seen[:, :-1], other[:, :-1])


def test_an_exposure_of_dark_images_is_finite(double):
    mechanism, images, parents = exposed()
    with torch.no_grad():
        bound = mechanism.evidence(torch.zeros_like(images) + 0.5, parents).bound
    assert bool(bound.isfinite().all())
