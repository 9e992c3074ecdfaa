"""Gaussian noise that is independent between pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepscm_pl.likelihoods.base import (
    LocationScale,
    SoftFloor,
    logarithm,
    standard_normal_log_prob,
)

__all__ = [
    "FixedVarianceGaussian",
    "GaussianLikelihood",
    "PredictedScale",
    "PredictedVarianceGaussian",
    "SharedScale",
    "SharedVarianceGaussian",
]


class SharedScale(LocationScale):
    """μ is the decoder's output, and log σ is shared by all images: learned, or a constant.

    Args:
        log_variance: (Initial) log σ².
    """

    log_scale: Tensor
    _learned = _per_pixel = True

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_variance: float = -5.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        sizes = self.shape if self._per_pixel else (self.channels, 1, 1)
        log_scale = torch.full(sizes, logarithm("log_variance", log_variance) / 2)
        if self._learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's output and the shared log σ."""
        return self.bounded(decoded), self.log_scale


class PredictedScale(LocationScale):
    """μ and log σ² − ``log_variance`` are the first two blocks of the decoder's output.

    Args:
        log_variance: log σ² where the decoder's output is 0.
        smallest_log_variance: Lower bound of log σ², approached smoothly.
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
        """Return both from the decoder's output."""
        location, raw = self.blocks(decoded)[..., :2, :, :, :].unbind(-4)
        return self.bounded(location), 0.5 * self.log_variance(raw)


class GaussianLikelihood(LocationScale):
    """y = μ + σ·u for each pixel; subclasses may correlate pixels."""

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y = μ + σ·u."""
        location, log_scale = self.location_and_log_scale(decoded)
        return location + log_scale.exp() * noise

    def infer(self, decoded: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return u, log σ, and log |det dy/du| − Σ log σ, ``(*batch,)``."""
        return (*self.standardise(decoded, value), 0.0)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return u, given the decoder's output and y."""
        return self.infer(decoded, value)[0]

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return log N(u; 0, I) − log |det dy/du| in nats per image."""
        noise, log_scale, remainder = self.infer(decoded, value)
        return (standard_normal_log_prob(noise) - log_scale).flatten(-3).sum(-1) - remainder


class FixedVarianceGaussian(SharedScale, GaussianLikelihood):
    """One constant variance for all pixels (the authors' ``fixed_var``).

    Example:
        >>> likelihood = FixedVarianceGaussian((1, 3, 3), log_variance=0.0)
        >>> likelihood(torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)).shape
        torch.Size([2, 1, 3, 3])
    """

    elementwise = True
    _learned = _per_pixel = False


class SharedVarianceGaussian(SharedScale, GaussianLikelihood):
    """One learned variance per channel, shared by all pixels and images (``learned_var``)."""

    elementwise = True
    _per_pixel = False


class PredictedVarianceGaussian(PredictedScale, GaussianLikelihood):
    """A variance for each pixel, predicted by the decoder (``independent_gaussian``)."""

    elementwise = True
