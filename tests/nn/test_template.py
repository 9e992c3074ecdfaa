"""A template is placed by an affine warp, and gradients reach all of it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.nn import Features, PyramidDecoder, TemplateDecoder

SMALL = partial(PyramidDecoder, channels=(8, 4))


def placed(shape, warp):
    """A decoder with only a random template, and one warp for every latent."""
    decoder = TemplateDecoder(3, 2, shape, SMALL, hidden=4)
    for parameter in decoder.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.normal_(decoder.slow_template, std=0.1)
    with torch.no_grad():
        identity = torch.eye(*warp.shape)
        decoder.locator[-1].bias.copy_((warp - identity).flatten())
    return decoder, decoder(torch.randn(2, 3), torch.randn(2, 2))


@pytest.mark.parametrize("shape", [(2, 7, 10), (1, 5, 6, 8)])
def test_the_template_is_not_moved_at_first(shape):
    size = len(shape) - 1
    decoder, image = placed(shape, torch.eye(size, size + 1))
    torch.testing.assert_close(image, decoder.template.expand(2, *shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 7, 10), (1, 5, 6, 8)])
def test_a_shift_moves_the_template_by_whole_pixels(shape):
    """x ↦ x + 2k/W reads k pixels further to the right: the template moves to the left."""
    size = len(shape) - 1
    warp = torch.eye(size, size + 1)
    warp[0, -1] = 2 * 3 / shape[-1]  # the first coordinate is that of the last dimension
    warp[1, -1] = -2 * 1 / shape[-2]
    decoder, image = placed(shape, warp)
    expected = decoder.template[..., :-1, 3:]
    torch.testing.assert_close(image[0][..., 1:, :-3], expected, atol=1e-5, rtol=0)


def test_a_warp_of_one_half_doubles_the_drawing():
    decoder, image = placed((1, 8, 8), torch.eye(2, 3) * 0.5)
    # Pixel (4, 5) is 0.5 and 1.5 from the middle at 3.5, so that it shows the value at 3.75, 4.25.
    expected = (decoder.template[0] * _between(3.75, 4.25)).sum()
    torch.testing.assert_close(image[0, 0, 4, 5], expected, atol=1e-5, rtol=0)


def _between(row, column):
    """Weights of linear interpolation at a place of an 8 × 8 image, in pixels."""
    places = torch.arange(8.0)
    weights = [(1 - (places - place).abs()).clamp(min=0) for place in (row, column)]
    return weights[0][:, None] * weights[1][None, :]


@pytest.mark.parametrize("shape", [(2, 7, 10), (1, 5, 6, 8)])
def test_latent_and_condition_place_and_draw(shape):
    decoder = TemplateDecoder(3, 2, shape, SMALL, hidden=4)
    torch.nn.init.normal_(decoder.locator[-1].weight, std=0.1)
    torch.nn.init.normal_(decoder.slope, std=0.01)
    torch.nn.init.normal_(decoder.slow_template)
    latent = torch.randn(4, 3, requires_grad=True)
    condition = torch.randn(4, 2, requires_grad=True)
    warps = decoder.warp(latent, condition)
    assert warps.shape == (4, len(shape) - 1, len(shape))
    for given in (latent, condition):
        (gradient,) = torch.autograd.grad(warps.sum(), given, retain_graph=True)
        assert (gradient.abs().sum(-1) > 0).all()
    decoder(latent, condition).square().sum().backward()
    assert all((p.grad is not None and p.grad.abs().sum() > 0) for p in decoder.parameters())


def test_a_place_under_the_condition_is_found_before_the_rest_is_drawn():
    """A square whose size follows the condition: in 50 steps of 0.001 by its placement alone."""
    torch.manual_seed(0)
    decoder = TemplateDecoder(1, 1, (1, 16, 16), SMALL, hidden=4)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    across = torch.linspace(-15 / 16, 15 / 16, 16)
    errors = []
    for _ in range(50):
        condition = torch.randn(64, 1)
        half = 0.5 * (0.2 * condition).exp()[..., None]
        inside = (across.abs()[:, None] < half) & (across.abs() < half)
        image = decoder(torch.zeros(64, 1), condition)
        loss = (image[:, 0] - inside.float()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    assert errors[-1] < errors[0] / 10
    small, large = decoder.warp(torch.zeros(2, 1), torch.tensor([[-1.0], [1.0]]))
    for axis in range(2):
        ratio = (small[axis, axis] / large[axis, axis]).item()
        assert 1.3 < ratio < 2.0  # e^0.4 is 1.49


def test_images_are_placed_precisely_if_networks_run_in_low_precision():
    decoder = TemplateDecoder(3, 2, (1, 64, 64), SMALL, hidden=4)
    torch.nn.init.normal_(decoder.slow_template)
    given = torch.randn(2, 3), torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        image = decoder(*given)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, decoder(*given), atol=0.05, rtol=0)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"shape: expected .* or .*depth"):
        TemplateDecoder(3, 2, (1, 8))


def test_features_that_do_not_place_do_not_change_the_warp():
    named = Features({"a": 1, "b": 1, "c": 1})
    decoder = TemplateDecoder(3, named, (2, 7, 10), SMALL, place=["a", "c"])
    torch.nn.init.normal_(decoder.slope)
    torch.nn.init.normal_(decoder.locator[-1].weight)
    latent, condition = torch.randn(1, 3), torch.zeros(4, 3)
    condition[[1, 2, 3], [0, 1, 2]] = 1.0
    factual, first, second, third = decoder.warp(latent.expand(4, 3), condition)
    torch.testing.assert_close(second, factual)
    for other in (first, third):
        assert (other - factual).abs().max() > 0.1
    # The drawing still follows the whole condition.
    torch.nn.init.normal_(decoder.decoder.get_parameter(_last_weight(decoder.decoder)))
    drawn = decoder(latent.expand(4, 3), condition)
    assert (drawn[2] - drawn[0]).abs().max() > 1e-2


def _last_weight(network):
    return [name for name, weight in network.named_parameters() if weight.dim() > 1][-1]


def test_masks_are_not_saved():
    named = Features({"a": 1, "b": 1})
    placed = TemplateDecoder(3, named, (1, 7, 10), SMALL, place=["b"])
    assert set(placed.state_dict()) == set(TemplateDecoder(3, 2, (1, 7, 10), SMALL).state_dict())
