"""The contract of invertible networks for images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import Tensor, nn

__all__ = ["ComposedBijection", "ImageBijection", "Inverse", "Mapped"]


class Mapped(NamedTuple):
    """T(x; c), ``(batch, C, H, W)``, and log |det ∂T(x; c)/∂x| of each image, ``(batch,)``."""

    value: Tensor
    log_determinant: Tensor


class ImageBijection(nn.Module, ABC):
    """An invertible map x ↦ T(x; c) from images to noise, given a context c.

    Laws, for every context: ``inverse(forward(x, c).value, c) == x``; the log-determinant is that
    of autograd's Jacobian; each image is mapped independently of the others.

    Shape:
        Images are ``(batch, C, H, W)``, contexts ``(batch, F)``.
    """

    @abstractmethod
    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """Return T(x; c) and log |det ∂T/∂x|."""

    @abstractmethod
    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Return x, given T(x; c)."""


class ComposedBijection(ImageBijection):
    """x ↦ T_n(… T_1(x; c) …; c), with the sum of the log-determinants; the identity if empty."""

    def __init__(self, bijections: Iterable[ImageBijection]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """Apply all maps, the first one first."""
        total = value.new_zeros(len(value))
        for bijection in self.bijections:
            value, log_determinant = bijection(value, context)
            total = total + log_determinant
        return Mapped(value, total)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """Apply all inverses, the last one first."""
        for bijection in reversed(cast("list[ImageBijection]", list(self.bijections))):
            value = bijection.inverse(value, context)
        return value


class Inverse(nn.Module):
    """The inverse of a bijection T as a network, without its log-determinant."""

    def __init__(self, bijection: ImageBijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, value: Tensor, context: Tensor) -> Tensor:
        """Return x, given T(x; c)."""
        return self.bijection.inverse(value, context)
