"""Parents that place the drawing, and parents that change only its content."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.likelihoods import DiscretisedLogisticMixture
from deepscm_pl.mechanisms import ConditionalVAE, Context
from deepscm_pl.nn import Overlay, PyramidDecoder, TemplateDecoder
from deepscm_pl.variables import Domain

DOMAINS = {"sex": Domain(categories=2), "brain": Domain(lower=0.0), "ventricles": Domain(lower=0.0)}
DRAWING = partial(PyramidDecoder, channels=(4, 4))
LAYER = partial(Overlay, field=DRAWING, hidden=4)


def make(place=None, overlay=(), layer=None, **more):
    decoder = partial(TemplateDecoder, decoder=DRAWING, place=place, overlay=overlay, layer=layer)
    return ConditionalVAE(
        Context(DOMAINS), shape=(1, 16, 16), latent=3, hidden=7, decoder=decoder, **more
    )


def warps(vae, **changes):
    """Images of one latent, under given parents and with some of them changed."""
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
    ("place", "change", "moves"),
    [
        (["brain"], {"ventricles": 2.0, "sex": 1.0}, False),
        (["brain"], {"brain": 2.0}, True),
        (["brain", "sex"], {"sex": 1.0}, True),
        (["brain", "sex"], {"ventricles": 2.0}, False),
        ([], {"brain": 2.0, "ventricles": 2.0, "sex": 1.0}, False),
        (None, {"ventricles": 2.0}, True),
    ],
)
def test_only_placing_parents_move_the_warp(place, change, moves):
    before, after = warps(make(place), **change)
    assert torch.equal(before, after) is not moves


def test_other_parents_still_change_the_drawing():
    vae = make(["brain"])
    for weight in vae.decoder.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    parents = {"sex": torch.zeros(1, 1), "brain": torch.ones(1, 1), "ventricles": torch.ones(1, 1)}
    latent = torch.randn(1, 3)
    before = vae.decode(latent, parents)
    after = vae.decode(latent, {**parents, "ventricles": torch.full((1, 1), 2.0)})
    assert (before - after).abs().max() > 1e-3


def test_invalid_names_are_refused():
    with pytest.raises(ValueError, match=r"place: expected names of parents, sex, .* 'skull'"):
        make(["brain", "skull"])
    with pytest.raises(ValueError, match=r"overlay: brain is in place, too"):
        make(["brain"], ["ventricles", "brain"])
    with pytest.raises(ValueError, match=r"overlay: expected names of parents, .* 'skull'"):
        make(overlay=["skull"])


def test_names_need_a_condition_with_names():
    with pytest.raises(ValueError, match=r"place: expected names of parents, of which there are n"):
        TemplateDecoder(3, 3, (1, 16, 16), place=["brain"])


def test_overlay_parents_change_an_image_only_where_the_layer_is():
    """A counterfactual with its pixel noise, which is abducted under one decoder output."""
    torch.manual_seed(0)
    vae = make(["brain"], ["ventricles"], LAYER)
    across = torch.linspace(-1, 1, 16)
    with torch.no_grad():
        vae.decoder.overlay.slow_map.copy_((-2 * across).expand(1, 16, 16))
        vae.decoder.overlay.slow_growth[-1] = 0.1
    image = torch.randint(20, 230, (5, 1, 16, 16)).float()
    parents = {"sex": torch.zeros(5, 1), "brain": torch.ones(5, 1), "ventricles": torch.ones(5, 1)}
    noise = vae.abduct_recorded(image, parents)
    grown = {**parents, "ventricles": torch.full((5, 1), 2.0)}
    context = vae.context(grown)
    drawn = context * vae.decoder.drawing
    outside = (vae.decoder.overlay.opacity(noise["z"], context, drawn) == 0).expand_as(image)
    answer = vae.quantise(vae(noise, grown))
    assert 0.2 < outside.float().mean() < 0.8
    assert torch.equal(answer[outside], image[outside])
    assert (answer != image)[~outside].any()


@pytest.mark.parametrize("overlay", [["ventricles"], ["sex", "ventricles"]])
def test_the_brightness_does_not_depend_on_overlay_parents(overlay):
    """Where the layer is invisible, the rest of the image does not follow either."""
    torch.manual_seed(0)
    likelihood = partial(DiscretisedLogisticMixture, num_components=2, brightness=["brain"])
    vae = make(overlay=overlay, layer=LAYER, likelihood=likelihood)
    size = 40
    parents = {
        "sex": (torch.arange(size) % 2).float()[:, None],
        "brain": 1 + torch.rand(size, 1),
        "ventricles": 1 + torch.rand(size, 1),
    }
    image = torch.randint(20, 230, (size, 1, 16, 16)).float()
    vae.fit(image, parents)
    for parameter in vae.parameters():
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.nn.init.constant_(vae.decoder.overlay.slow_map, -20.0)
    noise = vae.abduct_recorded(image, parents)
    changed = {name: parents[name].flip(0) for name in overlay}
    assert torch.equal(vae.quantise(vae(noise, {**parents, **changed})), image)
