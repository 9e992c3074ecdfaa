"""The U-Net from image to image."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.nn import UNet


@pytest.mark.parametrize(
    ("shape", "patch", "channels"),
    [((1, 28, 28), 2, (4, 6)), ((2, 7, 10), 1, (4, 6, 5)), ((1, 9, 5), 4, (3,))],
)
def test_keeps_the_shape_of_an_image_and_sees_its_own_only(shape, patch, channels):
    network = UNet(shape, 3, channels, blocks=1, patch=patch, embedding=5)
    image, condition = torch.randn(4, *shape), torch.randn(4, 3)
    found = network(image, condition)
    assert found.shape == image.shape
    torch.testing.assert_close(network(image[1:2], condition[1:2]), found[1:2], atol=1e-6, rtol=0)
    assert not torch.allclose(network(image, condition + 1), found)


def test_a_pixel_reaches_pixels_far_away():
    network = UNet((1, 16, 16), 0, (4, 6, 8), blocks=1)
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    (reach,) = torch.autograd.grad(network(image, torch.zeros(1, 0))[0, 0, 0, 0], image)
    assert (reach[0, 0, 12:, 12:] != 0).any()


def test_pixels_keep_their_places():
    """Without coarser scales, with identical first and last layers and blocks that add nothing."""
    network = UNet((1, 9, 5), 0, (16,), blocks=1, patch=4)
    image = torch.rand(2, 1, 9, 5)
    with torch.no_grad():
        for layer in (network.enter, network.leave):
            torch.nn.init.dirac_(layer.weight)
            layer.bias.zero_()
        for side in (network.down, network.up):
            side[0].blocks[0].second.weight.zero_()
            side[0].blocks[0].second.bias.zero_()
    found = network(image, torch.zeros(2, 0))
    torch.testing.assert_close(found, torch.nn.functional.silu(image))


def test_what_coarser_scales_see_is_added_to_the_finer_features():
    torch.manual_seed(0)
    network = UNet((1, 8, 8), 0, (4, 6), blocks=1)
    image, condition = torch.rand(2, 1, 8, 8), torch.zeros(2, 0)
    before = network(image, condition)
    with torch.no_grad():
        network.expand[0].weight.zero_()
        network.expand[0].bias.zero_()
    found = network(image, condition)
    assert not torch.allclose(found, before)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("image_shape", {"image_shape": (1, 4, 4, 4)}),
        ("patch", {"patch": 9}),
        ("channels", {"channels": ()}),
        ("blocks", {"blocks": 0}),
        ("embedding", {"embedding": 0}),
    ],
)
def test_refuses_settings_out_of_range(name, settings):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        UNet(**{"image_shape": (1, 8, 8), "condition_features": 2, **settings})
