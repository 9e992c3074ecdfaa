"""Laplace noise, independent between pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.likelihoods.base import LocationScale, SoftFloor
from deepscm_pl.transforms.cells import normal_tail, normal_tail_quantile

__all__ = ["LaplaceLikelihood"]


class LaplaceLikelihood(LocationScale):
    """y = μ + b·F⁻¹(Φ(u)) for each pixel, F the standard Laplace law, μ and b predicted.

    Its heavy tails make it robust to outliers. With t = −log(2Φ(−|u|)) the value is μ +
    sign(u)·b·t, which is accurate in the tails, where Φ(u) rounds to 1. The decoder predicts μ in
    the first C channels and log b − ``log_scale`` in the rest.

    Args:
        log_scale: log b where the decoder's output is 0.
        smallest_log_scale: Lower bound of log b, approached smoothly.
    """

    outputs_per_channel = 2
    elementwise = True

    def __init__(
        self,
        shape: Sequence[int],
        levels: int = 256,
        log_scale: float = -3.0,
        smallest_log_scale: float = -6.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(shape, levels, temperature)
        self.log_scale = SoftFloor(log_scale, smallest_log_scale, "log_scale")

    def location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and log b."""
        location, raw = self.blocks(decoded).unbind(-4)
        return self.bounded(location), self.log_scale(raw)

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """Return y = μ + sign(u)·b·t."""
        location, log_scale = self.location_and_log_scale(decoded)
        sign = _sign(noise)
        return location + log_scale.exp() * sign * normal_tail(sign * noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return u = sign(y − μ)·|u|, where |u| solves t = |y − μ|/b."""
        standardised, _ = self.standardise(decoded, value)
        sign = _sign(standardised)
        return sign * normal_tail_quantile(sign * standardised)

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Return Σ −|y − μ|/b − log 2b over channels and pixels."""
        standardised, log_scale = self.standardise(decoded, value)
        return (-standardised.abs() - log_scale - math.log(2)).flatten(-3).sum(-1)


def _sign(number: Tensor) -> Tensor:
    """−1 or 1; 1 at 0, too, where the slope of both maps is √(π/2) or its inverse, not 0."""
    return torch.where(number < 0, -1.0, 1.0).to(number)
