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
from torch.nn import functional

from deepscm_pl.checks import whole_number, whole_numbers
from deepscm_pl.nn.layers import image_sizes, scale_channels

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder", "PyramidDecoder", "PyramidEncoder"]


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


_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_MOST_GROUPS = 8
_MOST_CONVOLUTIONS = 100


class PyramidEncoder(nn.Module):
    """Image or volume to features: convolutions at each scale, then half the size.

    Args:
        image_shape: Shape of one image, (channels, *sizes), with two or three sizes.
        condition_features: Size of the condition, which this encoder does not look at.
        features: Number of features returned.
        channels: Channels at each scale; there is one halving for each.
        convolutions: How many at each scale, the halving one included.

    Shape:
        ``(batch, *image_shape)`` and ``(batch, condition_features)`` -> ``(batch, features)``.

    Raises:
        ValueError: If there are not two or three sizes, or no convolution.

    Example:
        >>> encoder = PyramidEncoder((1, 9, 8, 8), condition_features=2, channels=(4, 8))
        >>> encoder(torch.zeros(3, 1, 9, 8, 8), torch.zeros(3, 2)).shape
        torch.Size([3, 100])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        condition_features: int,
        features: int = 100,
        channels: Sequence[int] = (16, 24, 32, 64, 128),
        convolutions: int = 3,
    ) -> None:
        super().__init__()
        dimensions = _spatial_dimensions(image_shape)
        _check_convolutions(convolutions)
        features = whole_number("features", features, least=1)
        channels = scale_channels(channels, image_shape[1:])
        self.padding = _padding(image_shape[1:], 2 ** len(channels))
        convolution = _CONVOLUTIONS[dimensions]
        layers: list[nn.Module] = []
        for before, after in pairwise((image_shape[0], *channels)):
            for k in range(convolutions - 1):
                layers += _block(convolution(before if k == 0 else after, after, 3, padding=1))
            inner = after if convolutions > 1 else before
            layers += _block(convolution(inner, after, 4, stride=2, padding=1))
        self.convolutions = nn.Sequential(*layers)
        size = channels[-1] * math.prod(_reduced(image_shape[1:], len(channels)))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(size, features), nn.LeakyReLU(0.1))
        self.out_features = features

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Features of ``image``."""
        padded = functional.pad(image, self.padding)
        features: Tensor = self.head(self.convolutions(padded))
        return features


class PyramidDecoder(nn.Module):
    """Latent and condition to image or volume: twice the size, then convolutions at each scale.

    Args:
        latent_features: Size of the latent.
        condition_features: Size of the condition, which joins the latent in the first layer.
        output_shape: Shape of one output, (channels, *sizes), with two or three sizes.
        channels: Channels at each scale, from the smallest on; there is one doubling for each.
        convolutions: How many at each scale, the doubling one included.
        upsample: Whether sizes are doubled by repeating elements before a convolution, instead of
            by a transposed one, which can leave a chequered pattern.

    Shape:
        ``(batch, latent_features)`` and ``(batch, condition_features)`` ->
        ``(batch, *output_shape)``.

    Raises:
        ValueError: If there are not two or three sizes, or no convolution.

    Example:
        >>> decoder = PyramidDecoder(16, 2, (2, 9, 8, 8), channels=(8, 4))
        >>> decoder(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 2, 9, 8, 8])
    """

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        channels: Sequence[int] = (128, 64, 32, 24, 16),
        convolutions: int = 3,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        dimensions = _spatial_dimensions(output_shape)
        _check_convolutions(convolutions)
        self.sizes = tuple(output_shape[1:])
        channels = scale_channels(channels, self.sizes)
        start = (channels[0], *_reduced(self.sizes, len(channels)))
        self.head = nn.Sequential(
            nn.Linear(latent_features + condition_features, math.prod(start)),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, start),
        )
        convolution = _CONVOLUTIONS[dimensions]
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, channels[-1])):
            layers += _doubling(dimensions, before, after, upsample)
            for _ in range(convolutions - 1):
                layers += _block(convolution(after, after, 3, padding=1))
        self.convolutions = nn.Sequential(*layers, convolution(channels[-1], output_shape[0], 1))

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """The image for ``latent``."""
        image: Tensor = self.convolutions(self.head(torch.cat([latent, condition], dim=-1)))
        for dimension, size in enumerate(self.sizes, start=2):
            image = image.narrow(dimension, 0, size)
        return image


def _doubling(dimensions: int, before: int, after: int, upsample: bool) -> list[nn.Module]:
    if upsample:
        convolution = _CONVOLUTIONS[dimensions](before, after, 3, padding=1)
        return [nn.Upsample(scale_factor=2, mode="nearest"), *_block(convolution)]
    return _block(_TRANSPOSED[dimensions](before, after, 4, stride=2, padding=1))


def _block(convolution: nn.Module) -> list[nn.Module]:
    """A convolution, normalised within each image, and a leaky rectifier."""
    channels = convolution.out_channels
    if not isinstance(channels, int):
        raise TypeError("expected a convolution.")
    groups = math.gcd(channels, _MOST_GROUPS)
    return [convolution, nn.GroupNorm(groups, channels), nn.LeakyReLU(0.1)]


def _reduced(sizes: Sequence[int], halvings: int) -> tuple[int, ...]:
    return tuple(math.ceil(size / 2**halvings) for size in sizes)


def _padding(sizes: Sequence[int], factor: int) -> tuple[int, ...]:
    """At the end of every dimension, so that it halves evenly; the last dimension first."""
    return tuple(number for size in reversed(sizes) for number in (0, -size % factor))


def _spatial_dimensions(shape: Sequence[int]) -> int:
    dimensions = len(shape) - 1
    if dimensions not in _CONVOLUTIONS:
        raise ValueError(
            f"shape: expected (channels, height, width) or (channels, depth, height, width), but "
            f"got {tuple(shape)}."
        )
    whole_numbers("shape", shape, least=1)
    return dimensions


def _check_convolutions(convolutions: int) -> None:
    whole_number("convolutions", convolutions, least=1, most=_MOST_CONVOLUTIONS)
