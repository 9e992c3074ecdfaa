"""Keep a predicted logarithm of a scale above a bound."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from deepscm_pl.likelihoods.base import logarithm

__all__ = ["SoftFloor"]


class SoftFloor:
    """raw ↦ smallest + softplus(raw + c), with c such that 0 ↦ start.

    A pixel that is the same in every image would otherwise drive its scale to 0 and its density to
    infinity.

    Args:
        start: Value at raw = 0.
        smallest: Lower bound, approached smoothly.
        name: What is bounded, for the error.

    Raises:
        ValueError: If the bound is not below the start.

    Example:
        >>> import torch
        >>> SoftFloor(-5.0, smallest=-12.0, name="log_variance")(torch.tensor([0.0, -100.0]))
        tensor([ -5., -12.])
    """

    def __init__(self, start: float, smallest: float, name: str) -> None:
        start = logarithm(name, start)
        smallest = logarithm(f"smallest_{name}", smallest)
        if not smallest < start:
            raise ValueError(
                f"smallest_{name}: expected less than {name} ({start:g}), but got {smallest:g}."
            )
        rise = start - smallest
        self.smallest = smallest
        # The inverse of softplus, without overflow.
        self.shift = rise + math.log(-math.expm1(-rise))

    def __call__(self, raw: Tensor) -> Tensor:
        """The bounded value, elementwise."""
        return self.smallest + functional.softplus(raw + self.shift)
