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

from torch import Tensor, nn

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder"]


class ConvolutionalEncoder(nn.Module):
    """Image to features, by convolutions that halve it.

    Args:
        image_shape: Shape of one image, (channels, height, width), in pixels.
        features: Number of features returned.
        channels: Channels after each convolution; there is one halving for each.

    Shape:
        ``(batch, *image_shape)`` -> ``(batch, features)``.

    Example:
        >>> import torch
        >>> ConvolutionalEncoder((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        features: int = 100,
        channels: Sequence[int] = (64, 128),
    ) -> None:
        super().__init__()
        image_channels, height, width = image_shape
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

    def forward(self, image: Tensor) -> Tensor:
        """Features of ``image``."""
        features: Tensor = self.head(self.convolutions(self.pad(image)))
        return features


class ConvolutionalDecoder(nn.Module):
    """Features to image, by transposed convolutions that double it.

    Args:
        in_features: Size of the input.
        output_shape: Shape of one output, (channels, height, width), in pixels.
        hidden: Width of the first, fully connected layer.
        channels: Channels before each transposed convolution; there is one doubling for each.

    Shape:
        ``(batch, in_features)`` -> ``(batch, *output_shape)``.

    Example:
        >>> import torch
        >>> ConvolutionalDecoder(18, (2, 28, 28))(torch.zeros(3, 18)).shape
        torch.Size([3, 2, 28, 28])
    """

    def __init__(
        self,
        in_features: int,
        output_shape: Sequence[int],
        hidden: int = 1024,
        channels: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        out_channels, self.height, self.width = output_shape
        factor = 2 ** len(channels)
        start = (channels[0], math.ceil(self.height / factor), math.ceil(self.width / factor))
        self.head = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, math.prod(start)),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, start),
        )
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, out_channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """The image for ``features``."""
        image: Tensor = self.convolutions(self.head(features))
        return image[..., : self.height, : self.width]
