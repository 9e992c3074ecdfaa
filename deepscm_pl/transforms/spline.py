"""The monotonic rational-quadratic spline, without the cached state of Pyro's implementation."""

from __future__ import annotations

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Transform
from torch.nn import functional

from deepscm_pl.variables import common_shape

__all__ = ["RationalQuadraticSpline"]

_SMALLEST_BIN = 1e-3
_SMALLEST_SLOPE = 1e-3
_INVERSE_SOFTPLUS_OF_ONE = 0.5413248546129181


class RationalQuadraticSpline(Transform):
    """An elementwise monotonic rational-quadratic spline on [−B, B], the identity outside.

    Between knots (x_k, y_k) with slopes δ_k, with w and h the width and height of the bin, s = h/w
    and ξ = (x − x_k)/w (Durkan et al. 2019, "Neural Spline Flows", arXiv:1906.04032, equation 4):

        y = y_k + h (s ξ² + δ_k ξ(1 − ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1 − ξ)).

    The slope is 1 at both ends, so that the spline joins the tails smoothly.

    Args:
        parameters: Unconstrained logits of the widths, logits of the heights, and inner slopes,
            ``(*batch, 3K − 1)`` for K bins; zeros give the identity.
        bound: B.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, parameters: Tensor, bound: float = 4.0) -> None:
        super().__init__(cache_size=0)
        self.bound = bound
        bins = (parameters.shape[-1] + 1) // 3
        widths, heights, slopes = parameters.split([bins, bins, bins - 1], dim=-1)
        self._x = self._knots(widths)
        self._y = self._knots(heights)
        inner = (1 - _SMALLEST_SLOPE) * functional.softplus(slopes + _INVERSE_SOFTPLUS_OF_ONE)
        self._slopes = functional.pad(_SMALLEST_SLOPE + inner, (1, 1), value=1.0)

    def _knots(self, logits: Tensor) -> Tensor:
        bins = logits.shape[-1]
        sizes = _SMALLEST_BIN + (1 - _SMALLEST_BIN * bins) * logits.softmax(dim=-1)
        inner = 2 * self.bound * sizes.cumsum(dim=-1)[..., :-1] - self.bound
        start = torch.full_like(inner[..., :1], -self.bound)
        return torch.cat([start, inner, -start], dim=-1)

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        """Return the shape of the input, broadcast with the batch of parameters."""
        return common_shape(shape, (*self._x.shape[:-1], 1))

    inverse_shape = forward_shape

    def _bin(self, knots: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Left corner, width, height and both slopes of the bin of ``value``, ``(*batch, 1)``."""
        shape = common_shape(knots.shape[:-1], value.shape[:-1])
        inner = knots[..., 1:-1].detach()
        index = (value.detach() >= inner).sum(dim=-1, keepdim=True).expand(*shape, 1)

        def at(values: Tensor, position: Tensor) -> Tensor:
            return values.expand(*shape, values.shape[-1]).gather(-1, position)

        left_x, left_y = at(self._x, index), at(self._y, index)
        width, height = at(self._x, index + 1) - left_x, at(self._y, index + 1) - left_y
        return left_x, left_y, width, height, at(self._slopes, index), at(self._slopes, index + 1)

    def _call(self, x: Tensor) -> Tensor:
        left_x, left_y, width, height, slope, following = self._bin(self._x, x)
        s = height / width
        xi = ((x - left_x) / width).clamp(0, 1)
        cross = xi * (1 - xi)
        inside = left_y + height * (s * xi.square() + slope * cross) / (
            s + (following + slope - 2 * s) * cross
        )
        return torch.where(x.abs() < self.bound, inside, x.expand_as(inside))

    def _inverse(self, y: Tensor) -> Tensor:
        left_x, left_y, width, height, slope, following = self._bin(self._y, y)
        s = height / width
        rise = (y - left_y).clamp(min=0).minimum(height)
        curvature = following + slope - 2 * s
        a = height * (s - slope) + rise * curvature
        b = height * slope - rise * curvature
        c = -s * rise
        # Each form of the root where it does not cancel; a is positive where b is negative. Only
        # rounding makes the discriminant negative.
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
        positive = b >= 0
        numerator = torch.where(positive, 2 * c, root - b)
        xi = (numerator / torch.where(positive, -b - root, 2 * a)).clamp(0, 1)
        inside = left_x + xi * width
        return torch.where(y.abs() < self.bound, inside, y.expand_as(inside))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log dy/dx, elementwise; 0 in the tails."""
        left_x, _, width, height, slope, following = self._bin(self._x, x)
        s = height / width
        xi = ((x - left_x) / width).clamp(0, 1)
        cross = xi * (1 - xi)
        numerator = following * xi.square() + 2 * s * cross + slope * (1 - xi).square()
        denominator = s + (following + slope - 2 * s) * cross
        inside = 2 * s.log() + numerator.log() - 2 * denominator.log()
        return torch.where(x.abs() < self.bound, inside, torch.zeros_like(inside))
