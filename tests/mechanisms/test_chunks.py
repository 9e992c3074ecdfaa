"""Counterfactuals of many particles: encoded once, decoded in pieces, with the same results."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE, latent
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.scm import StructuralCausalModel

from likelihoods_of_all_kinds import LIKELIHOODS


@pytest.fixture(params=["fixed", "predicted_covariance", "mixture"])
def scm(request, double):
    image = partial(
        ConditionalVAE,
        shape=(1, 8, 6),
        latent=3,
        encoder=partial(ConvolutionalEncoder, features=6, channels=(3, 4)),
        decoder=partial(ConvolutionalDecoder, hidden=8, channels=(4, 3)),
        likelihood=LIKELIHOODS[request.param],
    )
    mechanisms = {"age": AffineFlow, "volume": AffineFlow, "image": image}
    return StructuralCausalModel("age -> volume; age, volume -> image", mechanisms)


@pytest.fixture
def factual():
    return {
        "age": torch.randn(4, 1),
        "volume": torch.randn(4, 1),
        "image": torch.randint(0, 256, (4, 1, 8, 6)).double(),
    }


DO = [{"age": 1.0}, {"age": 0.5, "volume": 2.0}, {"volume": lambda v: v + 1}]


def answered(scm, factual, do, gradients=False):
    torch.manual_seed(0)
    with torch.set_grad_enabled(gradients):
        return scm.counterfactual(factual, do, num_particles=5)


def sizes_of_batches(network):
    sizes = []
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("do", [DO, {"volume": torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1)}])
@pytest.mark.parametrize("images", [1, 3, 7])
def test_chunks_change_nothing(scm, factual, monkeypatch, do, images):
    whole = answered(scm, factual, do)
    monkeypatch.setattr(latent, "_DECODED_AT_A_TIME", images * scm["image"].outputs * 48)
    in_chunks = answered(scm, factual, do)
    for name in whole:
        assert torch.equal(in_chunks[name], whole[name])


def test_images_are_encoded_once_and_decoded_in_chunks(scm, factual, monkeypatch):
    monkeypatch.setattr(latent, "_DECODED_AT_A_TIME", 8 * scm["image"].outputs * 48)
    encoded = sizes_of_batches(scm["image"].encoder)
    decoded = sizes_of_batches(scm["image"].decoder)
    answered(scm, factual, DO)
    assert encoded == [4]
    assert decoded == [8, 8, 4] * 4  # to infer the noise, and for each intervention


def test_gradients_are_computed_at_once(scm, factual, monkeypatch):
    monkeypatch.setattr(latent, "_DECODED_AT_A_TIME", 1)
    decoded = sizes_of_batches(scm["image"].decoder)
    answered(scm, factual, DO[0], gradients=True)
    assert decoded == [20, 20]
