"""The contract of the invertible networks that an image flow is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import Tensor, nn

__all__ = ["Composition", "ImageBijection", "Inverse", "Mapped"]


class Mapped(NamedTuple):
    """T(x; c) with its log-determinant.

    Attributes:
        value: T(x; c), ``(batch, C, H, W)``.
        log_determinant: log |det ∂T(x; c)/∂x| of each image alone, ``(batch,)``.
    """

    value: Tensor
    log_determinant: Tensor


class ImageBijection(nn.Module, ABC):
    """An invertible map x ↦ T(x; c) of images, given a context c; the direction is to the noise.

    Laws, for every context: ``inverse(forward(x, c).value, c) == x``; the log-determinant is that
    of autograd's Jacobian; every image is mapped alone.

    Shape:
        Images are ``(batch, C, H, W)``, contexts ``(batch, F)``: one batch dimension, the same.
    """

    @abstractmethod
    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """T(x; c) and log |det ∂T/∂x|."""

    @abstractmethod
    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """x from T(x; c)."""


class Composition(ImageBijection):
    """x ↦ T_n(… T_1(x; c) …; c), with the log-determinants added up.

    Args:
        bijections: T_1, …, T_n; none gives the identity.

    Example:
        >>> import torch
        >>> Composition([]).inverse(torch.ones(1, 1, 1, 1), torch.empty(1, 0))
        tensor([[[[1.]]]])
    """

    def __init__(self, bijections: Iterable[ImageBijection]) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def forward(self, value: Tensor, context: Tensor) -> Mapped:
        """All maps, the first one first."""
        total = value.new_zeros(len(value))
        for bijection in self.bijections:
            value, log_determinant = bijection(value, context)
            total = total + log_determinant
        return Mapped(value, total)

    def inverse(self, value: Tensor, context: Tensor) -> Tensor:
        """All inverses, the last one first."""
        for bijection in reversed(cast("list[ImageBijection]", list(self.bijections))):
            value = bijection.inverse(value, context)
        return value


class Inverse(nn.Module):
    """The other direction of a bijection as a network, without its log-determinant.

    Args:
        bijection: T.

    Shape:
        ``(batch, C, H, W)`` and ``(batch, F)`` -> ``(batch, C, H, W)``.
    """

    def __init__(self, bijection: ImageBijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, value: Tensor, context: Tensor) -> Tensor:
        """x from T(x; c)."""
        return self.bijection.inverse(value, context)
