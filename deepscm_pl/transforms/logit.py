"""Logit preprocessing of images."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import real_number

__all__ = ["Logit"]


class Logit(Transform):
    """x ↦ logit(α + (1 − α)·x/L), from grey levels to the real line.

    The preprocessing of RealNVP (Dinh et al. 2017, arXiv:1605.08803, section 4.1), used by
    Pawlowski et al. (2020). A bijection from (−Lα/(1 − α), L) onto the real line; images occupy
    [0, L) of it, the rest is there so that every real number has an image.

    Args:
        alpha: α, how far 0 is kept from the end of the sigmoid.
        levels: L, the number of grey levels.

    Example:
        >>> logit = Logit()
        >>> logit.inv(logit(torch.tensor([0.0, 100.0, 255.5]))).round(decimals=3)
        tensor([  0.0000, 100.0000, 255.5000])
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, alpha: float = 0.05, levels: int = 256) -> None:
        super().__init__(cache_size=0)
        self.alpha = real_number("alpha", alpha, above=0, below=1)
        self.levels = levels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Logit) and (self.alpha, self.levels) == (other.alpha, other.levels)

    def __hash__(self) -> int:
        return hash((self.alpha, self.levels))

    def _log_odds_parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # log(p) and log(1 - p) with 1 - p from the difference L - x, exact near white.
        slope = (1 - self.alpha) / self.levels
        return torch.log(self.alpha + slope * x), torch.log(slope * (self.levels - x))

    def _call(self, x: Tensor) -> Tensor:
        log_p, log_1_minus_p = self._log_odds_parts(x)
        return log_p - log_1_minus_p

    def _inverse(self, y: Tensor) -> Tensor:
        return self.levels * (1 - torch.sigmoid(-y) / (1 - self.alpha))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log dy/dx = log((1 − α)/L) − log p − log(1 − p), for each pixel."""
        log_p, log_1_minus_p = self._log_odds_parts(x)
        return math.log((1 - self.alpha) / self.levels) - log_p - log_1_minus_p
