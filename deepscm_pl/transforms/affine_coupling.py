"""Affine coupling of the channels of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepscm_pl.checks import real_number
from deepscm_pl.transforms.image_bijection import ImageBijection, Mapped

__all__ = ["AffineCoupling", "ConditionerFactory"]

ConditionerFactory = Callable[[int, int, int], nn.Module]
"""Called with the channels of the input, the size of the context and the channels of the output: a
network ``(batch, in, H, W)``, ``(batch, context)`` -> ``(batch, out, H, W)``."""


class AffineCoupling(ImageBijection):
    """(a, b) ↦ (a, (b + t)·exp(s)), with t and s of each pixel predicted from a and the context.

    RealNVP (Dinh et al. 2017, arXiv:1605.08803, section 3.2). a and b are the first and the second
    half of the channels. s = B·tanh(r/B) of the prediction r stays within ±B, so that neither
    direction multiplies rounding errors by more than exp(B).

    Where b is the noise that leaves the flow, this is a Gaussian of b given a and the context, with
    mean −t and standard deviation exp(−s), in terms of standard normal noise.

    Args:
        channels: Number of channels, even.
        context_features: Size of the context; 0 for none.
        conditioner: Factory of the network that predicts t and r, see :data:`ConditionerFactory`.
        log_scale_bound: B.

    Raises:
        ValueError: If the number of channels is odd, or B is not positive.
    """

    def __init__(
        self,
        channels: int,
        context_features: int,
        conditioner: ConditionerFactory,
        log_scale_bound: float = 2.0,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"channels: expected an even number, but got {channels}.")
        self.bound = real_number("log_scale_bound", log_scale_bound, above=0)
        self.conditioner = conditioner(channels // 2, context_features, channels)

    def _shift_and_log_scale(self, passive: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.conditioner(passive, context).chunk(2, dim=1)
        return shift, self.bound * torch.tanh(raw / self.bound)

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """(a, (b + t)·exp(s)), whose log-determinant is Σ s."""
        passive, active = value.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(passive, context)
        coupled = torch.cat([passive, (active + shift) * log_scale.exp()], dim=1)
        return Mapped(coupled, log_scale.flatten(1).sum(dim=1))

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """(a, b·exp(−s) − t)."""
        passive, active = value.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(passive, context)
        return torch.cat([passive, active * (-log_scale).exp() - shift], dim=1)
