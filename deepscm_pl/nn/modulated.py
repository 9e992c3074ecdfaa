"""Residual encoder and decoder, modulated by a condition at every scale.

Every residual block is scaled and shifted by the condition (feature-wise linear modulation, Perez
et al. 2018, arXiv:1709.07871), which thereby acts on coarse and on fine features. Resolution
changes by space-to-depth and depth-to-space (Shi et al. 2016, arXiv:1609.05158), so that the
convolutions run at low resolutions, where they are cheap. There are no batch statistics. Shapes are
those of :mod:`deepscm_pl.nn.convolutional`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.layers import (
    CONVOLUTIONS,
    Features,
    end_padding,
    image_sizes,
    reduced_shape,
    scale_channels,
)

__all__ = [
    "Embedding",
    "Modulation",
    "ResidualBlock",
    "ResidualDecoder",
    "ResidualEncoder",
    "start_unmodulated",
]

_MOST_BLOCKS = 1000


class ResidualBlock(nn.Module):
    """h ↦ h + conv(silu(modulate(conv(silu(h))))), two 3×3 convolutions.

    Args:
        channels: Channels of h.
        condition: Size of the vector that scales and shifts the channels between the convolutions;
            0 for none.
        dimensions: 2 for images, 3 for volumes.
        kernel: Size of the convolutions, an odd number of pixels or voxels.
    """

    def __init__(
        self, channels: int, condition: int = 0, dimensions: int = 2, kernel: int = 3
    ) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dimensions]
        self.first = convolution(channels, channels, kernel, padding=kernel // 2)
        self.second = convolution(channels, channels, kernel, padding=kernel // 2)
        # Near the identity at first, for any number of blocks.
        with torch.no_grad():
            self.second.weight.mul_(0.3)
        self.modulation = Modulation(channels, condition)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return the features after the block."""
        hidden = self.modulation(self.first(functional.silu(features)), condition)
        refined: Tensor = features + self.second(functional.silu(hidden))
        return refined


class ResidualEncoder(nn.Module):
    """Image to features: halved by space-to-depth, residual blocks at every size.

    Args:
        image_shape: Shape of one image.
        condition_features: Size of the condition; 0 for none.
        features: Number of features returned.
        channels: Channels at each size, from H/2 downwards; there is one halving for each.
        blocks: Residual blocks at each size.
        embedding: Size of the embedding of the condition that modulates the blocks.
        separate: Whether each named parent has an embedding of its own, see :class:`Embedding`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        condition_features: int,
        features: int = 256,
        channels: Sequence[int] = (32, 128),
        blocks: int = 1,
        embedding: int = 64,
        separate: bool = False,
    ) -> None:
        super().__init__()
        image_channels, *sizes = image_sizes("image_shape", image_shape)
        features = whole_number("features", features, least=1)
        channels = scale_channels(channels, sizes)
        self.padding = end_padding(sizes, len(channels))
        self.embed = Embedding(condition_features, embedding, separate)
        self.scales = nn.ModuleList(
            _EncoderScale(before, after, blocks, self.embed.features)
            for before, after in pairwise((image_channels, *channels))
        )
        if separate:
            start_unmodulated(self)
        size = math.prod(reduced_shape(channels[-1], sizes, len(channels)))
        self.head = nn.Sequential(nn.SiLU(), nn.Flatten(), nn.Linear(size, features), nn.SiLU())
        self.out_features = features

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return features of ``image``."""
        embedded = self.embed(condition)
        hidden = functional.pad(image, self.padding)
        for scale in self.scales:
            hidden = scale(hidden, embedded)
        features: Tensor = self.head(hidden)
        return features


