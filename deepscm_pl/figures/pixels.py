"""From grey levels, and differences of grey levels, to colours on a canvas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "DIVERGING",
    "GAP",
    "add_difference_bar",
    "as_pictures",
    "colour_differences",
    "difference_limit",
    "inches_per_element",
    "inches_per_pixel",
    "limit_to_reference",
    "middle_planes",
    "tile",
    "to_rgb",
]

GAP = 3
"""Pixels of an image between two images."""

DIVERGING = "RdBu_r"
_DOTS_PER_INCH = 150
_LEAST_LIMIT, _STEP, _COLOURED = 16, 8, 0.99
"""The difference of the darkest colours is at least, is a multiple of, and holds what share."""


def to_rgb(images: Tensor, levels: int = 256) -> NDArray[np.float64]:
    """Grey levels ``(*batch, C, H, W)``, C of 1 or 3, as colours ``(*batch, H, W, 3)`` in [0, 1].

    Example:
        >>> import torch
        >>> to_rgb(torch.full((2, 1, 1, 1), 255.0))[0]
        array([[[1., 1., 1.]]])
    """
    array = np.moveaxis(images.detach().cpu().double().numpy(), -3, -1) / (levels - 1)
    return np.clip(np.broadcast_to(array, (*array.shape[:-1], 3)), 0, 1)


def difference_limit(differences: NDArray[np.float64]) -> float:
    """The difference of the darkest colours, in grey levels: larger than nearly all that there are.

    Args:
        differences: Of grey levels, of any shape.

    Example:
        >>> difference_limit(np.array([-3.0, 37.0]))
        40.0
    """
    usual = float(np.quantile(np.abs(differences), _COLOURED)) if differences.size else 0.0
    return max(_LEAST_LIMIT, _STEP * float(np.ceil(usual / _STEP)))


def limit_to_reference(images: Sequence[Tensor], reference: Tensor, levels: int = 256) -> float:
    """The limit of the differences of images to a reference: the whole range, or less than half.

    Small differences are seen, and large ones are on a scale that is always the same.

    Args:
        images: Grey levels, of the shape of ``reference`` each.
        reference: Grey levels.
        levels: Number of grey levels.

    Example:
        >>> import torch
        >>> black = torch.zeros(1, 1, 8, 8)
        >>> limit_to_reference([black + 37], black), limit_to_reference([black + 200], black)
        (40.0, 255.0)
    """
    # In floating point first: differences of bytes would wrap.
    changes = [(image.detach().double() - reference.double()).cpu().numpy() for image in images]
    limit = difference_limit(np.stack(changes) if changes else np.zeros(0))
    return float(levels - 1 if 2 * limit > levels - 1 else limit)


def colour_differences(
    images: Tensor, reference: Tensor, levels: int = 256, limit: float | None = None
) -> NDArray[np.float64]:
    """``images`` − ``reference`` as colours: brighter is red, darker blue, equal white.

    Args:
        images: Grey levels ``(*batch, C, H, W)``; channels are averaged.
        reference: Grey levels of the same shape.
        levels: Number of grey levels.
        limit: Grey levels of the darkest colours; the whole range if left out.

    Returns:
        ``(*batch, H, W, 3)`` in [0, 1].
    """
    change = (to_rgb(images, levels) - to_rgb(reference, levels)).mean(axis=-1)
    share = change if limit is None else change * ((levels - 1) / limit)
    coloured: NDArray[np.float64] = np.asarray(colormaps[DIVERGING]((share + 1) / 2))[..., :3]
    return coloured


def add_difference_bar(
    figure: Figure, place: Axes, levels: int = 256, limit: float | None = None
) -> None:
    """Put the scale of :func:`colour_differences` into axes of its own.

    Args:
        figure: The figure.
        place: The axes.
        levels: Number of grey levels.
        limit: Grey levels of the darkest colours; the whole range if left out.
    """
    most = levels - 1 if limit is None else limit
    extend = "both" if most < levels - 1 else "neither"
    mappable = ScalarMappable(Normalize(-most, most), colormaps[DIVERGING])
    bar = figure.colorbar(mappable, cax=place, extend=extend)
    bar.set_label("change of grey level", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def inches_per_pixel(width: int, least: float = 0.95) -> float:
    """The scale at which an image is large enough to see, and none of its pixels is lost.

    Args:
        width: Of an image, in pixels.
        least: Its least width, in inches.

    Example:
        >>> round(28 * inches_per_pixel(28), 2)
        0.95
    """
    return max(least, width / _DOTS_PER_INCH) / width


def tile(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images ``(rows, columns, H, W, 3)`` on one white canvas, :data:`GAP` pixels apart.

    Example:
        >>> tile(np.zeros((2, 5, 8, 8, 3))).shape
        (19, 52, 3)
    """
    rows, columns, height, width, _ = cells.shape
    space = ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0))
    padded = np.pad(cells, space, constant_values=1.0)
    canvas = padded.transpose(0, 2, 1, 3, 4)
    canvas = canvas.reshape(rows * (height + GAP), columns * (width + GAP), 3)
    return canvas[:-GAP, :-GAP]


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
