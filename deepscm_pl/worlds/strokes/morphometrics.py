"""Measurements of the shape and intensity of handwritten digits.

The definitions follow Castro et al., "Morpho-MNIST: Quantitative Assessment and Diagnostics for
Representation Learning" (2019, arXiv:1809.01181): each image is enlarged, binarised at half of its
range and measured on the enlarged grid; results are in pixels of the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from deepscm_pl.worlds.strokes.raster import Images, Masks, Measures, enlarge, grey_range
from deepscm_pl.worlds.strokes.skeleton import distance_to_background, medial_axis

__all__ = [
    "CHUNK",
    "Morphometrics",
    "Pose",
    "binarise",
    "check_images",
    "extents",
    "find_pose",
    "measure",
    "measure_intensity",
    "thickness_of_masks",
]

CHUNK = 64
"""Number of images processed together; small enough for the processor's cache."""

_OUTSIDE = 0.02
"""Share of the brightness outside the bounding parallelogram, both sides together."""


@dataclass(frozen=True)
class Morphometrics:
    """Measurements of N images, ``(N,)`` each; the shape of a black image is NaN."""

    area: Measures  # of the foreground, in square pixels
    length: Measures  # of the skeleton, in pixels
    thickness: Measures  # twice the mean distance from skeleton to background, in pixels
    slant: Measures  # angle of the shear, in radians, positive to the right
    width: Measures  # of the bounding parallelogram along the slant, in pixels
    height: Measures  # of the bounding parallelogram, in pixels
    intensity: Measures  # in grey levels, see measure_intensity


class Pose(NamedTuple):
    """Centroids of N shapes and their lean, in columns to the right per row; ``(N,)`` each."""

    row: Measures
    column: Measures
    lean: Measures


def measure(images: ArrayLike, scale: int = 4) -> Morphometrics:
    """Measure the shape and intensity of digits.

    Args:
        images: Grey levels 0 to 255, ``(N, H, W)``, as a NumPy array or a CPU tensor.
        scale: Factor by which images are enlarged before they are binarised.

    Example:
        >>> bar = np.zeros((1, 28, 28), dtype=np.uint8)
        >>> bar[0, 4:24, 12:16] = 255
        >>> found = measure(bar)
        >>> [round(float(x[0]), 1) for x in (found.area, found.width, found.height)]
        [79.8, 4.8, 19.9]
    """
    images = check_images(images)
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}.")
    starts = range(0, len(images), CHUNK)
    rows = [_measure_chunk(images[start : start + CHUNK], scale) for start in starts]
    shapes = np.concatenate([np.empty((6, 0)), *rows], axis=1)
    columns = [*shapes, measure_intensity(images)]
    return Morphometrics(*columns)


def measure_intensity(images: ArrayLike) -> Measures:
    """Median grey level of the pixels at or above half of the range of their image, ``(N,)``."""
    images = check_images(images)
    bright = images >= _middle(images)
    return np.array(
        [np.median(image[mask]) for image, mask in zip(images, bright, strict=True)], dtype=float
    )


def check_images(images: ArrayLike) -> Images:
    """Check the shape ``(N, H, W)`` and the finite numbers of images, and convert to float32."""
    array = np.asarray(images, dtype=np.float32)
    if array.ndim != 3:
        raise ValueError(
            f"images must be of shape (N, H, W), got {array.shape}; "
            "drop the channel dimension, or add one for the batch."
        )
    if not np.isfinite(array).all():
        raise ValueError("images must be finite, got NaN or infinity.")
    return array


def binarise(images: Images) -> Masks:
    """Masks ``(N, H, W)`` of the pixels at or above half of the range of their image.

    The mask of an image with a single grey level is empty.
    """
    middle = _middle(images)
    return (images >= middle) & (middle > grey_range(images)[0])


def thickness_of_masks(masks: Masks) -> Measures:
    """Mean thickness of the shapes in masks ``(N, H, W)``, in pixels; NaN for an empty mask."""
    distances = distance_to_background(masks)
    return _mean_thickness(medial_axis(masks, distances), distances)


