"""Dilation, erosion and the medial axis, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepscm_pl.worlds.strokes.raster import (
    dilate,
    enlarge,
    erode,
    interpolate,
    reduce,
    reduced_disk,
)
from deepscm_pl.worlds.strokes.skeleton import distance_to_background, medial_axis


def random_masks(seed: int, size: tuple[int, int, int] = (3, 37, 41)) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).standard_normal(size)
    return ndimage.gaussian_filter(noise, (0, 2, 2)) > 0.1


def footprint(half_widths: list[int]) -> NDArray[np.bool_]:
    radius = len(half_widths) - 1
    widths = np.array(half_widths[:0:-1] + half_widths)
    return np.abs(np.arange(-half_widths[0], half_widths[0] + 1)) <= widths[:, None] * np.ones(
        (2 * radius + 1, 1)
    )


@pytest.mark.parametrize("half_widths", [[0], [3], [2, 2, 1], [5, 4, 4, 2, 0], reduced_disk(9)])
def test_dilation_and_erosion(half_widths: list[int]) -> None:
    element = footprint(half_widths)
    specks = np.random.default_rng(0).random((3, 37, 41)) < 0.005
    for mask in (*random_masks(0), *specks, *~specks):
        np.testing.assert_array_equal(
            dilate(mask, half_widths), ndimage.binary_dilation(mask, element)
        )
        np.testing.assert_array_equal(
            erode(mask, half_widths), ndimage.binary_erosion(mask, element, border_value=1)
        )


def test_a_reduced_disk_lies_between_disk_and_square() -> None:
    for radius in range(40):
        half_widths = np.array(reduced_disk(radius))
        disk = np.floor(np.sqrt(radius**2 - np.arange(radius + 1) ** 2))
        assert len(half_widths) == radius + 1
        assert (half_widths >= disk).all()
        assert (half_widths <= radius).all()
        assert (np.diff(half_widths) <= 0).all()


def test_distances() -> None:
    masks = random_masks(1)
    masks[0] = True
    expected = [ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] for mask in masks]
    np.testing.assert_allclose(distance_to_background(masks), np.stack(expected))


def test_the_medial_axis_is_thin_and_keeps_parts_and_holes() -> None:
    masks = random_masks(2)
    axes = medial_axis(masks, distance_to_background(masks))
    touching = np.ones((3, 3))
    for mask, axis in zip(masks, axes, strict=True):
        assert not (axis & ~mask).any()
        assert ndimage.label(axis, touching)[1] == ndimage.label(mask, touching)[1]
        assert ndimage.label(~np.pad(axis, 1))[1] == ndimage.label(~np.pad(mask, 1))[1]
        squares = axis[1:, 1:] & axis[1:, :-1] & axis[:-1, 1:] & axis[:-1, :-1]
        assert squares.sum() <= 0.02 * axis.sum()


def thin_pixel_by_pixel(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Medial axis by its definition, one pixel at a time."""
    touching = np.ones((3, 3))
    axis = np.pad(mask, 1)
    squared = np.rint(ndimage.distance_transform_edt(axis) ** 2)
    exposed = 9 - ndimage.convolve(axis.astype(int), touching.astype(int), mode="constant")
    rows, columns = np.nonzero(axis)
    order = np.lexsort((columns % 2, rows % 2, exposed[axis], squared[axis]))
    for row, column in zip(rows[order], columns[order], strict=True):
        window = axis[row - 1 : row + 2, column - 1 : column + 2].copy()
        window[1, 1] = False
        enclosed = window[[0, 1, 1, 2], [1, 0, 2, 1]].all()
        if ndimage.label(window, touching)[1] == 1 and window.sum() > 1 and not enclosed:
            axis[row, column] = False
    return axis[1:-1, 1:-1]


def test_the_medial_axis_equals_sequential_thinning() -> None:
    masks = random_masks(3)
    axes = medial_axis(masks, distance_to_background(masks))
    fortran = np.asfortranarray(masks)
    np.testing.assert_array_equal(axes, medial_axis(fortran, distance_to_background(fortran)))
    np.testing.assert_array_equal(axes, np.stack([thin_pixel_by_pixel(mask) for mask in masks]))


def test_the_medial_axis_of_a_bar_is_its_centre_line_and_its_corners() -> None:
    bar = np.ones((1, 9, 41), dtype=bool)
    axis = medial_axis(bar, distance_to_background(bar))[0]
    np.testing.assert_array_equal(np.flatnonzero(axis[4]), np.arange(4, 37))
    for row in (0, 1, 2, 3, 5, 6, 7, 8):
        distance = min(row, 8 - row)
        np.testing.assert_array_equal(np.flatnonzero(axis[row]), [distance, 40 - distance])


def test_reducing_undoes_enlarging_of_a_smooth_image() -> None:
    y, x = np.mgrid[:28, :28]
    image = (255 * np.exp(-((x - 14) ** 2 + (y - 12) ** 2) / 50))[None].astype(np.float32)
    for scale in (4, 16):
        assert enlarge(image, scale).shape == interpolate(image, scale).shape
        restored = reduce(enlarge(image, scale), scale)
        assert np.abs(restored - image).max() < 6
        np.testing.assert_allclose(reduce(interpolate(image, scale), scale), image, atol=4)
