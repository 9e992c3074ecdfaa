"""A small U-Net from image to image, modulated by a condition at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number
from deepscm_pl.nn.layers import image_sizes, scale_channels
from deepscm_pl.nn.modulated import Embedding, ResidualBlock

__all__ = ["UNet"]

_MOST_BLOCKS = 100


class UNet(nn.Module):
    """Image and condition to an image of the same shape, computed at several sizes.

    The image is divided into patches by space-to-depth, so that the finest convolutions run at
    1/``patch`` of its size; each further scale halves it. Residual blocks at every scale are
    modulated by an embedding of the condition (feature-wise linear modulation, Perez et al. 2018,
    arXiv:1709.07871), before and after the coarser scales, whose output is added to the finer one's
    features (Ronneberger et al. 2015, arXiv:1505.04597, with sums instead of concatenation). There
    are no batch statistics: the output for an image depends on that image alone.

    Args:
        image_shape: Shape of one image.
        condition_features: Size of the condition; 0 for none.
        channels: Channels at each scale, the finest one first.
        blocks: Residual blocks at each scale, on each side of the coarser scales.
        patch: Height and width of the patches, 1 for single pixels.
        embedding: Size of the embedding of the condition.

    Raises:
        ValueError: If the shape is not that of an image, or a number is too small.

    Example:
        >>> network = UNet((1, 28, 28), 3, channels=(8, 16))
        >>> network(torch.zeros(2, 1, 28, 28), torch.zeros(2, 3)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        condition_features: int,
        channels: Sequence[int] = (48, 96),
        blocks: int = 2,
        patch: int = 2,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        image_channels, self.height, self.width = image_sizes("image_shape", image_shape)
        self.patch = whole_number("patch", patch, least=1, most=min(self.height, self.width))
        channels = scale_channels(channels, (self.height, self.width))
        blocks = whole_number("blocks", blocks, least=1, most=_MOST_BLOCKS)
        self.embed = Embedding(condition_features, embedding)
        size = self.embed.features
        multiple = self.patch * 2 ** (len(channels) - 1)
        self.padding = (0, -self.width % multiple, 0, -self.height % multiple)
        self.enter = nn.Conv2d(image_channels * self.patch**2, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_Blocks(width, blocks, size) for width in channels)
        self.reduce = nn.ModuleList(
            nn.Conv2d(4 * before, after, 3, padding=1) for before, after in pairwise(channels)
        )
        self.expand = nn.ModuleList(
            nn.Conv2d(after, 4 * before, 3, padding=1) for before, after in pairwise(channels)
        )
        self.up = nn.ModuleList(_Blocks(width, blocks, size) for width in channels)
        self.leave = nn.Conv2d(channels[0], image_channels * self.patch**2, 3, padding=1)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Return an image ``(batch, C, H, W)`` for ``image`` and ``condition``."""
        embedded = self.embed(condition)
        padded = functional.pad(image, self.padding)
        hidden = self.enter(functional.pixel_unshuffle(padded, self.patch))
        hidden = self._scale(0, hidden, embedded)
        patches = self.leave(functional.silu(hidden))
        found: Tensor = functional.pixel_shuffle(patches, self.patch)
        return found[..., : self.height, : self.width]

    def _scale(self, depth: int, hidden: Tensor, embedded: Tensor) -> Tensor:
        """The features of one scale after all coarser ones."""
        hidden = self.down[depth](hidden, embedded)
        if depth < len(self.reduce):
            coarse = self.reduce[depth](functional.pixel_unshuffle(hidden, 2))
            coarse = self._scale(depth + 1, coarse, embedded)
            hidden = hidden + functional.pixel_shuffle(self.expand[depth](coarse), 2)
        refined: Tensor = self.up[depth](hidden, embedded)
        return refined


class _Blocks(nn.Module):
    """Residual blocks at one size."""

    def __init__(self, channels: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(channels, condition) for _ in range(blocks))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            features = block(features, condition)
        return features