def _middle(images: Images) -> Images:
    """Middle of the range of each image, ``(N, 1, 1)``."""
    low, high = grey_range(images)
    return low + (high - low) / np.float32(2)


def _measure_chunk(images: Images, scale: int) -> Measures:
    """Area, length, thickness, slant, width and height, ``(6, N)``."""
    enlarged = enlarge(images, scale)
    masks = binarise(enlarged)
    distances = distance_to_background(masks)
    skeletons = medial_axis(masks, distances)
    present = np.where(masks.any(axis=(1, 2)), 1.0, np.nan)
    thickness = _mean_thickness(skeletons, distances)
    pose = find_pose(enlarged)
    with np.errstate(invalid="ignore", divide="ignore"):
        width, height = extents(enlarged, pose)
    area, length = masks.sum(axis=(1, 2)) / scale, _length(skeletons)
    lengths = np.stack([area, length, thickness, width, height]) / scale
    return np.insert(lengths, 3, np.arctan(-pose.lean), axis=0) * present


def _mean_thickness(skeletons: Masks, distances: Measures) -> Measures:
    """Twice the mean distance from the skeleton to the background, ``(N,)``."""
    with np.errstate(invalid="ignore"):
        return 2 * ((distances * skeletons).sum(axis=(1, 2)) / skeletons.sum(axis=(1, 2)))


def _length(skeletons: Masks) -> Measures:
    """Length of skeletons, ``(N,)``: 1 for a straight step between pixels, √2 for a diagonal."""
    upper, lower = skeletons[:, :-1], skeletons[:, 1:]
    across = skeletons[:, :, :-1] & skeletons[:, :, 1:]
    straight = np.sum(across, axis=(1, 2)) + np.sum(upper & lower, axis=(1, 2))
    falling, rising = upper[..., :-1] & lower[..., 1:], upper[..., 1:] & lower[..., :-1]
    diagonal = np.sum(falling, axis=(1, 2)) + np.sum(rising, axis=(1, 2))
    return straight + np.sqrt(2) * diagonal


def find_pose(images: Images) -> Pose:
    """Centroid and lean of the brightness in images ``(N, H, W)``; NaN for a black image."""
    weights = images.astype(np.float64)
    total = weights.sum(axis=(1, 2))
    y, x = np.arange(images.shape[1]), np.arange(images.shape[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        rows, columns = weights.sum(axis=2) / total[:, None], weights.sum(axis=1) / total[:, None]
        row, column = rows @ y, columns @ x
        covariance = (weights * x).sum(axis=2) @ y / total - row * column
        return Pose(row, column, covariance / (rows @ y**2 - row**2))


def extents(images: Images, pose: Pose) -> tuple[Measures, Measures]:
    """Width and height of the bounding parallelogram, in pixels, ``(N,)`` each.

    The parallelogram leans as the shape does, and holds all but a small share of the brightness.
    """
    count, height, width = images.shape
    lean = pose.lean[:, None, None] * (np.arange(height)[:, None] - pose.row[:, None, None])
    position = np.nan_to_num(np.arange(width) + 0.5 - lean)
    column = np.clip(np.floor(position).astype(int), -1, width - 1) + 1
    cell = column + np.arange(count)[:, None, None] * (width + 1)
    columns = np.bincount(cell.ravel(), images.ravel(), count * (width + 1)).astype(np.float64)
    rows = np.pad(images.sum(axis=2, dtype=np.float64), ((0, 0), (1, 0)))
    return _extent(columns.reshape(count, width + 1)), _extent(rows)


def _extent(brightness: Measures) -> Measures:
    """Length that contains all but a small share of the brightness in cells ``(N, T)``."""
    cumulative = brightness.cumsum(axis=1)
    shares = cumulative / cumulative[:, -1:]
    ends = [_OUTSIDE / 2, 1 - _OUTSIDE / 2]
    return np.array([np.diff(np.interp(ends, row, np.arange(len(row))))[0] for row in shares])
