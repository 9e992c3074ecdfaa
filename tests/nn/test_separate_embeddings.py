"""Parents with an embedding of their own, which act only where the data show that they do."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from deepscm_pl.mechanisms import ConditionalVAE, Context, HierarchicalVAE
from deepscm_pl.nn import Embedding, Features, Ladder, ResidualDecoder, ResidualEncoder
from deepscm_pl.nn.ladder import LadderShapes
from deepscm_pl.nn.modulated import Modulation
from deepscm_pl.variables import Domain

SIZES = Features({"age": 1, "sex": 2})


def ladder(separate):
    torch.manual_seed(0)
    shapes = LadderShapes((1, 8, 8), (2, 8, 8), SIZES, SIZES)
    made = Ladder(shapes, True, (4, 4), (1, 2), embedding=5, separate=separate)
    noise = made.split(torch.randn(3, made.latent))

    def of(condition):
        return made(condition, lambda k, rung, *state: rung.latent_of(noise[k], *state))

    return made, of


def decoder(separate):
    torch.manual_seed(0)
    made = ResidualDecoder(2, SIZES, (1, 8, 8), 8, (4, 4), embedding=5, separate=separate)
    latent = torch.randn(3, 2)
    return made, lambda condition: made(latent, condition)


def encoder(separate):
    torch.manual_seed(0)
    made = ResidualEncoder((1, 8, 8), SIZES, 6, (4, 4), embedding=5, separate=separate)
    image = torch.randn(3, 1, 8, 8)
    return made, lambda condition: made(image, condition)


MADE = [ladder, decoder, encoder]


def test_the_effects_of_parents_on_a_modulation_add_up(double):
    embedding = Embedding(SIZES, 7, separate=True)
    modulation = Modulation(4, embedding.features)
    nn.init.normal_(modulation.affine.weight)
    low, high = torch.randn(2, 1, 3)
    rows = [torch.cat([a[:, :1], b[:, 1:]], dim=1) for a in (low, high) for b in (low, high)]
    features = torch.ones(1, 4, 2, 2)
    found = [modulation(features, embedding(row)) for row in rows]
    torch.testing.assert_close(found[3] - found[2], found[1] - found[0])
    assert not torch.allclose(found[1], found[0])
    assert not torch.allclose(found[2], found[0])


def test_a_joint_embedding_has_effects_of_combinations(double):
    embedding = Embedding(SIZES, 7)
    one, two, three, four = (
        embedding(torch.tensor([[a, b, 1 - b]])) for a in (0.0, 2.0) for b in (0.0, 1.0)
    )
    assert not torch.allclose(four - three, two - one)


@pytest.mark.parametrize("make", MADE)
def test_no_parent_acts_before_training(make):
    for separate in (True, False):
        _, network = make(separate)
        one, two = network(torch.zeros(3, 3)), network(torch.randn(3, 3))
        assert torch.equal(one, two) == separate


@pytest.mark.parametrize("make", MADE)
def test_parents_act_after_a_step(make):
    network, of = make(True)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    condition = torch.randn(3, 3)
    for _ in range(2):
        optimiser.zero_grad()
        (of(condition) - 1).square().sum().backward()
        optimiser.step()
    assert not torch.equal(of(torch.zeros(3, 3)), of(torch.randn(3, 3)))
    assert all(bool(each.grad.any()) for each in network.embed.parameters())


@pytest.mark.parametrize("made", [ConditionalVAE, HierarchicalVAE])
def test_mechanisms_pass_the_names_of_parents(made):
    context = Context({"age": Domain(), "sex": Domain(categories=2)})
    if made is ConditionalVAE:
        settings = {
            "encoder": partial(ResidualEncoder, channels=(4,), embedding=5, separate=True),
            "decoder": partial(ResidualDecoder, channels=(4,), embedding=5, separate=True),
        }
        mechanism = made(context, (1, 8, 8), latent=2, **settings)
        networks = [mechanism.encoder.embed, mechanism.decoder.embed]
    else:
        shape = partial(Ladder, channels=(4, 4), latents=(1, 2), embedding=5, separate=True)
        mechanism = made(context, (1, 8, 8), ladder=shape)
        networks = [mechanism.ladder.embed_up, mechanism.ladder.embed]
    assert [each.sizes for each in networks] == [[1, 2], [1, 2]]
