"""Reaction of images to their causes, from draws of a model."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.likelihoods import DiscretisedLogisticMixture, FixedVarianceGaussian
from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE
from deepscm_pl.reaction import ReactionThresholds, image_reactions, without_pixel_noise
from deepscm_pl.scm import StructuralCausalModel

from linear_image import LinearImage, LogitFeatures
from tiny import draw, image_mechanism

GRAPH = "thickness -> intensity; thickness, intensity -> image"


def untrained(likelihood, graph=GRAPH):
    torch.manual_seed(0)
    image = image_mechanism(likelihood=likelihood)
    mechanisms = {"thickness": AffineFlow, "intensity": AffineFlow, "image": image}
    scm = StructuralCausalModel(graph, mechanisms)
    scm.fit({name: draw(80, seed=1)[name].float() for name in scm.graph.nodes})
    return scm.eval()


def linear_model(weights, latent=1.0, rows=2_000):
    """Model of images whose logits are ``latent``·z + Σ weight·cause, without other structure."""
    causes = list(weights)
    graph = f"{'; '.join(causes)}; {', '.join(causes)} -> image"
    image = partial(
        ConditionalVAE,
        shape=(1, 4, 4),
        latent=1,
        encoder=LogitFeatures,
        decoder=LinearImage,
        likelihood=partial(FixedVarianceGaussian, log_variance=-6),
    )
    scm = StructuralCausalModel(graph, dict.fromkeys(causes, AffineFlow) | {"image": image})
    with torch.no_grad():
        linear = scm["image"].decoder.linear
        linear.bias.zero_()
        linear.weight.copy_(torch.tensor([latent, *weights.values()]).expand(16, -1))
        torch.manual_seed(0)
        scm.fit(scm.sample(rows))
    return scm


@pytest.mark.parametrize("likelihood", [None, DiscretisedLogisticMixture])
def test_an_untrained_image_model_is_called_that(likelihood):
    scm = untrained(likelihood)
    (reaction,) = image_reactions(scm)
    assert reaction.pixel_noise > 0.95
    (verdict,) = [each for each in reaction.verdicts([]) if "untrained" in each]
    assert "pixel noise" in verdict


def test_changes_are_those_of_the_decoder():
    # For small effects the image is linear: a change is |w|·√2 sd(cause) over √2 sd(image).
    weights = {"a": 0.10, "b": 0.05, "c": 0.0}
    (reaction,) = image_reactions(linear_model(weights, latent=0.05), draws=2_000)
    deviation = (0.10**2 + 0.05**2 + 0.05**2 + 0.05**2) ** 0.5  # the last is pixel noise, e^-3
    assert reaction.changes["a"] == pytest.approx(0.10 / deviation, rel=0.1)
    assert reaction.changes["b"] == pytest.approx(0.05 / deviation, rel=0.1)
    assert reaction.changes["c"] == 0
    assert reaction.latent == pytest.approx(0.05 / deviation, rel=0.1)
    assert reaction.pixel_noise == pytest.approx((0.05 / deviation) ** 2, abs=0.12)
    (verdict,) = reaction.verdicts(["a", "b", "c"])
    assert "does not react to c" in verdict


def test_a_decoder_that_ignores_its_latent_is_called_collapsed():
    (reaction,) = image_reactions(linear_model({"a": 0.05}, latent=0.0))
    (verdict,) = reaction.verdicts(["a"])
    assert "posterior has collapsed" in verdict
    assert reaction.latent == 0


def test_a_latent_without_anything_left_to_encode_is_no_collapse():
    (reaction,) = image_reactions(linear_model({"a": 0.8}, latent=0.0))
    assert reaction.latent == 0
    assert reaction.verdicts(["a"]) == []


def test_without_a_path_the_image_does_not_react():
    scm = untrained(None, graph="thickness -> intensity; thickness -> image")
    (reaction,) = image_reactions(scm)
    assert reaction.changes["intensity"] == 0
    assert any(
        "does not react to intensity; there is no path" in each
        for each in reaction.verdicts(["intensity"])
    )
    assert not any("intensity" in each for each in reaction.verdicts(["thickness"]))


def test_thresholds_decide_and_are_checked():
    (reaction,) = image_reactions(linear_model({"a": 0.1, "b": 0.3}, latent=0.5))
    assert reaction.verdicts(["a", "b"]) == []
    strict = ReactionThresholds(change=0.9, pixel_noise=1.0)
    assert len([each for each in reaction.verdicts(["a", "b"], strict) if "react to" in each]) == 2
    with pytest.raises(ValueError, match="change"):
        ReactionThresholds(change=1.5)


def test_a_model_of_an_earlier_version_is_compared_with_its_own_draws():
    scm = linear_model({"a": 0.1}, latent=0.05)
    known = image_reactions(scm, draws=2_000)[0]
    state = {k: v for k, v in scm.state_dict().items() if not k.endswith("image_variance")}
    scm.load_state_dict(state)
    assert scm.training_distribution.variance_of("image") is None
    unknown = image_reactions(scm, draws=2_000)[0]
    assert unknown.changes["a"] == pytest.approx(known.changes["a"], rel=0.1)


def test_the_state_of_random_numbers_is_restored():
    scm = untrained(None)
    before = torch.get_rng_state()
    first = image_reactions(scm)
    assert torch.equal(before, torch.get_rng_state())
    assert first == image_reactions(scm)


def test_only_models_with_a_latent_have_images_without_pixel_noise():
    assert without_pixel_noise(None, {"u": torch.ones(2)}) is None
    found = without_pixel_noise(None, {"u": torch.ones(2), "z": torch.ones(1)})
    assert found["u"].eq(0).all()
    assert found["z"].eq(1).all()
