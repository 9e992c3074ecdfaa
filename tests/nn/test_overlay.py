"""A layer changes the pixels that it covers, and no others."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.nn import Features, Overlay, PyramidDecoder, TemplateDecoder

SMALL = partial(PyramidDecoder, channels=(4, 4))
SHAPES = [(2, 9, 12), (1, 5, 6, 8)]


def disturbed(module):
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def disc(overlay):
    """Place the layer in the left half, growing to the right with the first feature."""
    across = torch.linspace(-1, 1, overlay.slow_map.shape[-1])
    for parameter in overlay.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        overlay.slow_map.copy_((-2 * across).expand_as(overlay.slow_map))
        overlay.slow_growth[0] = 0.4
        overlay.slow_growth[1] = 0.0
    return overlay


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_without_the_layer_do_not_change(shape):
    overlay = disc(disturbed(Overlay(3, 2, shape, SMALL)))
    drawing, latent = torch.randn(1, *shape), torch.randn(1, 3)
    small, large = torch.tensor([[0.0, 0.3]]), torch.tensor([[1.0, 0.3]])
    images = [overlay(drawing, latent, condition, small) for condition in (small, large)]
    opacities = [overlay.opacity(latent, condition, small) for condition in (small, large)]
    assert all((alpha >= 0).all() and (alpha <= 1).all() for alpha in opacities)
    assert (opacities[1] >= opacities[0]).all()
    outside = (opacities[1] == 0).expand_as(drawing)
    assert 0.1 < outside.float().mean() < 0.5
    for image in images:
        assert torch.equal(image[outside], drawing[outside])
    assert (images[1] - images[0])[~outside].abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_opaque_pixels_have_the_colour_of_the_layer(shape):
    overlay = Overlay(3, 2, shape, SMALL)
    with torch.no_grad():
        overlay.slow_map.fill_(5.0)
    given = torch.randn(4, 3), torch.randn(4, 2)
    drawing = torch.randn(4, *shape)
    image = overlay(drawing, *given, given[1])
    grown = overlay(drawing, given[0], given[1] + 1, given[1])
    torch.testing.assert_close(grown, image)
    flat = image.flatten(2)
    torch.testing.assert_close(flat, flat[..., :1].expand_as(flat))
    assert flat.std(dim=0).min() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_has_a_gradient_at_first(shape):
    overlay = Overlay(3, 2, shape, SMALL)
    given = torch.randn(6, 3), torch.randn(6, 2)
    overlay(torch.randn(6, *shape), *given, given[1]).square().sum().backward()
    assert all((p.grad is not None and p.grad.abs().sum() > 0) for p in overlay.parameters())


def test_invisible_pixels_can_become_visible():
    overlay = Overlay(3, 2, (1, 6, 6), SMALL)
    with torch.no_grad():
        overlay.slow_map.fill_(-0.8)
        overlay.slow_colour.fill_(1.0)
    given = torch.zeros(4, 3), torch.zeros(4, 2)
    image = overlay(torch.zeros(4, 1, 6, 6), *given, given[1])
    assert torch.equal(image, torch.zeros(4, 1, 6, 6))
    image.sum().backward()
    assert (overlay.slow_map.grad > 0).all()


def test_a_structure_that_grows_with_the_condition_is_found():
    """A square whose size follows the condition, over a drawing without it."""
    torch.manual_seed(0)
    overlay = Overlay(1, 1, (1, 16, 16), SMALL)
    optimiser = torch.optim.Adam(overlay.parameters(), lr=1e-2)
    across = torch.linspace(-15 / 16, 15 / 16, 16)

    def square(condition):
        half = 0.5 * (0.3 * condition).exp()[..., None]
        return ((across.abs()[:, None] < half) & (across.abs() < half)).float()[:, None]

    for _ in range(300):
        condition = torch.randn(64, 1)
        image = overlay(torch.zeros(64, 1, 16, 16), torch.zeros(64, 1), condition, 0 * condition)
        loss = (image - square(condition)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    condition = torch.tensor([[-1.0], [0.0], [0.7]])
    image = overlay(torch.zeros(3, 1, 16, 16), torch.zeros(3, 1), condition, 0 * condition)
    unchanged = image[[1, 1, 1]]
    off = [(each - square(condition)).abs().mean(dim=(1, 2, 3)) for each in (image, unchanged)]
    assert (off[0][[0, 2]] < 0.4 * off[1][[0, 2]]).all()
    opacity = overlay.opacity(torch.zeros(3, 1), condition, 0 * condition)
    assert opacity[:, :, [0, -1]].mean() < 0.01


def test_opacities_are_precise_if_networks_run_in_low_precision():
    """A change of the condition by a hundredth is not lost."""
    overlay = disc(disturbed(Overlay(3, 2, (1, 16, 16), SMALL)))
    condition = torch.stack([torch.linspace(1.0, 1.02, 6), torch.zeros(6)], dim=1)
    given = torch.randn(1, 3).expand(6, 3), condition, torch.zeros(6, 2)
    with torch.autocast("cpu", torch.bfloat16):
        image = overlay(torch.randn(6, 1, 16, 16), *given)
        opacity = overlay.opacity(*given)
    assert image.dtype == opacity.dtype == torch.float32
    torch.testing.assert_close(opacity, overlay.opacity(*given), atol=1e-6, rtol=0)


def decoder(overlay=()):
    layer = partial(Overlay, field=SMALL)
    named = Features({"a": 1, "b": 1, "c": 1})
    return TemplateDecoder(3, named, (2, 9, 12), SMALL, hidden=4, overlay=overlay, layer=layer)


def differ(first, second):
    """Whether pixels of two rows of a batch differ by more than the rounding of products."""
    return ~torch.isclose(first, second, rtol=1e-5, atol=1e-5)


def test_only_the_opacity_depends_on_overlay_features():
    whole = disturbed(decoder(["a"]))
    disturbed(disc(whole.overlay).decoder)
    latent, condition = torch.randn(1, 3), torch.zeros(3, 3)
    condition[1, 0], condition[2, 1] = 1.0, 1.0
    latents = latent.expand(3, 3)
    warps = whole.warp(latents, condition)
    torch.testing.assert_close(warps[1], warps[0])
    assert differ(warps[2], warps[0]).any()
    image = whole(latents, condition)
    changed = differ(image[1], image[0]).any(dim=0)
    assert changed.any()
    assert not changed.all()
    assert differ(image[2], image[0]).all()
    # Field and colour depend on the other features only.
    with torch.no_grad():
        whole.overlay.slow_growth.zero_()
    same = whole(latents, condition)
    torch.testing.assert_close(same[1], same[0])
    assert differ(same[2], same[0]).all()


def test_names_without_a_layer_give_the_default_layer():
    named = Features({"a": 1, "b": 2})
    assert isinstance(TemplateDecoder(3, named, (2, 9, 12), SMALL, overlay=["b"]).overlay, Overlay)
    assert TemplateDecoder(3, named, (2, 9, 12), SMALL).overlay is None


def test_masks_are_not_saved():
    assert set(decoder(["b"]).state_dict()) == set(decoder().state_dict())
