"""From whole grey levels to a continuous image and back."""

from __future__ import annotations

import torch
from torch import Tensor

from deepscm_pl.checks import whole_number

__all__ = ["Dequantise"]

_MOST_LEVELS = 4096


class Dequantise:
    """The bijection between (x, e) and x + e, for whole x in {0, …, L − 1} and e in [0, 1).

    With e uniform, the density of x + e integrated over a unit cell is the probability of x, so
    that the expected log-density bounds the log-probability of the recorded image from below
    (Theis, van den Oord and Bethge 2016, arXiv:1511.01844). The log-determinant is 0.

    Args:
        levels: L, the number of grey levels, 256 for 8-bit images; at most 4,096, beyond which
            single precision leaves too little of the noise.

    Raises:
        ValueError: If the number of levels is below 2 or above 4,096.

    Example:
        >>> dequantise = Dequantise()
        >>> levels = torch.tensor([0.0, 7.0, 255.0])
        >>> torch.equal(dequantise.inverse(dequantise.sample(levels)), levels)
        True
    """

    def __init__(self, levels: int = 256) -> None:
        hint = "scale images of more levels down"
        self.levels = whole_number("levels", levels, least=2, most=_MOST_LEVELS, hint=hint)
        # Keeps x + e clear of the next whole number by more than float32 can blur.
        self.margin = 2.0**-20 * levels * 4

    def __call__(self, levels: Tensor, remainder: Tensor) -> Tensor:
        """The continuous value x + e."""
        return levels + remainder

    def inverse(self, value: Tensor) -> Tensor:
        """The whole grey level ⌊y⌋, within 0 and L − 1."""
        return value.floor().clamp(0, self.levels - 1)

    def log_abs_det_jacobian(self, levels: Tensor) -> Tensor:
        """Zero for each pixel: the map is a shift."""
        return torch.zeros_like(levels)

    def sample(self, levels: Tensor) -> Tensor:
        """x + e with e drawn uniformly, a little inside of [0, 1)."""
        remainder = torch.rand_like(levels).clamp(self.margin, 1 - self.margin)
        return self(levels, remainder)
