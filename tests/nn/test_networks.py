"""Networks fit images of any size."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder, ParameterNetwork


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 14), (2, 1, 7)])
def test_encoder_and_decoder_fit_any_size(shape):
    image = torch.randn(2, *shape)
    features = ConvolutionalEncoder(shape, features=5, channels=(2, 3))(image)
    assert features.shape == (2, 5)
    assert ConvolutionalDecoder(5, shape, hidden=4, channels=(3, 2))(features).shape == image.shape


def test_sizes_are_those_of_the_authors():
    encoder, decoder = ConvolutionalEncoder((1, 28, 28)), ConvolutionalDecoder(18, (1, 28, 28))
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
