"""From volumes to pictures: their middle planes side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from deepscm_pl.figures.pixels import inches_per_pixel

__all__ = ["as_pictures", "inches_per_element", "middle_planes"]

_GAP = 1
"""Pixels between two planes."""
_LEAST_WIDTH = 0.7
"""Of a plane from left to right, in inches."""


def middle_planes(volumes: Tensor) -> Tensor:
    """The axial, coronal and sagittal plane through the middle of each volume, side by side.

    As one looks at a head from above with the front on top, from behind with the top on top, and
    from its right with the front on the right: left is left in the first two. Planes that are
    lower than the others are in the middle of the height; what lies around them is black.

    Args:
        volumes: Grey levels ``(*batch, C, X, Y, Z)``: from left to right, from back to front, from
            bottom to top.

    Returns:
        Pictures ``(*batch, C, max(Y, Z), 2·X + Y + 2)``.

    Raises:
        ValueError: If there are fewer than four dimensions.

    Example:
        >>> middle_planes(torch.zeros(5, 1, 16, 20, 12)).shape
        torch.Size([5, 1, 20, 54])
    """
    if volumes.dim() < 4:
        raise ValueError(
            f"volumes: expected shape (*batch, C, X, Y, Z), but got {tuple(volumes.shape)}."
        )
    x, y, z = (size // 2 for size in volumes.shape[-3:])
    planes = (volumes[..., z], volumes[..., y, :], volumes[..., x, :, :])
    # An axis of a plane that points to the front or to the top does so upwards in a picture.
    upright = [plane.transpose(-1, -2).flip(-2) for plane in planes]
    height = max(plane.shape[-2] for plane in upright)
    return torch.cat([_framed(plane, height, k > 0) for k, plane in enumerate(upright)], dim=-1)


def as_pictures(images: Tensor, event: int) -> Tensor:
    """Images as they are, volumes as their middle planes.

    Args:
        images: ``(*batch, *event)`` in grey levels.
        event: Dimensions of an image ``(C, H, W)``, 3, or of a volume ``(C, X, Y, Z)``, 4.

    Raises:
        ValueError: If ``event`` is neither.

    Example:
        >>> as_pictures(torch.zeros(5, 2, 1, 28, 28), event=3).shape
        torch.Size([5, 2, 1, 28, 28])
    """
    if event not in (3, 4):
        raise ValueError(
            "images: expected images of shape (C, H, W) or volumes of shape (C, X, Y, Z), but got "
            f"{event} dimensions each, {tuple(images.shape)} in all."
        )
    return images if event == 3 else middle_planes(images)


def inches_per_element(shape: Sequence[int]) -> float:
    """The scale at which an image, or the planes of a volume, are large enough to see.

    Args:
        shape: Of one image ``(C, H, W)`` or volume ``(C, X, Y, Z)``.

    Example:
        >>> round(28 * inches_per_element((1, 28, 36, 32)), 2)
        0.7
    """
    if len(shape) == 3:
        return inches_per_pixel(shape[-1])
    return inches_per_pixel(shape[1], least=_LEAST_WIDTH)


def _framed(plane: Tensor, height: int, apart: bool) -> Tensor:
    """A plane of the given height, black around it; apart from what stands to its left."""
    above = (height - plane.shape[-2]) // 2
    below = height - plane.shape[-2] - above
    return pad(plane, (_GAP if apart else 0, 0, above, below))
