"""Gaussian noise that is independent between pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.likelihoods.base import Likelihood, SoftFloor, logarithm, standard_normal_log_prob

__all__ = [
    "FixedVarianceGaussian",
    "GaussianLikelihood",
    "PredictedVarianceGaussian",
    "SharedVarianceGaussian",
]


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
        return (standard_normal_log_prob(noise) - log_scale).flatten(-3).sum(-1)


class FixedVarianceGaussian(GaussianLikelihood):
    """One variance for all pixels, given and not learned (the authors' ``fixed_var``).

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        log_variance: log σ².
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Example:
        >>> likelihood = FixedVarianceGaussian((1, 3, 3), log_variance=0.0)
        >>> likelihood(torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)).shape
        torch.Size([2, 1, 3, 3])
    """

    log_scale: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        log_variance = logarithm("log_variance", log_variance)
        self.register_buffer("log_scale", torch.full((self.channels, 1, 1), log_variance / 2))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the given constant."""
        return decoded, self.log_scale


class SharedVarianceGaussian(GaussianLikelihood):
    """One learned variance per channel, shared by all pixels and images (``learned_var``).

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        log_variance: Initial log σ².
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        log_variance = logarithm("log_variance", log_variance)
        self.log_scale = nn.Parameter(torch.full((self.channels, 1, 1), log_variance / 2))

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's output and the learned constant."""
        return decoded, self.log_scale


class PredictedVarianceGaussian(GaussianLikelihood):
    """A variance for each pixel, predicted by the decoder (``independent_gaussian``).

    The decoder gives μ in the first C channels and log σ² − ``log_variance`` in the rest.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        log_variance: log σ² where the decoder gives 0.
        smallest_log_variance: Lower bound of log σ², approached smoothly.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If the bound is not below ``log_variance``.
    """

    outputs_per_channel = 2

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        smallest_log_variance: float = -12.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.log_variance = SoftFloor(log_variance, smallest_log_variance, "log_variance")

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Both from the decoder's output."""
        location, raw = decoded.split(self.channels, dim=-3)
        return location, 0.5 * self.log_variance(raw)
