"""Conversion of grey levels and volumes to pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "PLANES",
    "as_pictures",
    "change_colours",
    "difference_limit",
    "inches_per_pixel",
    "middle_planes",
    "plane_boxes",
    "planes_through",
    "signed_difference",
    "to_rgb",
]

PLANES = {"axial": "LRAP", "coronal": "LRSI", "sagittal": "PASI"}
"""Planes in the order of :func:`middle_planes`, with the sides on their left, right, top, bottom.

The letters mean left, right, anterior, posterior, superior and inferior.
"""

_DOTS_PER_INCH = 150
_LEAST_WIDTH, _LEAST_PLANE_WIDTH = 0.95, 0.7
"""Least width of an image, and of a plane from left to right, in inches."""
_LEAST_LIMIT, _STEP, _COVERED = 16, 8, 0.99
"""Least value and unit of the limit of differences, and the share of differences within it."""


def to_rgb(images: Tensor, levels: int = 256) -> NDArray[np.float64]:
    """Convert grey levels ``(*batch, C, H, W)``, C of 1 or 3, to ``(*batch, H, W, 3)`` in [0, 1].

    Example:
        >>> to_rgb(torch.full((2, 1, 1, 1), 255.0))[0]
        array([[[1., 1., 1.]]])
    """
    array = np.moveaxis(images.detach().cpu().double().numpy(), -3, -1) / (levels - 1)
    return np.clip(np.broadcast_to(array, (*array.shape[:-1], 3)), 0, 1)


def difference_limit(differences: NDArray[np.float64], levels: int = 256) -> float:
    """The end of a colour scale that covers 99 % of differences of grey levels.

    Where this is more than half of all levels, the scale covers all of them, so that large
    differences always have the same colours.

    Example:
        >>> difference_limit(np.array([-3.0, 37.0])), difference_limit(np.array([200.0]))
        (40.0, 255.0)
    """
    usual = float(np.quantile(np.abs(differences), _COVERED)) if differences.size else 0.0
    limit = max(_LEAST_LIMIT, _STEP * float(np.ceil(usual / _STEP)))
    return float(levels - 1 if 2 * limit > levels - 1 else limit)


def signed_difference(minuend: Tensor, subtrahend: Tensor) -> NDArray[np.float64]:
    """The difference of the pictures of two images: ``(H, W)``, in colour ``(H, W, 3)``.

    Channels are kept, because a mean over them would hide a change of colour.

    Args:
        minuend: Grey levels ``(C, H, W)``, C of 1 or 3, or ``(C, X, Y, Z)``, whose middle planes
            are taken.
        subtrahend: Of the same shape.

    Example:
        >>> red, green = (torch.eye(3)[k].view(3, 1, 1) * 255 for k in (0, 1))
        >>> signed_difference(green, red)
        array([[[-255.,  255.,    0.]]])
    """
    # In floating point first: differences of bytes would wrap.
    pictures = (as_pictures(each, each.dim()).double() for each in (minuend, subtrahend))
    first, second = pictures
    change = (first - second).detach().cpu().numpy()
    return change[0] if len(change) == 1 else np.moveaxis(change, 0, -1)


def change_colours(changes: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Colours of changes of red, green and blue ``(*batch, 3)``: grey is none, in [0, 1].

    Args:
        changes: In grey levels.
        limit: The change of the brightest colour; −``limit`` is that of the darkest.

    Example:
        >>> change_colours(np.array([-40.0, 40.0, 0.0]), 40.0)
        array([0. , 1. , 0.5])
    """
    return np.clip(0.5 + changes / (2 * limit), 0, 1)


def inches_per_pixel(shape: Sequence[int]) -> float:
    """The scale at which an image, or the planes of a volume, are visible with all pixels.

    Args:
        shape: Of one image ``(C, H, W)`` or volume ``(C, X, Y, Z)``.

    Example:
        >>> round(28 * inches_per_pixel((1, 28, 36, 32)), 2)
        0.7
    """
    width, least = (shape[2], _LEAST_WIDTH) if len(shape) == 3 else (shape[1], _LEAST_PLANE_WIDTH)
    return max(least, width / _DOTS_PER_INCH) / width


def middle_planes(volumes: Tensor) -> Tensor:
    """The axial, coronal and sagittal plane through the middle of each volume, side by side.

    The axial plane is viewed from above with anterior on top, the coronal one from behind with
    superior on top, and the sagittal one from the right with anterior on the right: left is left
    in the first two. Lower planes are centred vertically on black.

    Args:
        volumes: Grey levels ``(*batch, C, X, Y, Z)``: from left to right, from posterior to
            anterior, from inferior to superior.

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
    upright = planes_through(volumes, (x, y, z))
    height = max(plane.shape[-2] for plane in upright)
    framed = []
    for k, plane in enumerate(upright):
        above = (height - plane.shape[-2]) // 2
        framed.append(pad(plane, (min(k, 1), 0, above, height - plane.shape[-2] - above)))
    return torch.cat(framed, dim=-1)


def plane_boxes(shape: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Left, right, upper and lower end of each plane in the picture of :func:`middle_planes`.

    Args:
        shape: Of one volume ``(C, X, Y, Z)``.

    Example:
        >>> plane_boxes((1, 16, 20, 12))
        [(0, 16, 0, 20), (17, 33, 4, 16), (34, 54, 4, 16)]
    """
    x, y, z = shape[1:]
    height = max(y, z)
    boxes, left = [], 0
    for k, (across, down) in enumerate(((x, y), (x, z), (y, z))):
        left += min(k, 1)
        above = (height - down) // 2
        boxes.append((left, left + across, above, above + down))
        left += across
    return boxes


def planes_through(volumes: Tensor, place: tuple[int, int, int]) -> list[Tensor]:
    """The axial, coronal and sagittal plane through a voxel, as :func:`middle_planes` shows them.

    Args:
        volumes: ``(*batch, X, Y, Z)``.
        place: The indices (x, y, z) of the voxel.

    Returns:
        ``(*batch, Y, X)``, ``(*batch, Z, X)`` and ``(*batch, Z, Y)``.
    """
    x, y, z = place
    planes = (volumes[..., z], volumes[..., y, :], volumes[..., x, :, :])
    # The second axis of each plane points upwards in the picture.
    return [plane.transpose(-1, -2).flip(-2) for plane in planes]


def as_pictures(images: Tensor, event: int) -> Tensor:
    """Return images unchanged and volumes as their middle planes.

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
