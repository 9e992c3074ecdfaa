"""Convolutional encoders and decoders, for images and volumes of any size.

Encoders are networks of ``(batch, *image_shape)`` and ``(batch, condition_features)`` ->
``(batch, features)``, decoders of ``(batch, latent_features)`` and ``(batch, condition_features)``
-> ``(batch, *output_shape)``. Shapes are (channels, height, width), in pixels, or (channels, depth,
height, width), in voxels. Sizes that do not halve evenly are padded at their end.

The defaults of :class:`ConvolutionalEncoder` and :class:`ConvolutionalDecoder` are those of
Pawlowski et al. (2020), appendix B. No network keeps batch statistics: the result for an image does
not depend on the rest of the batch, in training or after, on one process or several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.layers import (
    CONVOLUTIONS,
    end_padding,
    image_sizes,
    reduced_shape,
    scale_channels,
    spatial_dimensions,
)

__all__ = [
    "ConvolutionalConditioner",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "PyramidDecoder",
    "PyramidEncoder",
]

_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_MOST_GROUPS = 8
_MOST_CONVOLUTIONS = 100


class _Encoder(nn.Module):
    """Given convolutions that halve an image for each of ``channels``, then an affine map.

    Args:
        image_shape: Shape of one image.
        condition_features: Size of the condition, which is ignored.
        features: Number of features returned.
    """

    def __init__(
        self,
        convolutions: list[nn.Module],
        channels: Sequence[int],
        sizes: Sequence[int],
        features: int,
    ) -> None:
        super().__init__()
        features = whole_number("features", features, least=1)
        self.padding = end_padding(sizes, len(channels))
        self.convolutions = nn.Sequential(*convolutions)
        size = math.prod(reduced_shape(channels[-1], sizes, len(channels)))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(size, features), nn.LeakyReLU(0.1))
        self.out_features = features

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return features of ``image``; the condition is ignored."""
        padded = functional.pad(image, self.padding)
        features: Tensor = self.head(self.convolutions(padded))
        return features


class _Decoder(nn.Module):
    """A fully connected head, then convolutions that double the image, cropped to ``sizes``.

    Args:
        latent_features: Size of the latent.
        condition_features: Size of the condition, which joins the latent in the first layer.
        output_shape: Shape of one output.
        hidden: Width of the first, fully connected layer.
    """

    def __init__(
        self, head: list[nn.Module], convolutions: list[nn.Module], sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.head = nn.Sequential(*head)
        self.convolutions = nn.Sequential(*convolutions)
        self.sizes = tuple(sizes)

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the image for ``latent`` and ``condition``."""
        image: Tensor = self.convolutions(self.head(torch.cat([latent, condition], dim=-1)))
        crop: tuple[Any, ...] = tuple(slice(size) for size in self.sizes)
        return image[(..., *crop)]


class ConvolutionalEncoder(_Encoder):
    """Image to features, by convolutions that halve it.

    Args:
        channels: Channels after each convolution; there is one halving for each.

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
        image_channels, *sizes = image_sizes("image_shape", image_shape)
        channels = scale_channels(channels, sizes)
        layers: list[nn.Module] = []
        for before, after in pairwise((image_channels, *channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        super().__init__(layers, channels, sizes, features)


class ConvolutionalDecoder(_Decoder):
    """Latent and condition to image, by transposed convolutions that double it.

    Args:
        channels: Channels before each transposed convolution; there is one doubling for each.
    """

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        hidden: int = 1024,
        channels: Sequence[int] = (128, 64),
    ) -> None:
        out_channels, *sizes = image_sizes("output_shape", output_shape)
        hidden = whole_number("hidden", hidden, least=1)
        channels = scale_channels(channels, sizes)
        start = reduced_shape(channels[0], sizes, len(channels))
        head = [
            nn.Linear(latent_features + condition_features, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, math.prod(start)),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, start),
        ]
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, out_channels)):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
        super().__init__(head, layers[:-1], sizes)


