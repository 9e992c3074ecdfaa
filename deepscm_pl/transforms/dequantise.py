"""Bijections between whole grey levels and continuous images."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform

from deepscm_pl.checks import real_number, whole_number

__all__ = ["Dequantise", "Logit"]

_MOST_LEVELS = 4096


class Dequantise:
    """Uniform noise e in [0, 1) that makes whole grey levels x in {0, …, L − 1} continuous.

    The density of x + e integrated over a unit cell is the probability of x, so that the expected
    log-density is a lower bound of the log-probability of the recorded image (Theis, van den Oord
    and Bethge 2016, arXiv:1511.01844).

    Args:
        levels: L, from 2 to 4,096, beyond which single precision leaves too little of the noise.

    Example:
        >>> dequantise, levels = Dequantise(), torch.tensor([0.0, 7.0, 255.0])
        >>> dequantise.inverse(dequantise.sample(levels))
        tensor([  0.,   7., 255.])
    """

    def __init__(self, levels: int = 256) -> None:
        hint = "scale images of more levels down"
        self.levels = whole_number("levels", levels, least=2, most=_MOST_LEVELS, hint=hint)
        # Keeps x + e away from the next whole number by more than float32 rounding.
        self.margin = 2.0**-20 * levels

    def inverse(self, value: Tensor) -> Tensor:
        """Return the whole grey level ⌊y⌋, within 0 and L − 1."""
        return value.floor().clamp(0, self.levels - 1)

    def parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the whole grey level of a drawn value, and its noise as uniform on [0, 1]."""
        level = self.inverse(value)
        noise = (value - level - self.margin) / (1 - 2 * self.margin)
        return level, noise.clamp(0, 1)

    def sample(self, levels: Tensor) -> Tensor:
        """Return x + e with e drawn uniformly, slightly inside of [0, 1)."""
        return levels + self.margin + (1 - 2 * self.margin) * torch.rand_like(levels)


class Logit(Transform):
    """x ↦ logit(α + (1 − α)·x/L), from (−Lα/(1 − α), L) onto the real line; images are in [0, L).

    The preprocessing of RealNVP (Dinh et al. 2017, arXiv:1605.08803, section 4.1) and of Pawlowski
    et al. (2020).

    Args:
        alpha: α in (0, 1), the distance of 0 from the end of the sigmoid.
        levels: L, the number of grey levels.
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
        # log(p) and log(1 - p) with 1 - p from the difference L - x, which is exact near L.
        slope = (1 - self.alpha) / self.levels
        tiny = torch.finfo(x.dtype).tiny
        p = (self.alpha + slope * x).clamp(min=tiny)
        return torch.log(p), torch.log(slope * (self.levels - x))

    def _call(self, x: Tensor) -> Tensor:
        log_p, log_1_minus_p = self._log_odds_parts(x)
        return log_p - log_1_minus_p

    def _inverse(self, y: Tensor) -> Tensor:
        x = self.levels * (1 - torch.sigmoid(-y) / (1 - self.alpha))
        # Rounding might reach the open end.
        return x.clamp(max=self.levels * (1 - torch.finfo(x.dtype).eps))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log dy/dx = log((1 − α)/L) − log p − log(1 − p), for each pixel."""
        log_p, log_1_minus_p = self._log_odds_parts(x)
        return math.log((1 - self.alpha) / self.levels) - log_p - log_1_minus_p
