"""Volumes measured in images of heads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from deepscm_pl.phantom.grid import HeadGrid

__all__ = ["HeadMeasurements", "measure_heads"]

_Array = NDArray[np.float32]


class HeadMeasurements(NamedTuple):
    """What is found in images of heads.

    Attributes:
        brain_volume: ``(N,)``, in mm³; nan where there is no brain.
        ventricle_volume: ``(N,)``, in mm³; nan likewise.
    """

    brain_volume: NDArray[np.float64]
    ventricle_volume: NDArray[np.float64]


def measure_heads(images: ArrayLike, grid: HeadGrid) -> HeadMeasurements:
    """Segments brain and ventricles by their grey levels, and adds up their elements.

    White matter is the bright tissue in the middle; what is connected to it and at least as bright
    as half-way between fluid and grey matter, holes filled, is the brain; dark holes within are
    the ventricles. Elements at a border count by how far their grey level is from one tissue to
    the other.

    Args:
        images: Grey levels, ``(N, *grid.shape)``, whole or not.
        grid: Where the elements lie.

    Raises:
        ValueError: If the images are of another shape or not finite.
    """
    heads = np.asarray(images, dtype=np.float32)
    if heads.ndim != 1 + grid.dimensions or heads.shape[1:] != grid.shape:
        raise ValueError(
            f"images: expected shape (N, {', '.join(map(str, grid.shape))}), but got {heads.shape}."
        )
    if not np.isfinite(heads).all():
        raise ValueError("images: expected finite grey levels, but got nan or infinite ones.")
    found = np.array([_measure(head, grid) for head in heads]).reshape(-1, 2)
    return HeadMeasurements(found[:, 0], found[:, 1])


def _measure(head: _Array, grid: HeadGrid) -> tuple[float, float]:
    place = np.abs(grid.coordinates()).reshape(grid.dimensions, *grid.shape)
    middle = (place[0] < 45) & (place[1] < 55) & (place[-1] < 40 if grid.dimensions == 3 else True)
    white = float(np.quantile(head[middle], 0.7))
    if white < 30:
        return np.nan, np.nan
    fluid, grey = 0.245 * white, 0.605 * white
    tissue, _ = ndimage.label(head > (fluid + grey) / 2)
    names, counts = np.unique(tissue[middle & (tissue > 0)], return_counts=True)
    if not len(names):
        return np.nan, np.nan
    solid = tissue == names[np.argmax(counts)]
    whole = ndimage.binary_fill_holes(solid)
    border = ndimage.binary_dilation(whole) & ~ndimage.binary_erosion(whole)
    share = np.clip((head - fluid) / (grey - fluid), 0, 1)
    brain = np.where(border, share, whole).sum() * grid.brain_element
    inner = ndimage.binary_erosion(whole, iterations=max(1, round(14 / grid.spacing)))
    dark = np.clip((white - head) / (white - 0.85 * fluid), 0, 1)
    core, _ = ndimage.label(inner & (dark > 0.35))
    near = ndimage.binary_dilation(core > 0) & inner
    return float(brain), float((dark * near).sum() * grid.ventricle_element)
