"""Parents that place what is drawn, and parents that change only what lies inside."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import ConditionalVAE, Context
from deepscm_pl.nn import PyramidDecoder, TemplateDecoder
from deepscm_pl.types import Domain

DOMAINS = {"sex": Domain(categories=2), "brain": Domain(lower=0.0), "ventricles": Domain(lower=0.0)}
DRAWING = partial(PyramidDecoder, channels=(4, 4))


def make(placed_by, decoder=None):
    return ConditionalVAE(
        Context(DOMAINS),
        shape=(1, 16, 16),
        latent=3,
        hidden=7,
        decoder=decoder or partial(TemplateDecoder, decoder=DRAWING),
        placed_by=placed_by,
    )


def warps(vae, **changes):
    """Of one latent, under the parents as they are and with some of them changed."""
    torch.manual_seed(0)
    for weight in vae.decoder.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    parents = {"sex": torch.zeros(1, 1), "brain": torch.ones(1, 1), "ventricles": torch.ones(1, 1)}
    latent = torch.randn(1, 3)
    return [
        vae.decoder.warp(latent, vae.context({**parents, **change}))
        for change in ({}, {name: torch.full((1, 1), value) for name, value in changes.items()})
    ]


@pytest.mark.parametrize(
    ("placed_by", "change", "moves"),
    [
        (["brain"], {"ventricles": 2.0, "sex": 1.0}, False),
        (["brain"], {"brain": 2.0}, True),
        (["brain", "sex"], {"sex": 1.0}, True),
        (["brain", "sex"], {"ventricles": 2.0}, False),
        ([], {"brain": 2.0, "ventricles": 2.0, "sex": 1.0}, False),
        (None, {"ventricles": 2.0}, True),
    ],
)
def test_only_what_places_moves_the_warp(placed_by, change, moves):
    before, after = warps(make(placed_by), **change)
    assert torch.equal(before, after) is not moves


def test_what_does_not_place_still_draws():
    vae = make(["brain"])
    for weight in vae.decoder.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    parents = {"sex": torch.zeros(1, 1), "brain": torch.ones(1, 1), "ventricles": torch.ones(1, 1)}
    latent = torch.randn(1, 3)
    before = vae.decode(latent, parents)
    after = vae.decode(latent, {**parents, "ventricles": torch.full((1, 1), 2.0)})
    assert (before - after).abs().max() > 1e-3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"placed_by: expected names of parents, sex, .* 'skull'"):
        make(["brain", "skull"])
    with pytest.raises(ValueError, match=r"placed_by: expected a decoder .* got PyramidDecoder"):
        make(["brain"], decoder=DRAWING)
