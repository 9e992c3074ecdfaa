"""Checks of what metrics are given: shapes and devices must agree, nothing is broadcast."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "at_least_single",
    "require_finite",
    "require_images",
    "require_particles",
    "require_same_device",
    "require_same_shape",
    "spatial_dims_of",
]

_AXES = {2: "H, W", 3: "D, H, W"}


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


def require_images(spatial_dims: int, **tensors: Tensor) -> None:
    """Raise unless all tensors are batches of images of one shape, on one device.

    Args:
        spatial_dims: 2 for images ``(*batch, C, H, W)``, 3 for volumes ``(*batch, C, D, H, W)``.
        **tensors: By the names of their arguments.

    Raises:
        ValueError: If ``spatial_dims`` is another number, or naming the argument and what came.
    """
    if spatial_dims not in _AXES:
        raise ValueError(
            f"spatial_dims: expected 2 for images or 3 for volumes, but got {spatial_dims}."
        )
    require_same_shape(**tensors)
    name, tensor = next(iter(tensors.items()))
    if tensor.dim() < spatial_dims + 1:
        raise ValueError(
            f"{name}: expected shape (*batch, C, {_AXES[spatial_dims]}), but got "
            f"{tuple(tensor.shape)}; add the missing dimensions."
        )


def spatial_dims_of(**tensors: Tensor) -> int:
    """2 for a batch of images ``(B, C, H, W)``, 3 for one of volumes ``(B, C, D, H, W)``.

    Args:
        **tensors: One tensor, by the name of its argument.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> spatial_dims_of(truth=torch.zeros(5, 1, 28, 28))
        2
    """
    ((name, tensor),) = tensors.items()
    if tensor.dim() - 2 not in _AXES:
        raise ValueError(
            f"{name}: expected images (B, C, H, W) or volumes (B, C, D, H, W), but got "
            f"{tuple(tensor.shape)}; reshape them."
        )
    return tensor.dim() - 2


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
