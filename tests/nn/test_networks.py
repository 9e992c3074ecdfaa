"""Networks fit images of any size."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.mechanisms import Context, MultiscaleFlow
from deepscm_pl.nn import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ParameterNetwork,
    PyramidDecoder,
    PyramidEncoder,
    ResidualBlock,
    ResidualDecoder,
    ResidualEncoder,
)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (2, 1, 7)])
def test_encoder_and_decoder_fit_any_size(shape):
    image = torch.randn(2, *shape)
    given = torch.randn(2, 3)
    features = ConvolutionalEncoder(shape, 3, features=5, channels=(2, 3))(image, given)
    assert features.shape == (2, 5)
    decoder = ConvolutionalDecoder(5, 3, shape, hidden=4, channels=(3, 2))
    assert decoder(features, given).shape == image.shape


def test_sizes_are_those_of_the_paper():
    encoder, decoder = (
        ConvolutionalEncoder((1, 28, 28), 2),
        ConvolutionalDecoder(16, 2, (1, 28, 28)),
    )
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convolutions] == [
        (64, (4, 4), (2, 2)),
        (128, (4, 4), (2, 2)),
    ]
    assert encoder.out_features == 100
    linear = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [1024, 7 * 7 * 128]


def test_parameters_start_at_zero_for_every_context():
    assert torch.equal(ParameterNetwork(0, 4)(torch.zeros(0)), torch.zeros(4))
    conditional = ParameterNetwork(3, 4, hidden=(8,))
    assert torch.equal(conditional(torch.randn(5, 3)), torch.zeros(5, 4))


@pytest.mark.parametrize("condition", [0, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (2, 1, 7)])
def test_residual_encoder_and_decoder_fit_any_size(shape, condition):
    image, given = torch.randn(2, *shape), torch.randn(2, condition)
    features = ResidualEncoder(shape, condition, features=5, channels=(2, 3), blocks=2)(
        image, given
    )
    assert features.shape == (2, 5)
    decoder = ResidualDecoder(5, condition, shape, hidden=4, channels=(3, 2), blocks=2)
    assert decoder(features, given).shape == image.shape


def test_the_condition_reaches_every_scale_of_a_residual_decoder():
    """Without its first layer, the decoder still depends on its condition at every scale."""
    decoder = ResidualDecoder(3, 2, (1, 8, 8), hidden=4, channels=(4, 4), embedding=8)
    for parameter in decoder.head[0].parameters():
        torch.nn.init.zeros_(parameter)
    decoder(torch.zeros(1, 3), torch.randn(1, 2)).sum().backward()
    for scale in decoder.scales:
        assert scale.modulation.affine.weight.grad.abs().sum() > 0
        assert scale.blocks[0].modulation.affine.weight.grad.abs().sum() > 0


def test_a_residual_block_is_near_the_identity_and_modulated_by_channel():
    block = ResidualBlock(4, condition=2)
    features = torch.randn(2, 4, 6, 6)
    change = block(features, torch.zeros(2, 2)) - features
    assert change.norm() < features.norm()
    torch.nn.init.zeros_(block.modulation.affine.weight)
    block.modulation.affine.bias.data = torch.tensor([-1.0] * 4 + [0.0] * 4)
    # h·(1 − 1) + 0 leaves only the bias of the second convolution.
    expected = features + block.second.bias[:, None, None]
    torch.testing.assert_close(block(features, torch.zeros(2, 2)), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvolutionalEncoder((1, 8, 8, 8), 0),
        lambda: ConvolutionalDecoder(2, 0, (1, 8, 8, 8)),
        lambda: ResidualEncoder((1, 8, 8, 8), 0),
        lambda: ResidualDecoder(2, 0, (1, 8, 8, 8)),
        lambda: MultiscaleFlow(Context(), shape=(1, 8, 8, 8)),
    ],
)
def test_volumes_are_refused_where_images_are_expected(make):
    with pytest.raises(ValueError, match=r"expected \(channels, height, width\), but got \(1, 8"):
        make()


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("shape", [(1, 19, 23), (2, 9, 10, 7)])
def test_pyramids_take_any_size(shape, upsample):
    encoder = PyramidEncoder(shape, 2, features=5, channels=(4, 6), convolutions=2)
    decoder = PyramidDecoder(3, 2, shape, channels=(6, 4), convolutions=2, upsample=upsample)
    image, condition = torch.randn(3, *shape), torch.randn(3, 2)
    assert encoder(image, condition).shape == (3, 5)
    drawn = decoder(torch.randn(3, 3), condition)
    assert drawn.shape == (3, *shape)
    # The result for an image does not depend on the rest of the batch.
    torch.testing.assert_close(encoder(image[1:2], condition[1:2]), encoder(image, condition)[1:2])


def test_invalid_pyramids_are_refused():
    with pytest.raises(ValueError, match=r"shape: expected .* or .*depth.* but got \(1, 8\)"):
        PyramidEncoder((1, 8), 0)
    with pytest.raises(ValueError, match="convolutions: expected a whole number from 1"):
        PyramidDecoder(2, 0, (1, 8, 8), convolutions=0)
