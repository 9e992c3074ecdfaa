"""Pixel noise that is renewed where the picture changes: rungs 1 and 2 stay, rung 3 changes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from scipy.stats import kstest

from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE
from deepscm_pl.scm import StructuralCausalModel

from likelihoods_of_all_kinds import LIKELIHOODS

SHAPE = (1, 6, 6)


def model(likelihood="mixture", coupling="renewed"):
    torch.manual_seed(0)
    vae = partial(
        ConditionalVAE, shape=SHAPE, latent=2, likelihood=LIKELIHOODS[likelihood], coupling=coupling
    )
    scm = StructuralCausalModel("a -> image", {"a": AffineFlow, "image": vae})
    with torch.no_grad():
        for parameter in scm["image"].decoder.parameters():
            parameter.mul_(3)
    data = {"a": torch.randn(40, 1), "image": torch.randint(0, 256, (40, *SHAPE)).float()}
    scm.fit(data)
    return scm, data


def elementwise():
    return [name for name in LIKELIHOODS if model(name, "kept")[0]["image"].likelihood.elementwise]


@pytest.mark.parametrize("name", elementwise())
def test_null_intervention_returns_the_image(name):
    scm, data = model(name)
    for do in ({"a": lambda value: value}, {"a": data["a"]}):
        found = scm.counterfactual(data, do, num_particles=5)["image"]
        assert torch.equal(found, data["image"].expand_as(found))


@pytest.mark.parametrize("name", elementwise())
def test_one_answer_needs_no_draws_and_is_among_the_particles(name):
    scm, data = model(name)
    do = {"a": data["a"] + 0.5}
    state = torch.get_rng_state()
    found = scm.counterfactual(data, do)["image"]
    assert torch.equal(torch.get_rng_state(), state)
    null = scm.counterfactual(data, {"a": data["a"]})["image"]
    assert torch.equal(null[0], data["image"])
    particles = scm.counterfactual(data, do, num_particles=400)["image"].double()
    error = (particles - found).square().mean((0, *range(2, 5)))
    spread = (particles - particles.mean(dim=0)).square().mean((0, *range(2, 5)))
    assert error.mean() < 1.8 * spread.mean()  # of another particle: 2


def test_it_is_abduction_action_prediction():
    scm, data = model()
    torch.manual_seed(1)
    expected = scm.counterfactual(data, {"a": 2.0}, num_particles=3)
    torch.manual_seed(1)
    noise = scm.abduct(data, num_particles=3)
    found = scm.act({"a": 2.0}).predict(noise)
    assert torch.equal(found["image"], expected["image"])


def test_unchanged_pixels_keep_their_noise_and_others_get_a_new_one():
    scm, data = model("predicted")
    image = scm["image"]
    parents = {"a": data["a"]}
    noise = image.abduct_recorded(data["image"], parents, (200,))
    coupled = image.coupled(noise, parents)
    far = torch.full_like(coupled["location"], 1e3)
    half = torch.zeros(SHAPE).bool()
    half[..., :3] = True
    coupled["location"] = torch.where(half, coupled["location"], far)
    found = image(coupled, parents)
    kept = image.coupling
    image.coupling = "kept"
    same = image(noise, parents)
    image.coupling = kept
    assert torch.equal(found[..., :3], same[..., :3])
    again = image.abduct(found, parents)  # another z, so only the spread is compared
    assert again["u"].shape == noise["u"].shape
    assert float((found[..., 3:] == same[..., 3:]).float().mean()) < 0.02


def test_interventions_do_not_depend_on_the_coupling():
    """u' is standard normal whatever was observed, if u was."""
    scm, _ = model("discretised")
    image = scm["image"]
    torch.manual_seed(2)
    parents = {"a": torch.randn(500, 1)}
    noise = image.sample_noise((500,))
    content = image._decoded_content(noise["z"], parents)
    location, scale = (image.in_space(part) for part in image._pixel_moments(content))
    new = torch.randn_like(noise["u"])
    moved = {"a": parents["a"] + 0.7}
    coupled = {**noise, "new": new, "location": location, "scale": scale}
    # The noise of the answer, by the inverse of the likelihood with the same latent.
    inner = image._decoded_content(noise["z"], moved)
    answer = image.in_plane(image(coupled, moved)).double()
    found = image.likelihood.abduct(inner.double(), image.preprocessing(answer))
    assert kstest(found.flatten().detach().numpy()[::3], "norm").pvalue > 1e-3
    share = torch.corrcoef(torch.stack([found.flatten(), noise["u"].flatten().double()]))[0, 1]
    assert 0.02 < float(share) < 0.98


def test_wrong_couplings_are_refused():
    with pytest.raises(ValueError, match="coupling: expected kept or renewed, but got 'moved'"):
        model(coupling="moved")
    with pytest.raises(ValueError, match="SharedLowRankGaussian correlates pixels; choose kept"):
        model("shared_low_rank")
