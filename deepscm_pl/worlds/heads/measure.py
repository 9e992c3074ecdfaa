"""Measurement of brain and ventricle volumes in images of heads."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from deepscm_pl.worlds.heads.grid import Floats, HeadGrid

__all__ = ["HeadMeasurements", "measure_heads"]

_FLUID, _GREY, _VENTRICLE = 0.245, 0.605, 0.208
"""Grey levels of tissues, relative to white matter."""


class HeadMeasurements(NamedTuple):
    """Volumes in mm³, ``(N,)`` each; NaN for images without a brain."""

    brain_volume: NDArray[np.float64]
    ventricle_volume: NDArray[np.float64]


def measure_heads(images: ArrayLike, grid: HeadGrid) -> HeadMeasurements:
    """Measure volumes by a segmentation of brain and ventricles that is based on grey levels.

    The bright tissue in the centre is white matter. The brain is the region that is connected to it
    and brighter than half-way between fluid and grey matter, with holes filled. The ventricles are
    the dark holes at least 18 mm below its surface. Pixels or voxels at a border count in part, by
    linear interpolation between the grey levels of the two tissues; a quadratic fit to the
    surrounding white matter gives the reference level inside of a ventricle. Ventricles
    thinner than two pixels are underestimated, the more so the thinner they are.

    Args:
        images: Grey levels, ``(N, *grid.shape)``, as integers or fractions.
        grid: Positions of the pixels or voxels.

    Raises:
        ValueError: If the shape differs or a grey level is not finite.
    """
    heads = np.asarray(images, dtype=np.float32)
    if heads.ndim != 1 + grid.dimensions or heads.shape[1:] != grid.shape:
        raise ValueError(
            f"images: expected shape (N, {', '.join(map(str, grid.shape))}), but got {heads.shape}."
        )
    if not np.isfinite(heads).all():
        raise ValueError("images: expected finite grey levels, but got NaN or infinite ones.")
    found = np.array([_measure(head, grid) for head in heads]).reshape(-1, 2)
    return HeadMeasurements(found[:, 0], found[:, 1])


def _measure(head: Floats, grid: HeadGrid) -> tuple[float, float]:
    places = grid.coordinates().reshape(grid.dimensions, *grid.shape)
    right, forward, *up = np.abs(places)
    middle = (right < 45) & (forward < 55) & (up[0] < 40 if up else True)
    white = float(np.quantile(head[middle], 0.7))
    if white < 30:
        return np.nan, np.nan
    whole = _brain(head, middle, white)
    if whole is None:
        return np.nan, np.nan
    fluid, grey = _FLUID * white, _GREY * white
    border = ndimage.binary_dilation(whole) & ~ndimage.binary_erosion(whole)
    share = np.clip((head - fluid) / (grey - fluid), 0, 1)
    brain = np.where(border, share, whole).sum() * grid.brain_per_voxel
    return float(brain), _ventricles(head, whole, white, grid) * grid.ventricle_per_voxel


def _brain(head: Floats, middle: NDArray[np.bool_], white: float) -> NDArray[np.bool_] | None:
    """Tissue connected to the bright centre, with holes filled; None if there is none."""
    tissue, _ = ndimage.label(head > (_FLUID + _GREY) / 2 * white)
    names, counts = np.unique(tissue[middle & (tissue > 0)], return_counts=True)
    if not len(names):
        return None
    return ndimage.binary_fill_holes(tissue == names[np.argmax(counts)])


def _ventricles(head: Floats, whole: NDArray[np.bool_], white: float, grid: HeadGrid) -> float:
    """Number of pixels or voxels of the dark holes deep in the brain, with borders in part."""
    inner = ndimage.binary_erosion(whole, iterations=max(1, round(18 / grid.spacing)))
    contrast = 1 - _VENTRICLE
    dark = ndimage.binary_dilation(inner & (head < (1 - 0.35 * contrast) * white), iterations=2)
    white_matter = inner & ~dark
    around = np.full_like(head, white)
    around[inner] = _white_matter(head, white_matter, inner, white, grid)
    share = (around - head) / (contrast * around)
    near = ndimage.binary_dilation(inner & (share > 0.2)) & inner
    # The limits leave room for noise: clipped at 0, the noise of white matter would add up to
    # some fluid everywhere.
    return max(0.0, float(np.clip(share[near], -0.1, 1.05).sum()))


def _white_matter(
    head: Floats,
    white_matter: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    white: float,
    grid: HeadGrid,
) -> Floats:
    """Grey level of white matter at the wanted positions, by a quadratic fit to the known ones.

    The bias field changes it by a few percent over the head; without the correction, the error at
    the border of a ventricle would be as large as a small ventricle.
    """
    places = grid.coordinates()[:, wanted.ravel()] / np.float32(grid.extent / 4)
    pairs = combinations_with_replacement(places, 2)
    terms = np.stack([np.ones_like(places[0]), *places, *(a * b for a, b in pairs)], axis=1)
    known = white_matter[wanted]
    if known.sum() < 2 * terms.shape[1]:
        return np.full(len(known), white, dtype=np.float32)
    coefficients, *_ = np.linalg.lstsq(terms[known], head[white_matter], rcond=None)
    return np.clip(terms @ coefficients, 0.8 * white, 1.2 * white)
