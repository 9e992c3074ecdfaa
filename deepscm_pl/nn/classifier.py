"""A small residual network that classifies images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checks import whole_number, whole_numbers
from deepscm_pl.nn.layers import image_sizes

__all__ = ["ResidualClassifier"]


class ResidualClassifier(nn.Module):
    """``(batch, *image_shape)`` -> logits ``(batch, classes)``, by residual blocks.

    A strided convolution, one block for each entry of ``channels``, each but the first halving the
    image, and an affine map of the mean over pixels (He et al. 2016, arXiv:1512.03385). Group
    normalisation (Wu and He 2018, arXiv:1803.08494) makes the prediction for an image independent
    of the rest of the batch.

    Args:
        image_shape: (channels, height, width), in pixels.
        classes: Number of classes.
        channels: Channels of each block.
        groups: Number of groups of channels, a divisor of every entry of ``channels``.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        channels: Sequence[int] = (32, 64, 96),
        groups: int = 8,
    ) -> None:
        super().__init__()
        groups = whole_number("groups", groups, least=1)
        channels = whole_numbers("channels", channels, least=1, fewest=1)
        if any(count % groups for count in channels):
            raise ValueError(
                f"channels: expected multiples of {groups}, the number of groups, but got "
                f"{list(channels)}."
            )
        image_channels, *_ = image_sizes("shape", image_shape)
        self.stem = nn.Conv2d(image_channels, channels[0], 5, stride=2, padding=2)
        blocks: list[nn.Module] = [_Block(channels[0], channels[0], 1, groups)]
        blocks += [_Block(before, after, 2, groups) for before, after in pairwise(channels)]
        self.blocks = nn.Sequential(*blocks, nn.GroupNorm(groups, channels[-1]), nn.ReLU())
        self.head = nn.Linear(channels[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of ``image``."""
        logits: Tensor = self.head(self.blocks(self.stem(image)).mean(dim=(-2, -1)))
        return logits


class _Block(nn.Module):
    """Normalise, rectify and convolve twice, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(groups, before), nn.GroupNorm(groups, after)])
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        hidden = self.first(functional.relu(self.norms[0](value)))
        result: Tensor = self.shortcut(value) + self.second(functional.relu(self.norms[1](hidden)))
        return result
