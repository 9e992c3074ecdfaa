"""The base class of mechanisms of images, which are recorded as whole grey levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Transform, constraints

from deepscm_pl.checks import whole_numbers
from deepscm_pl.mechanisms.base import Context, Mechanism
from deepscm_pl.transforms import Dequantise, Logit
from deepscm_pl.variables import Domain, Variables, common_shape

__all__ = ["ImageDistribution", "ImageMechanism"]

_SHAPES = "give (channels, height, width) or (channels, depth, height, width)"


class ImageMechanism(Mechanism):
    """A mechanism of images or volumes with the density of the dequantised image.

    Recorded images contain whole grey levels 0, …, L − 1; the methods of a mechanism take and
    return continuous images in [0, L), recorded ones with uniform dequantisation noise. Densities
    are in these units. The coupling is chosen by the subclass.

    Args:
        shape: (channels, height, width), in pixels, or (channels, depth, height, width), in voxels.
        alpha: α of the preprocessing x ↦ logit(α + (1 − α)·x/L).
        levels: L, the number of grey levels.

    Attributes:
        plane: ``shape``, with the slices of a volume below each other in one image.
        preprocessing: The map from grey levels to the modelled range, by default the real line.
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
        """Return volumes ``(*batch, C, D, H, W)`` as images ``(*batch, C, D·H, W)``."""
        return value.reshape(*self.domain.batch_shape(value), *self.plane)

    def in_space(self, value: Tensor) -> Tensor:
        """Return images ``(*batch, C, D·H, W)`` as volumes; the inverse of :meth:`in_plane`."""
        return value.reshape(*value.shape[:-3], *self.shape)

    def dequantise(self, value: Tensor) -> Tensor:
        """Add uniform noise to whole grey levels."""
        return self.dequantisation.sample(value.to(next(self.parameters())))

    def quantise(self, value: Tensor) -> Tensor:
        """Return whole grey levels."""
        return self.dequantisation.inverse(value)

    def abduct_recorded(
        self, value: Tensor, parents: Variables, sample_shape: tuple[int, ...] = ()
    ) -> dict[str, Tensor]:
        """Infer the noise of a recorded image, with new dequantisation noise for every draw."""
        return self.abduct(self.dequantise(value.expand(*sample_shape, *value.shape)), parents)

    def middle(self, value: Tensor) -> Tensor:
        """Return the middle of each whole grey level, in its cell of width 1."""
        return value.to(next(self.parameters())) + 0.5

    def likeliest(self, value: Tensor, parents: Variables) -> dict[str, Tensor]:
        """Infer the noise of the middle of each recorded grey level."""
        return self.abduct(self.middle(value), parents)

    def in_own_precision(self, image: Tensor) -> Tensor:
        """Return an image in the precision of the parameters, each pixel in its grey level."""
        rounded = image.to(next(self.parameters()))
        if rounded.dtype == image.dtype:
            return rounded
        start = rounded.detach()
        correction = torch.nextafter(start, torch.full_like(start, -math.inf)) - start
        return rounded + correction * (start.floor() > image.detach().floor())

    def one_batch(self, value: Tensor, context: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Broadcast images and contexts ``(*batch, A)`` over their batch dimensions.

        Returns:
            Both with one batch dimension, in the precision of the images, and the batch shape.
        """
        batch = common_shape(value.shape[:-3], context.shape[:-1])
        flat = value.expand(*batch, *self.shape).reshape(-1, *self.shape)
        contexts = context.to(value).expand(*batch, context.shape[-1])
        return flat, contexts.reshape(len(flat), context.shape[-1]), batch

    def fit(self, value: Tensor, parents: Variables) -> None:
        """Fit the context, and raise a ValueError if the images are scaled to [0, 1]."""
        super().fit(value, parents)
        if value.max() <= 1:
            raise ValueError(
                f"expected grey levels from 0 to {self.dequantisation.levels - 1}, but the largest "
                f"is {value.max().item():g}; multiply images in [0, 1] by 255 and round them."
            )


class ImageDistribution(TorchDistribution):
    """A distribution of continuous images, given by functions of a tensor of parameters.

    Args:
        parameters: For example the output of a decoder, ``(*batch, *sizes)``.
        sizes: The number of dimensions that are not of the batch.
        shape: The shape of one image or volume.
        draw: From the parameters and the shape ``(*sample, *batch)`` of the draws to images.
        log_density: From the parameters and images to log-densities in nats per image.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(
        self,
        parameters: Tensor,
        sizes: int,
        shape: Sequence[int],
        draw: Callable[[Tensor, tuple[int, ...]], Tensor],
        log_density: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.parameters, self.sizes = parameters, sizes
        self.draw, self.log_density = draw, log_density
        batch = parameters.shape[: parameters.dim() - sizes]
        super().__init__(batch, torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The real numbers, for each pixel or voxel."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(
        self, batch_shape: torch.Size, _instance: ImageDistribution | None = None
    ) -> ImageDistribution:
        """Return the same distribution over broadcast batch dimensions."""
        parameters = self.parameters.expand(*batch_shape, *[-1] * self.sizes)
        return ImageDistribution(
            parameters, self.sizes, self.event_shape, self.draw, self.log_density
        )

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw continuous images, ``(*sample_shape, *batch, *shape)``."""
        return self.draw(self.parameters, (*sample_shape, *self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats per image."""
        return self.log_density(self.parameters, value)