class ResidualDecoder(nn.Module):
    """Latent and condition to image: residual blocks at every size, doubled by depth-to-space.

    Args:
        latent_features: Size of the latent, which enters in the first layer.
        condition_features: Size of the condition, which enters at every scale; 0 for none.
        output_shape: Shape of one output.
        hidden: Width of the first, fully connected layer.
        channels: Channels at each size, up to H/2; there is one doubling for each.
        blocks: Residual blocks at each size.
        embedding: Size of the embedding of the condition that modulates the blocks.
        separate: Whether each named parent has an embedding of its own, see :class:`Embedding`.

    Example:
        >>> decoder = ResidualDecoder(16, 2, (9, 28, 28), channels=(16, 8))
        >>> decoder(torch.zeros(3, 16), torch.zeros(3, 2)).shape
        torch.Size([3, 9, 28, 28])
    """

    def __init__(
        self,
        latent_features: int,
        condition_features: int,
        output_shape: Sequence[int],
        hidden: int = 256,
        channels: Sequence[int] = (128, 32),
        blocks: int = 1,
        embedding: int = 64,
        separate: bool = False,
    ) -> None:
        super().__init__()
        out_channels, self.height, self.width = image_sizes("output_shape", output_shape)
        hidden = whole_number("hidden", hidden, least=1)
        channels = scale_channels(channels, (self.height, self.width))
        start = reduced_shape(channels[0], (self.height, self.width), len(channels))
        self.embed = Embedding(condition_features, embedding, separate)
        first = nn.Linear(latent_features + self.embed.features, hidden)
        self.head = nn.Sequential(
            first, nn.SiLU(), nn.Linear(hidden, math.prod(start)), nn.Unflatten(1, start)
        )
        self.scales = nn.ModuleList(
            _DecoderScale(before, after, blocks, self.embed.features)
            for before, after in pairwise((*channels, out_channels))
        )
        if separate:
            start_unmodulated(self)
            nn.init.zeros_(first.weight[:, latent_features:])

    def forward(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the image for ``latent`` and ``condition``."""
        embedded = self.embed(condition)
        image = self.head(torch.cat([latent, embedded.to(latent)], dim=-1))
        for scale in self.scales:
            image = scale(image, embedded)
        return image[..., : self.height, : self.width]


class Embedding(nn.Module):
    """A perceptron that embeds the condition; the identity of an empty condition.

    Modulations are affine in the embedding. If each parent has one of its own, they are sums over
    parents, γ(c) = Σ_k γ_k(c_k), so that the effects of parents in one layer add up, also in
    combinations that are not in the data. Together with :func:`start_unmodulated`, a parent acts
    only where the data show that it does. A joint embedding learns from combinations alone.

    Args:
        condition_features: Size of the condition, with names if it is a
            :class:`~deepscm_pl.nn.Features`; 0 for none.
        features: Size of an embedding.
        separate: Whether each name has its own embedding of this size.

    Example:
        >>> Embedding(Features({"age": 1, "sex": 2}), 8, separate=True)(torch.zeros(3, 3)).shape
        torch.Size([3, 16])
    """

    def __init__(self, condition_features: int, features: int, separate: bool = False) -> None:
        whole_number("embedding", features, least=1)
        super().__init__()
        self.sizes = [int(condition_features)] if condition_features else []
        if separate and isinstance(condition_features, Features):
            self.sizes = [size for size in condition_features.sizes.values() if size]
        self.features = features * len(self.sizes)
        several = [_perceptron(size, features) for size in self.sizes]
        self.layers: nn.Sequential | nn.ModuleList = nn.ModuleList(several)
        if len(several) < 2:
            self.layers = several[0] if several else nn.Sequential()

    def forward(self, condition: Tensor) -> Tensor:
        """Return the embedding, ``(batch, features)``."""
        if isinstance(self.layers, nn.Sequential):
            embedded: Tensor = self.layers(condition)
            return embedded
        parts = zip(self.layers, condition.split(self.sizes, dim=-1), strict=True)
        return torch.cat([layers(part) for layers, part in parts], dim=-1)


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    first, second = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU())


@torch.no_grad()
def start_unmodulated(network: nn.Module) -> None:
    """Set the weights of all modulations to zero, so that no parent acts before training."""
    for module in network.modules():
        if isinstance(module, Modulation) and module.affine is not None:
            nn.init.zeros_(module.affine.weight)


def _residual_blocks(blocks: int, channels: int, condition: int) -> nn.ModuleList:
    count = whole_number("blocks", blocks, least=0, most=_MOST_BLOCKS)
    return nn.ModuleList(ResidualBlock(channels, condition) for _ in range(count))


class _EncoderScale(nn.Module):
    """``(batch, channels, H, W)`` -> ``(batch, following, H/2, W/2)``, then residual blocks."""

    def __init__(self, channels: int, following: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(4 * channels, following, 3, padding=1)
        self.blocks = _residual_blocks(blocks, following, condition)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        features = self.reduce(functional.pixel_unshuffle(features, 2))
        for block in self.blocks:
            features = block(features, condition)
        return features


class _DecoderScale(nn.Module):
    """Residual blocks, then ``(batch, channels, H, W)`` -> ``(batch, following, 2H, 2W)``."""

    def __init__(self, channels: int, following: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.blocks = _residual_blocks(blocks, channels, condition)
        self.modulation = Modulation(channels, condition)
        self.expand = nn.Conv2d(channels, 4 * following, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            features = block(features, condition)
        hidden = functional.silu(self.modulation(features, condition))
        doubled: Tensor = functional.pixel_shuffle(self.expand(hidden), 2)
        return doubled


class Modulation(nn.Module):
    """h ↦ h·(1 + γ(c)) + β(c) for each channel, γ and β affine in c; the identity without c.

    Args:
        channels: Channels of h.
        condition: Size of c; 0 for none.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.affine = nn.Linear(condition, 2 * channels) if condition else None
        if self.affine is not None:
            nn.init.normal_(self.affine.weight, std=0.02)
            nn.init.zeros_(self.affine.bias)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return modulated features ``(batch, channels, *sizes)``."""
        if self.affine is None:
            return features
        found = self.affine(condition)
        scale, shift = found.view(*found.shape, *[1] * (features.dim() - 2)).chunk(2, dim=1)
        modulated: Tensor = torch.addcmul(features + shift, features, scale)
        return modulated
