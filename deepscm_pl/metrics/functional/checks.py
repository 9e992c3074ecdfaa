"""Checks of the arguments of metrics: shapes and devices must agree, nothing is broadcast."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "at_least_single",
    "require_finite_values",
    "require_images",
    "require_particles",
    "require_same_device",
    "require_same_shape",
    "spatial_dims_of",
]

_AXES = {2: "H, W", 3: "D, H, W"}


def require_same_device(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors are on one device."""
    (first, reference), *others = tensors.items()
    for name, tensor in others:
        if tensor.device != reference.device:
            raise ValueError(
                f"{name}: expected the device of {first}, {reference.device}, but got "
                f"{tensor.device}; move one of them with .to(...)."
            )


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors have the device and the shape of the last one."""
    require_same_device(**tensors)
    *others, (last, reference) = tensors.items()
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name}: expected the shape of {last}, {tuple(reference.shape)}, but got "
                f"{tuple(tensor.shape)}."
            )


def require_images(spatial_dims: int, **tensors: Tensor) -> None:
    """Raise ValueError unless all tensors are batches of images of one shape, on one device.

    Args:
        spatial_dims: 2 for images ``(*batch, C, H, W)``, 3 for volumes ``(*batch, C, D, H, W)``.
        **tensors: By the names of their arguments.
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


def spatial_dims_of(name: str, images: Tensor) -> int:
    """Return 2 for images ``(B, C, H, W)``, 3 for volumes ``(B, C, D, H, W)``, or raise ValueError.

    Example:
        >>> spatial_dims_of("truth", torch.zeros(5, 1, 28, 28))
        2
    """
    if images.dim() - 2 not in _AXES:
        raise ValueError(
            f"{name}: expected images (B, C, H, W) or volumes (B, C, D, H, W), but got "
            f"{tuple(images.shape)}; reshape them."
        )
    return images.dim() - 2


def require_particles(**tensors: Tensor) -> None:
    """Raise ValueError unless the first tensor is shaped like the second, with particles first."""
    require_same_device(**tensors)
    (name, particles), (other, reference) = tensors.items()
    if particles.dim() == 0 or particles.shape[1:] != reference.shape or len(particles) == 0:
        expected = ", ".join(["P", *map(str, reference.shape)])
        raise ValueError(
            f"{name}: expected particles of the shape of {other}, ({expected}) with P of at least "
            f"1, but got {tuple(particles.shape)}."
        )


def require_finite_values(**tensors: Tensor) -> None:
    """Raise ValueError if a tensor contains NaN or infinity."""
    for name, tensor in tensors.items():
        if invalid := int((~torch.isfinite(tensor)).sum()):
            raise ValueError(
                f"{name}: expected finite numbers, but {invalid} of {tensor.numel()} are NaN or "
                "infinite; remove them first."
            )


def at_least_single(tensor: Tensor) -> Tensor:
    """Convert bytes and half precision to single precision, in which differences do not wrap."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
