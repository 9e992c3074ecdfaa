"""p(y | decoder output): what noise a decoder's image carries, one small class per kind.

A likelihood turns the decoder's output into an invertible map between pixel noise u ~ N(0, I) and
the (preprocessed) image y, so that u is exactly inferred from y. Shapes: the decoder's output is
``(*batch, outputs_per_channel · C, H, W)``, u and y are ``(*batch, C, H, W)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = [
    "FixedVarianceGaussian",
    "GaussianLikelihood",
    "Likelihood",
    "PredictedVarianceGaussian",
    "SharedVarianceGaussian",
]


class Likelihood(nn.Module, ABC):
    """The contract. A subclass gives the map u ↦ y, its inverse, and log p(y).

    Args:
        channels: C, the number of channels of the image.

    Attributes:
        outputs_per_channel: How many channels the decoder has to give for each one of the image.
    """

    outputs_per_channel: int = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y from the decoder's output and u."""

    @abstractmethod
    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u from the decoder's output and y, the exact inverse of :meth:`forward`."""

    @abstractmethod
    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """log p(y | decoder output) in nats per image, ``(*batch,)``."""


class GaussianLikelihood(Likelihood):
    """y = μ + σ·u for each pixel; subclasses say where μ and σ come from."""

    @abstractmethod
    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """μ ``(*batch, C, H, W)`` and log σ, which broadcasts with it."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y = μ + σ·u."""
        location, log_scale = self.location_and_log_scale(decoded)
        return location + log_scale.exp() * noise

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u = (y − μ)/σ."""
        location, log_scale = self.location_and_log_scale(decoded)
        return (value - location) * (-log_scale).exp()

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Σ log N(y; μ, σ²) over channels and pixels."""
        location, log_scale = self.location_and_log_scale(decoded)
        noise = (value - location) * (-log_scale).exp()
        per_pixel = -0.5 * noise.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return per_pixel.flatten(-3).sum(-1)


class FixedVarianceGaussian(GaussianLikelihood):
    """One variance for all pixels, given and not learned (the authors' ``fixed_var``).

    Args:
        channels: Channels of the image.
        log_variance: log σ².

    Example:
        >>> likelihood = FixedVarianceGaussian(1, log_variance=0.0)
        >>> likelihood(torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)).shape
        torch.Size([2, 1, 3, 3])
    """

    def __init__(self, channels: int, log_variance: float = -5.0) -> None:
        super().__init__(channels)
        self.register_buffer("log_scale", torch.full((channels, 1, 1), log_variance / 2))

    log_scale: Tensor

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the given constant."""
        return decoded, self.log_scale


class SharedVarianceGaussian(GaussianLikelihood):
    """One learned variance per channel, shared by all pixels and images (``learned_var``).

    Args:
        channels: Channels of the image.
        log_variance: Initial log σ².
    """

    def __init__(self, channels: int, log_variance: float = -5.0) -> None:
        super().__init__(channels)
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), log_variance / 2))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the learned constant."""
        return decoded, self.log_scale


class PredictedVarianceGaussian(GaussianLikelihood):
    """A variance for each pixel, predicted by the decoder (``independent_gaussian``).

    The decoder gives μ in the first C channels and log σ² − ``log_variance`` in the rest.

    Args:
        channels: Channels of the image.
        log_variance: log σ² where the decoder gives 0.
        smallest_log_variance: Lower bound of log σ², approached smoothly. A pixel that is the same
            in every image would otherwise drive its variance to 0 and its likelihood to infinity.
    """

    outputs_per_channel = 2

    def __init__(
        self, channels: int, log_variance: float = -5.0, smallest_log_variance: float = -12.0
    ) -> None:
        super().__init__(channels)
        if not smallest_log_variance < log_variance:
            raise ValueError(
                "smallest_log_variance: expected less than log_variance "
                f"({log_variance:g}), but got {smallest_log_variance:g}."
            )
        self.smallest = smallest_log_variance
        # softplus(shift) = log_variance - smallest, so that a decoder of zeros gives log_variance.
        self.shift = math.log(math.expm1(log_variance - smallest_log_variance))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the decoder's output."""
        location, raw = decoded.split(self.channels, dim=-3)
        log_variance = self.smallest + nn.functional.softplus(raw + self.shift)
        return location, 0.5 * log_variance