class PyramidEncoder(_Encoder):
    """Image or volume to features, by several convolutions at each scale.

    Args:
        channels: Channels at each scale; there is one halving for each.
        convolutions: Number of convolutions at each scale, including the one that halves.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        condition_features: int,
        features: int = 100,
        channels: Sequence[int] = (16, 24, 32, 64, 128),
        convolutions: int = 3,
    ) -> None:
        convolution = CONVOLUTIONS[spatial_dimensions(image_shape)]
        whole_number("convolutions", convolutions, least=1, most=_MOST_CONVOLUTIONS)
        channels = scale_channels(channels, image_shape[1:])
        layers: list[nn.Module] = []
        for before, after in pairwise((image_shape[0], *channels)):
            inputs = [before, *[after] * (convolutions - 1)]
            for count in inputs[:-1]:
                layers += _block(convolution(count, after, 3, padding=1))
            layers += _block(convolution(inputs[-1], after, 4, stride=2, padding=1))
        super().__init__(layers, channels, image_shape[1:], features)


class PyramidDecoder(_Decoder):
    """Latent and condition to image or volume, by several convolutions at each scale.

    Args:
        channels: Channels at each scale, the smallest image first; there is one doubling for each.
        convolutions: Number of convolutions at each scale, including the one that doubles.
        upsample: Whether sizes are doubled by repeating pixels or voxels before a convolution,
            instead of by a transposed one, which can cause a chequered pattern.

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
        dimensions = spatial_dimensions(output_shape)
        convolution, transposed = CONVOLUTIONS[dimensions], _TRANSPOSED[dimensions]
        whole_number("convolutions", convolutions, least=1, most=_MOST_CONVOLUTIONS)
        out_channels, *sizes = output_shape
        channels = scale_channels(channels, sizes)
        start = reduced_shape(channels[0], sizes, len(channels))
        head = [
            nn.Linear(latent_features + condition_features, math.prod(start)),
            nn.LeakyReLU(0.1),
            nn.Unflatten(1, start),
        ]
        layers: list[nn.Module] = []
        for before, after in pairwise((*channels, channels[-1])):
            if upsample:
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
                layers += _block(convolution(before, after, 3, padding=1))
            else:
                layers += _block(transposed(before, after, 4, stride=2, padding=1))
            for _ in range(convolutions - 1):
                layers += _block(convolution(after, after, 3, padding=1))
        super().__init__(head, [*layers, convolution(channels[-1], out_channels, 1)], sizes)


def _block(convolution: nn.Module) -> list[nn.Module]:
    """A convolution, group normalisation and a leaky rectifier."""
    channels = int(convolution.out_channels)  # type: ignore[arg-type]
    groups = math.gcd(channels, _MOST_GROUPS)
    return [convolution, nn.GroupNorm(groups, channels), nn.LeakyReLU(0.1)]


class ConvolutionalConditioner(nn.Module):
    """Predict feature maps ``(batch, out_channels, H, W)`` from feature maps and a context vector.

    A 3×3, a 1×1 and a 3×3 convolution with SiLU activations; a linear map of the context, if there
    is one, is added after the first. The last starts at zero, and so does the prediction.
    """

    def __init__(
        self, in_channels: int, context_features: int, out_channels: int, hidden: int = 64
    ) -> None:
        super().__init__()
        hidden = whole_number("hidden", hidden, least=1)
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.context = nn.Linear(context_features, hidden, bias=False) if context_features else None
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.last = nn.Conv2d(hidden, out_channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Return the prediction for ``features`` and ``context``."""
        hidden: Tensor = self.first(features)
        if self.context is not None:
            hidden = hidden + self.context(context)[..., None, None]
        hidden = functional.silu(hidden)
        predicted: Tensor = self.last(functional.silu(self.middle(hidden)))
        return predicted
