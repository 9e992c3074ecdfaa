"""What all mechanisms of 8-bit images share: recorded grey levels, and a continuous image."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import whole_numbers
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.transforms import Dequantise, Logit
from deepscm_pl.variables import Domain, Variables

__all__ = ["ImageMechanism"]

_SHAPES = "give (channels, height, width) or (channels, depth, height, width)"


class ImageMechanism(Mechanism):
    """A mechanism of images, whose density is one of the dequantised image in logits.

    Recorded images hold whole grey levels 0, …, L − 1; the laws of a mechanism are about these with
    uniform dequantisation noise, in [0, L). Densities are in those units.

    Args:
        context: What the mechanism sees of its parents.
        shape: Shape of one image, (channels, height, width), in pixels, or of one volume,
            (channels, depth, height, width), in voxels.
        alpha: α of the preprocessing x ↦ logit(α + (1 − α)·x/L).
        levels: L, the number of grey levels.

    Attributes:
        plane: ``shape``, with the slices of a volume below each other in one image.
        preprocessing: From grey levels to where the density is modelled, the real line by default.

    Raises:
        ValueError: If ``shape`` does not have three or four positive sizes.
    """

    def __init__(
        self, context: Context, shape: Sequence[int], alpha: float = 0.05, levels: int = 256
    ) -> None:
        super().__init__(context)
        self.shape = whole_numbers("shape", shape, least=1, lengths=(3, 4), hint=_SHAPES)
        channels, *sizes, width = self.shape
        self.plane = (channels, math.prod(sizes), width)
        self.dequantisation = Dequantise(levels)
        self.preprocessing: Transform = Logit(alpha, levels)

    @property
    def domain(self) -> Domain:
        """A recorded image, of whole grey levels."""
        return Domain(self.shape, lower=0.0, upper=self.dequantisation.levels - 1.0, whole=True)

    def in_plane(self, value: Tensor) -> Tensor:
        """Volumes ``(*batch, C, D, H, W)`` as images ``(*batch, C, D·H, W)``; images as they are.

        What treats every element alone need not know of volumes.
        """
        return value.reshape(*self.domain.batch_shape(value), *self.plane)

    def in_space(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`in_plane`."""
        return value.reshape(*value.shape[:-3], *self.shape)

    def dequantise(self, value: Tensor) -> Tensor:
        """Add uniform noise to whole grey levels."""
        return self.dequantisation.sample(value.to(next(self.parameters())))

    def quantise(self, value: Tensor) -> Tensor:
        """Whole grey levels again."""
        return self.dequantisation.inverse(value)

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """The noise behind a recorded image, dequantised anew for every draw."""
        return self.abduct(self.dequantise(value.expand(*sample_shape, *value.shape)), parents)

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and make sure that the images are not scaled to [0, 1].

        Raises:
            ValueError: If no grey level is above 1.
        """
        super().fit(value, parents)
        if value.max() <= 1:
            raise ValueError(
                f"expected grey levels from 0 to {self.dequantisation.levels - 1}, but the largest "
                f"is {value.max().item():g}; multiply images in [0, 1] by 255 and round them."
            )
