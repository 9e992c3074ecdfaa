"""How good an image, or its likelihood, is."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["bits_per_dimension", "mean_absolute_error"]


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """−log p(x) / (D log 2): bits needed for each of the D pixels and channels.

    Args:
        log_prob: log p(x) or a lower bound of it, in nats, ``(*batch,)``.
        dimensions: D.

    Example:
        >>> import torch
        >>> bits_per_dimension(torch.tensor([-784 * math.log(256)]), 784)
        tensor([8.])
    """
    if dimensions < 1:
        raise ValueError(f"dimensions: expected at least 1, but got {dimensions}.")
    return -log_prob / (dimensions * math.log(2))


def mean_absolute_error(image: Tensor, target: Tensor) -> Tensor:
    """Mean of |image − target| over channels and pixels, for each image, in grey levels.

    Args:
        image: ``(*batch, C, H, W)``.
        target: The same shape.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: If the shapes differ; they are not broadcast.
    """
    if image.shape != target.shape:
        raise ValueError(
            f"image: expected the shape of target, {tuple(target.shape)}, but got "
            f"{tuple(image.shape)}."
        )
    return (image - target).abs().flatten(-3).mean(-1)
