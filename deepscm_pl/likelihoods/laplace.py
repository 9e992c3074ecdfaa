"""Laplace noise, independent between pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepscm_pl.likelihoods.base import Likelihood, SoftFloor

__all__ = ["LaplaceLikelihood"]


class LaplaceLikelihood(Likelihood):
    """y = μ + b·F⁻¹(Φ(u)) for each pixel, F the standard Laplace law, μ and b predicted.

    Its heavy tails and its |y − μ| forgive outliers. The noise u is standard normal, as that of
    every likelihood: with t = −log(2Φ(−|u|)) the value is μ + sign(u)·b·t, so that nothing is lost
    in the tails, where Φ(u) rounds to 1.

    The decoder gives μ in the first C channels and log b − ``log_scale`` in the rest.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        levels: Number of grey levels.
        log_scale: log b where the decoder gives 0.
        smallest_log_scale: Lower bound of log b, approached smoothly.
        temperature: Scale of the noise that is drawn; see :class:`Likelihood`.

    Raises:
        ValueError: If the bound is not below ``log_scale``.

    Example:
        >>> likelihood = LaplaceLikelihood((1, 1, 1), log_scale=0.0)
        >>> likelihood.log_prob(torch.zeros(2, 1, 1), torch.zeros(1, 1, 1)).exp()
        tensor(0.5000)
        >>> likelihood.abduct(torch.zeros(2, 1, 1), torch.full((1, 1, 1), 400.0)).round(decimals=2)
        tensor([[[28.1600]]])
    """

    outputs_per_channel = 2

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

    def forward(self, decoded: Tensor, noise: Tensor) -> Tensor:
        """y = μ + sign(u)·b·t."""
        location, log_scale = self._location_and_log_scale(decoded)
        sign = _sign(noise)
        return location + log_scale.exp() * sign * _surprise(sign * noise)

    def abduct(self, decoded: Tensor, value: Tensor) -> Tensor:
        """u = sign(y − μ)·|u|, where |u| solves t = |y − μ|/b."""
        location, log_scale = self._location_and_log_scale(decoded)
        standardised = (value - location) * (-log_scale).exp()
        sign = _sign(standardised)
        return sign * _noise_of_surprise(sign * standardised)

    def log_prob(self, decoded: Tensor, value: Tensor) -> Tensor:
        """Σ −|y − μ|/b − log 2b over channels and pixels."""
        location, log_scale = self._location_and_log_scale(decoded)
        standardised = (value - location) * (-log_scale).exp()
        return (-standardised.abs() - log_scale - math.log(2)).flatten(-3).sum(-1)

    def _location_and_log_scale(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        location, raw = decoded.split(self.channels, dim=-3)
        return location, self.log_scale(raw)


def _sign(number: Tensor) -> Tensor:
    """1 or −1; 1 at 0, too, where both maps have the slope √(π/2) or its inverse, not 0."""
    return torch.where(number < 0, -1.0, 1.0).to(number)


def _surprise(size: Tensor) -> Tensor:
    """t = −log(2Φ(−s)) of s ≥ 0, of small relative error at both ends."""
    near = -torch.log1p(-torch.erf(size.clamp(max=1) * math.sqrt(0.5)))
    far = -torch.special.log_ndtr(-size.clamp(min=1)) - math.log(2)
    return torch.where(size < 1, near, far)


def _noise_of_surprise(surprise: Tensor) -> Tensor:
    """s ≥ 0 with −log(2Φ(−s)) = t, by Newton's method, the last step of which is differentiable.

    t is convex in s and at least s²/2, so that √(2t) is not below the root, from where the method
    only descends.
    """
    exact = surprise.double()
    with torch.no_grad():
        size = (2 * exact).sqrt()
        for _ in range(8):
            size = _newton(size, exact)
    return _newton(size, exact).to(surprise)


def _newton(size: Tensor, surprise: Tensor) -> Tensor:
    # dt/ds = φ(s)/Φ(−s), taken from its logarithm.
    log_density = -0.5 * size.square() - 0.5 * math.log(2 * math.pi)
    inverse_slope = (torch.special.log_ndtr(-size) - log_density).exp()
    return size - (_surprise(size) - surprise) * inverse_slope
