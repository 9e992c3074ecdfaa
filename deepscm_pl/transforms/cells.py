"""Standard normal noise that is known to lie in a cell a < u ≤ b: its mass and its quantiles.

A recorded value with rounding, such as a grey level or a count, does not determine its noise but a
cell of it. The exact posterior of the noise is N(0, 1) truncated to the cell, and the probability
of the value is the mass of the cell. All computations are in double precision where the device
supports it, and accurate in both tails.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "TINY",
    "bounded_log_scale",
    "in_double",
    "log_mass",
    "normal_distribution",
    "normal_tail",
    "normal_tail_quantile",
    "soft_ceiling",
    "truncated_quantile",
]

TINY = 1e-300
"""The smallest probability of a finite normal quantile."""

_MARGIN = 64  # units in the last place between noise and the ends of its cell
_FAR = -30.0  # below it, the tail is nearly exponential


def in_double(value: Tensor) -> Tensor:
    """Return ``value`` in double precision, unless its device has none."""
    return value if value.device.type == "mps" else value.double()


def soft_ceiling(value: Tensor, largest: float, sharpness: float = 1.0) -> Tensor:
    """Return ``value`` with a smooth upper bound.

    Values below ``largest`` by 20/``sharpness`` do not change.

    Example:
        >>> soft_ceiling(torch.tensor([-5.0, 1.0, 1e30]), largest=30.0)
        tensor([-5.,  1., 30.])
    """
    # Beyond, the difference of two large numbers would lose the bound.
    value = value.clamp(max=largest + 40 / sharpness)
    excess = sharpness * (value - largest)
    return value - functional.softplus(excess, threshold=40) / sharpness


def bounded_log_scale(log_scale: Tensor) -> Tensor:
    """Return the logarithm of a conditional scale, smoothly bounded to (−12, 4).

    The scale is relative to the standard deviation over the training split. Parents far outside of
    that split would otherwise let it overflow. Between −9 and 2 it does not change; beyond, it is
    a hyperbolic tangent with the same first and second derivatives at these points.
    """
    upper = 2 + 2 * torch.tanh((log_scale - 2) / 2)
    lower = -9 + 3 * torch.tanh((log_scale + 9) / 3)
    return torch.where(log_scale > 2, upper, torch.where(log_scale < -9, lower, log_scale))


def normal_distribution(z: Tensor) -> Tensor:
    """Return Φ(z); torch.special.ndtr is computed from 1 + erf, which loses the lower tail."""
    return 0.5 * torch.erfc(-z * math.sqrt(0.5))


def log_mass(low: Tensor, high: Tensor) -> Tensor:
    """Return log(Φ(high) − Φ(low)) with a small relative error in both tails; low < high."""
    # Both in the lower tail, where Φ keeps its relative accuracy.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    open_ = low == -math.inf
    below = torch.special.log_ndtr(low.masked_fill(open_, -1.0))
    above = torch.special.log_ndtr(high)
    share = (below - above).clamp(max=-1e-15).masked_fill(open_, -math.inf)
    return above + torch.log(-torch.expm1(share))


def truncated_quantile(rank: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the quantile of N(0, 1) between ``low`` and ``high``, away from both by a margin.

    The margin is larger than the rounding of the noise in single precision, and of the cell in
    another batch, but at most a quarter of the cell.

    Args:
        rank: Uniform in [0, 1], for a draw from the truncated distribution; it broadcasts.
        low: a, −∞ for none.
        high: b > a, ∞ for none.
    """
    unit = _MARGIN * torch.finfo(torch.float32).eps
    quarter = (high - low) / 4
    low = low + torch.minimum(unit * (1 + low.abs()).nan_to_num(posinf=0.0), quarter)
    high = high - torch.minimum(unit * (1 + high.abs()).nan_to_num(posinf=0.0), quarter)
    flip = low + high > 0
    rank, a = torch.where(flip, 1 - rank, rank), torch.where(flip, -high, low)
    a, b, rank = torch.broadcast_tensors(a, torch.where(flip, -low, high), rank)
    start, end = normal_distribution(a), normal_distribution(b)
    noise = torch.special.ndtri((start + rank * (end - start)).clamp(min=TINY))
    noise = torch.where(b < _FAR, _far_quantile(rank, a, b), noise)
    return torch.where(flip, -noise, noise).maximum(low).minimum(high)


def _far_quantile(rank: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The same far in the lower tail, where probabilities underflow.

    log Φ(−s) = −s²/2 − log s + constant, with an error below s⁻².
    """
    low, high = low.clamp(max=_FAR), high.clamp(max=_FAR)
    share = torch.special.log_ndtr(low) - torch.special.log_ndtr(high)
    decline = -torch.log1p((1 - rank) * torch.expm1(share))
    size = (high.square() + 2 * decline).sqrt()
    return -(high.square() + 2 * (decline - (size / -high).log())).clamp(min=0).sqrt()


def normal_tail(size: Tensor) -> Tensor:
    """Return t = −log(2Φ(−s)) of s ≥ 0, with a small relative error at both ends."""
    near = -torch.log1p(-torch.erf(size.clamp(max=1) * math.sqrt(0.5)))
    far = -torch.special.log_ndtr(-size.clamp(min=1)) - math.log(2)
    return torch.where(size < 1, near, far)


def normal_tail_quantile(tail: Tensor) -> Tensor:
    """Return s ≥ 0 with −log(2Φ(−s)) = t, by Newton's method; its last step is differentiable.

    t is convex in s and at least s²/2, so that the method descends to the root from √(2t).
    """
    exact = in_double(tail)
    with torch.no_grad():
        size = (2 * exact).sqrt()
        for _ in range(8):
            size = _newton(size, exact)
    return _newton(size, exact).to(tail)


def _newton(size: Tensor, tail: Tensor) -> Tensor:
    # The slope dt/ds = φ(s)/Φ(−s), from its logarithm.
    log_density = -0.5 * size.square() - 0.5 * math.log(2 * math.pi)
    inverse_slope = (torch.special.log_ndtr(-size) - log_density).exp()
    return size - (normal_tail(size) - tail) * inverse_slope
