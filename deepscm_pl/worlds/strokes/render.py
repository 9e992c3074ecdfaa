"""Rendering digits with a stroke of given thickness and intensity.

The pipeline of Pawlowski et al. (2020, arXiv:2006.06485) on Morpho-MNIST operations (Castro et al.
2019, arXiv:1809.01181), fast enough to render a data set on one core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.worlds.strokes.morphometrics import (
    binarise,
    grey_levels,
    measure_intensity,
    thickness_of_masks,
)
from deepscm_pl.worlds.strokes.raster import (
    dilate,
    enlarge,
    erode,
    interpolate,
    reduce,
    reduced_disk,
)

__all__ = ["as_batch", "as_targets", "set_intensity", "set_thickness"]

_MEASURING_SCALE = 4
_DRAWING_SCALE = 16

_FAINTEST = 128
"""The least that the brightest pixel may be after erosion, in grey levels."""

_CHUNK = 64
"""Images rendered together."""


def set_thickness(image: ArrayLike, thickness: ArrayLike) -> NDArray[np.uint8]:
    r"""Redraws digits, in full intensity, with a stroke of the given mean thickness.

    The image is enlarged 16 times and binarised at half of its range. With :math:`t_0` the measured
    thickness, the shape is dilated, or eroded, by a disk of radius :math:`\lfloor 16 \, |t - t_0|
    / 2 \rfloor`, and reduced again.

    Erosion stops where the stroke would vanish: a digit cannot be drawn thinner than one that
    keeps a pixel of half intensity. A black image has no stroke and stays black.

    Args:
        image: Grey levels 0 to 255, ``(H, W)``, or a batch ``(N, H, W)``, which is faster.
        thickness: In pixels: a number, or for a batch also ``(N,)``.

    Returns:
        Of the shape of ``image``, 0 to 255.

    Raises:
        ValueError: If the image is of another shape or not finite, if a thickness is not positive
            and finite, or if there is not one for each image.

    Example:
        >>> from deepscm_pl.worlds.strokes import measure
        >>> bar = np.zeros((28, 28), dtype=np.uint8)
        >>> bar[4:24, 12:15] = 255
        >>> [round(float(measure(set_thickness(bar, t)[None]).thickness[0])) for t in (2, 4, 6)]
        [2, 4, 6]
    """
    batch, shape = as_batch(image)
    targets = as_targets("thickness", thickness, len(batch))
    if not ((targets > 0) & np.isfinite(targets)).all():
        raise ValueError(f"thickness must be positive and finite, in pixels, got {targets}.")
    drawn = np.empty(batch.shape, dtype=np.uint8)
    for start in range(0, len(batch), _CHUNK):
        part = slice(start, start + _CHUNK)
        drawn[part] = _redraw(batch[part], targets[part])
    return drawn.reshape(shape)


def set_intensity(image: ArrayLike, intensity: ArrayLike) -> NDArray[np.uint8]:
    """Scales digits so that the median grey level of their bright pixels is the given one.

    What exceeds 255 is clipped, and grey levels are truncated to whole ones.

    Args:
        image: Grey levels 0 to 255, ``(H, W)``, or a batch ``(N, H, W)``.
        intensity: In grey levels, 0 to 255: a number, or for a batch also ``(N,)``.

    Returns:
        Of the shape of ``image``. A black image stays black.

    Raises:
        ValueError: If the image is of another shape or not finite, if an intensity is not within
            0 to 255, or if there is not one for each image.

    Example:
        >>> set_intensity([[0, 50, 100], [0, 100, 200]], 64)
        array([[  0,  32,  64],
               [  0,  64, 128]], dtype=uint8)
    """
    batch, shape = as_batch(image)
    targets = as_targets("intensity", intensity, len(batch))
    if not ((targets >= 0) & (targets <= 255)).all():
        raise ValueError(f"intensity must be within 0 to 255 grey levels, got {targets}.")
    found = measure_intensity(batch)
    factors = targets / np.where(found > 0, found, 1.0)
    return np.clip(batch * factors[:, None, None], 0, 255).astype(np.uint8).reshape(shape)


def as_batch(image: ArrayLike) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """One image or several as ``(N, H, W)``, and the shape that they came in.

    Args:
        image: ``(H, W)`` or ``(N, H, W)``.

    Raises:
        ValueError: If it is of another shape or not finite.
    """
    array = np.asarray(image)
    if array.ndim not in (2, 3):
        raise ValueError(f"image must be of shape (H, W) or (N, H, W), got {array.shape}.")
    return grey_levels(array if array.ndim == 3 else array[None]), array.shape


def as_targets(name: str, values: ArrayLike, count: int) -> NDArray[np.float64]:
    """One value for each image, ``(N,)``.

    Args:
        name: Of the values, for the message.
        values: A number, or ``(N,)``.
        count: N.

    Raises:
        ValueError: If there is not one value for each image.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name} must be a number or of shape ({count},), got {array.shape}.")
    return np.broadcast_to(array, (count,))


def _redraw(images: NDArray[np.float32], targets: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Images ``(N, H, W)`` with strokes of the given thickness."""
    enlarged = enlarge(images, _MEASURING_SCALE)
    found = thickness_of_masks(binarise(enlarged)) / _MEASURING_SCALE
    changes = np.nan_to_num(_DRAWING_SCALE * (targets - found) / 2)
    drawn = np.empty(images.shape, dtype=np.uint8)
    for row, change in enumerate(changes):
        larger = interpolate(enlarged[row : row + 1], _DRAWING_SCALE // _MEASURING_SCALE)
        drawn[row] = _grow(binarise(larger)[0], int(change))
    return drawn


def _grow(mask: NDArray[np.bool_], change: int) -> NDArray[np.uint8]:
    """The image of a mask dilated, or if ``change`` is negative eroded, by so many pixels."""
    if change >= 0:
        return _draw(dilate(mask, reduced_disk(change)))
    for radius in range(-change, 0, -1):
        eroded = _draw(erode(mask, reduced_disk(radius)))
        if eroded.max() >= _FAINTEST:
            return eroded
    return _draw(mask)


def _draw(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image of a mask, reduced to the size of the original."""
    reduced = reduce(mask[None].astype(np.float32), _DRAWING_SCALE)
    drawn: NDArray[np.uint8] = np.clip(255 * reduced[0], 0, 255).astype(np.uint8)
    return drawn
