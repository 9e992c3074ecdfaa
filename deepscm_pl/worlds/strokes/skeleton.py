"""Medial axes of shapes: the centres of the largest disks that fit inside."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from deepscm_pl.worlds.strokes.raster import Masks, Measures

__all__ = ["distance_to_background", "medial_axis"]

_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def distance_to_background(masks: Masks) -> Measures:
    """Euclidean distance from each pixel of masks ``(N, H, W)`` to the nearest background pixel.

    Distances are from centre to centre. The surroundings of a mask are background.
    """
    count, height, width = masks.shape
    # A background row separates the masks, so that one transform is enough for all.
    mosaic = np.pad(masks, ((0, 0), (1, 0), (1, 1))).reshape(count * (height + 1), width + 2)
    distances: Measures = distance_transform_edt(np.pad(mosaic, ((0, 1), (0, 0))))
    return distances[:-1].reshape(count, height + 1, width + 2)[:, 1:, 1:-1]


def medial_axis(masks: Masks, distances: Measures) -> Masks:
    """Thin shapes ``(N, H, W)`` to their medial axis, one pixel wide and equally connected.

    Foreground pixels are visited in order of their distance to the background, and among equal
    distances those with more foreground neighbours first. A pixel is removed unless its removal
    would disconnect its neighbours or shorten the end of a line. Pixels of equal rank that do not
    touch are removed together, in all images at once. ``distances`` are those of
    :func:`distance_to_background`.
    """
    # In C order, so that the flattened array is a view.
    remaining = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.uint8, order="C")
    stride = remaining.shape[2]
    offsets = np.array([row * stride + column for row, column in _NEIGHBOURS])
    flat = remaining.reshape(-1)
    removable = _removable()
    for pixels in _ranks(remaining, offsets, distances[masks]):
        neighbours = np.packbits(flat[pixels[:, None] + offsets], axis=1, bitorder="little")[:, 0]
        flat[pixels[removable[neighbours]]] = 0
    return remaining[:, 1:-1, 1:-1].astype(bool)


def _ranks(
    remaining: NDArray[np.uint8], offsets: NDArray[np.intp], distances: Measures
) -> list[NDArray[np.intp]]:
    """Groups of foreground pixels of equal rank, in order; no two pixels of a group touch."""
    flat = remaining.reshape(-1)
    pixels = np.flatnonzero(flat)
    if not len(pixels):
        return []
    exposure = 8 - flat[pixels[:, None] + offsets].sum(axis=1, dtype=np.int64)
    squared = np.rint(distances**2).astype(np.int64)
    _, rows, columns = np.unravel_index(pixels, remaining.shape)
    parity = rows % 2 * 2 + columns % 2
    rank = (squared * 9 + exposure) * 4 + parity
    order = np.argsort(rank, kind="stable")
    return np.split(pixels[order], np.flatnonzero(np.diff(rank[order])) + 1)


@cache
def _removable() -> Masks:
    """Whether the centre of each of the 256 neighbourhoods can be removed.

    It can if it has two or more connected neighbours and a background pixel beside it.
    """
    removable = np.zeros(256, dtype=bool)
    for code in range(256):
        neighbours = np.zeros((3, 3), dtype=int)
        for bit, (row, column) in enumerate(_NEIGHBOURS):
            neighbours[1 + row, 1 + column] = code >> bit & 1
        parts = label(neighbours, structure=np.ones((3, 3)))[1]
        enclosed = neighbours[[0, 1, 1, 2], [1, 0, 2, 1]].all()
        removable[code] = parts == 1 and neighbours.sum() >= 2 and not enclosed
    return removable
