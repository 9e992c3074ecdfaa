"""Checks of what metrics are given: shapes and devices must agree, nothing is broadcast."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "at_least_single",
    "require_finite",
    "require_particles",
    "require_same_device",
    "require_same_shape",
]


def require_same_device(**tensors: Tensor) -> None:
    """Raise unless all tensors are on one device.

    Raises:
        ValueError: Naming two arguments and their devices.
    """
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(
                f"{name}: expected the device of {first}, {reference.device}, but got "
                f"{tensor.device}; move one of them with .to(...)."
            )


def require_same_shape(**tensors: Tensor) -> None:
    """Raise unless all tensors are on one device and of the shape of the last.

    Raises:
        ValueError: Naming two arguments and their shapes, or their devices.
    """
    require_same_device(**tensors)
    *others, (last, reference) = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name}: expected the shape of {last}, {tuple(reference.shape)}, but got "
                f"{tuple(tensor.shape)}."
            )


def require_particles(**tensors: Tensor) -> None:
    """Raise unless the first tensor is the second with a leading dimension of particles.

    Raises:
        ValueError: Naming both arguments and their shapes, or their devices.
    """
    require_same_device(**tensors)
    (name, particles), (other, reference) = tensors.items()
    if particles.dim() == 0 or particles.shape[1:] != reference.shape or len(particles) == 0:
        expected = ", ".join(["P", *map(str, reference.shape)])
        raise ValueError(
            f"{name}: expected particles of the shape of {other}, ({expected}) with P of at least "
            f"1, but got {tuple(particles.shape)}."
        )


def require_finite(**tensors: Tensor) -> None:
    """Raise if a tensor holds NaN or infinity.

    Raises:
        ValueError: Naming the argument and how many of its values are at fault.
    """
    for name, tensor in tensors.items():
        broken = int((~torch.isfinite(tensor)).sum())
        if broken:
            raise ValueError(
                f"{name}: expected finite numbers, but {broken} of {tensor.numel()} are NaN or "
                "infinite; remove them first."
            )


def at_least_single(tensor: Tensor) -> Tensor:
    """``tensor`` in floating point of at least single precision, in which bytes do not wrap."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
