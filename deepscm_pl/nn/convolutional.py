"""The convolutional encoder and decoder of the paper's Morpho-MNIST models, for any image size.

Sizes as in the authors' networks (Pawlowski et al. 2020, appendix B): 4×4 convolutions of stride 2
with 64 and 128 channels, 100 hidden features, and a decoder 1024 → 128·(H/4)·(W/4) → transposed
convolutions. They hold no batch statistics: what a network says of one image does not depend on
the images beside it, in training or after, on one process or several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.shapes import image_sizes, scale_channels

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder"]


class ConvolutionalEncoder(nn.Module):
    """Image to features, by convolutions that halve it.

    Args:
        image_shape: Shape of one image, (channels, height, width), in pixels.
        condition_features: Size of the condition, which this encoder does not look at.
        features: Number of features returned.
        channels: Channels after each convolution; there is one halving for each.

    Shape:
        ``(batch, *image_shape)`` and ``(batch, condition_features)`` -> ``(batch, features)``.

    Example:
        >>> encoder = ConvolutionalEncoder((1, 28, 28), condition_features=2)
        >>> encoder(torch.zeros(2, 1, 28, 28), torch.zeros(2, 2)).shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        condition_features: int,
        features: int = 100,
        channels: Sequence[int] = (64, 128),
    ) -> None:
        super().__init__()
        image_channels, height, width = image_sizes("image_shape", image_shape)
        features = whole_number("features", features, least=1)
        channels = scale_channels(channels, (height, width))
        factor = 2 ** len(channels)
        # Sizes that do not halve evenly are padded on the right and below.
        self.pad = nn.ZeroPad2d((0, -width % factor, 0, -height % factor))
        layers: list[nn.Module] = []
        for before, after in pairwise((image_channels, *channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(*layers)
        size = channels[-1] * math.ceil(height / factor) * math.ceil(width / factor)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(size, features), nn.LeakyReLU(0.1))
        self.out_features = features

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of ``image``."""
        features: Tensor = self.head(self.convolutions(self.pad(image)))
        return features


class ConvolutionalDecoder(nn.Module):
    """Latent and condition to image, by transposed convolutions that double it.

    Args:
        latent_features: Size of the latent.
        condition_features: Size of the condition, which joins the latent in the first layer.
        output_shape: Shape of one output, (channels, height, width), in pixels.
        hidden: Width of the first, fully connected layer.
        channels: Channels before each transposed convolution; there is one doubling for each.

    Shape:
        ``(batch, latent_features)`` and ``(batch, condition_features)`` ->
        ``(batch, *output_shape)``.

    Example:
        >>> decoder = ConvolutionalDecoder(16, 2, (2, 28, 28))
        >>> decoder(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 2, 28, 28])
    """

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        hidden: int = 1024,
        channels: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        out_channels, self.height, self.width = image_sizes("output_shape", output_shape)
        hidden = whole_number("hidden", hidden, least=1)
        channels = scale_channels(channels, (self.height, self.width))
        factor = 2 ** len(channels)
        start = (channels[0], math.ceil(self.height / factor), math.ceil(self.width / factor))
        self.head = nn.Sequential(
            nn.Linear(latent_features + condition_features, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, math.prod(start)),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, start),
        )
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, out_channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """The image for ``latent``."""
        image: Tensor = self.convolutions(self.head(torch.cat([latent, condition], dim=-1)))
        return image[..., : self.height, : self.width]
