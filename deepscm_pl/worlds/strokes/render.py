"""Rendering of digits with a stroke of given thickness and intensity.

The pipeline of Pawlowski et al. (2020, arXiv:2006.06485) with the operations of Morpho-MNIST
(Castro et al. 2019, arXiv:1809.01181), fast enough to render a data set on one core.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.worlds.strokes.morphometrics import (
    CHUNK,
    binarise,
    check_images,
    measure_intensity,
    thickness_of_masks,
)
from deepscm_pl.worlds.strokes.raster import (
    Images,
    Masks,
    Measures,
    dilate,
    enlarge,
    erode,
    interpolate,
    reduce,
    reduced_disk,
)

__all__ = ["redraw", "set_intensity", "set_thickness"]

_MEASURING_SCALE = 4
_DRAWING_SCALE = 16

_FAINTEST = 128
"""Least grey level of the brightest pixel after erosion."""


def set_thickness(image: ArrayLike, thickness: ArrayLike) -> NDArray[np.uint8]:
    r"""Redraw digits in full intensity with the given mean stroke thickness.

    The image is enlarged 16 times and binarised at half of its range. With the measured thickness
    :math:`t_0`, the shape is dilated or eroded by a disk of radius :math:`\lfloor 16 \, |t - t_0|
    / 2 \rfloor`, and reduced again. Erosion stops before the stroke vanishes: the thinnest digit
    keeps a pixel of half intensity. A black image stays black.

    Args:
        image: Grey levels 0 to 255, ``(H, W)`` or ``(N, H, W)``; batches are faster.
        thickness: In pixels, positive; a number or ``(N,)``.

    Example:
        >>> from deepscm_pl.worlds.strokes import measure
        >>> bar = np.zeros((28, 28), dtype=np.uint8)
        >>> bar[4:24, 12:15] = 255
        >>> [round(float(measure(set_thickness(bar, t)[None]).thickness[0])) for t in (2, 4, 6)]
        [2, 4, 6]
    """
    expected = "positive and finite, in pixels"
    return redraw(
        image, "thickness", thickness, expected, lambda t: (t > 0) & np.isfinite(t), _change_strokes
    )


def set_intensity(image: ArrayLike, intensity: ArrayLike) -> NDArray[np.uint8]:
    """Scale the grey levels of digits such that :func:`measure_intensity` gives the intensity.

    Grey levels are clipped at 255 and truncated to whole numbers. A black image stays black.
    """
    expected = "within 0 to 255 grey levels"
    return redraw(
        image, "intensity", intensity, expected, lambda i: (i >= 0) & (i <= 255), _change_intensity
    )


def redraw(
    image: ArrayLike,
    name: str,
    values: ArrayLike,
    expected: str,
    is_valid: Callable[[Measures], Masks],
    draw: Callable[[Images, Measures], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    """Draw digits ``(H, W)`` or ``(N, H, W)`` again with given values of an attribute.

    Args:
        image: Grey levels 0 to 255.
        name: The attribute, for messages.
        values: A number or ``(N,)``.
        expected: The range of the attribute in words, for messages.
        is_valid: Whether each of the values ``(N,)`` is in the range.
        draw: Function of a few images ``(N, H, W)`` and values ``(N,)``.

    Raises:
        ValueError: If a shape does not fit, a grey level is not finite, or a value is not valid.
    """
    array, targets = np.asarray(image), np.asarray(values, dtype=np.float64)
    if array.ndim not in (2, 3):
        raise ValueError(f"image must be of shape (H, W) or (N, H, W), got {array.shape}.")
    batch = check_images(array if array.ndim == 3 else array[None])
    if targets.shape not in ((), (len(batch),)):
        raise ValueError(
            f"{name} must be a number or of shape ({len(batch)},), got {targets.shape}."
        )
    targets = np.broadcast_to(targets, (len(batch),))
    if not is_valid(targets).all():
        raise ValueError(f"{name} must be {expected}, got {targets}.")
    drawn = np.empty(batch.shape, dtype=np.uint8)
    for start in range(0, len(batch), CHUNK):
        part = slice(start, start + CHUNK)
        drawn[part] = draw(batch[part], targets[part])
    return drawn.reshape(array.shape)


def _change_intensity(images: Images, targets: Measures) -> NDArray[np.uint8]:
    found = measure_intensity(images)
    factors = targets / np.where(found > 0, found, 1.0)
    return np.clip(images * factors[:, None, None], 0, 255).astype(np.uint8)


def _change_strokes(images: Images, targets: Measures) -> NDArray[np.uint8]:
    enlarged = enlarge(images, _MEASURING_SCALE)
    found = thickness_of_masks(binarise(enlarged)) / _MEASURING_SCALE
    changes = np.nan_to_num(_DRAWING_SCALE * (targets - found) / 2)
    drawn = np.empty(images.shape, dtype=np.uint8)
    for row, change in enumerate(changes):
        larger = interpolate(enlarged[row : row + 1], _DRAWING_SCALE // _MEASURING_SCALE)
        drawn[row] = _grow(binarise(larger)[0], int(change))
    return drawn


def _grow(mask: Masks, change: int) -> NDArray[np.uint8]:
    """Draw a mask that is dilated by ``change`` pixels, or eroded if it is negative."""
    if change >= 0:
        return _shrunk(dilate(mask, reduced_disk(change)))
    for radius in range(-change, 0, -1):
        eroded = _shrunk(erode(mask, reduced_disk(radius)))
        if eroded.max() >= _FAINTEST:
            return eroded
    return _shrunk(mask)


def _shrunk(mask: Masks) -> NDArray[np.uint8]:
    """Draw a mask at the size of the original image."""
    reduced = reduce(mask[None].astype(np.float32), _DRAWING_SCALE)
    return np.clip(255 * reduced[0], 0, 255).astype(np.uint8)
