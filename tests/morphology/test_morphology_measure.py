"""Measurements of shapes with known properties."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from deepscm_pl.worlds.strokes import Morphometrics, measure, measure_intensity

from morphology_shapes import bar, ring

FIELDS = ("area", "length", "thickness", "slant", "width", "height")


@pytest.mark.parametrize("thickness", [2.0, 3.0, 4.5, 6.0])
def test_thickness_of_a_ring(thickness: float) -> None:
    found = measure(ring(8, thickness)[None]).thickness
    assert found == pytest.approx([thickness], abs=0.3)


def test_a_larger_scale_measures_thickness_more_accurately() -> None:
    rings = np.stack([ring(8, thickness) for thickness in (2.0, 3.0, 4.5)])
    coarse, fine = (np.abs(measure(rings, s).thickness - [2, 3, 4.5]).mean() for s in (2, 8))
    assert fine < coarse
    assert fine < 0.1


@pytest.mark.parametrize("thickness", [2.0, 4.0])
def test_length_of_a_ring_is_its_circumference(thickness: float) -> None:
    # Steps on a grid are up to 8 % longer than the circle.
    length = measure(ring(8, thickness)[None]).length[0]
    assert 2 * np.pi * 8 * 0.97 < length < 2 * np.pi * 8 * 1.1


@pytest.mark.parametrize("size", [(4.0, 20.0), (10.0, 12.0), (18.0, 8.0)])
def test_width_height_and_area_of_a_bar(size: tuple[float, float]) -> None:
    width, height = size
    found = measure(bar(width, height)[None])
    assert found.width == pytest.approx([width], abs=0.9)
    assert found.height == pytest.approx([height], abs=0.9)
    assert found.area == pytest.approx([width * height], rel=0.05)
    assert found.slant == pytest.approx([0], abs=1e-6)


@pytest.mark.parametrize("shear", [-0.5, -0.2, 0.3, 0.6])
def test_slant_and_width_of_a_sheared_bar(shear: float) -> None:
    found = measure(bar(5, 18, shear)[None])
    assert found.slant == pytest.approx([np.arctan(-shear)], abs=0.02)
    assert found.width == pytest.approx([5], abs=1.4)
    assert found.height == pytest.approx([18], abs=0.9)


def test_a_stroke_leaning_to_the_right_has_positive_slant() -> None:
    assert measure(np.eye(28)[None, ::-1] * 255).slant[0] > 0.5


def test_measures_do_not_depend_on_brightness_or_type() -> None:
    image = ring(8, 3)[None]
    dim = measure(image.astype(np.float64) * 0.3)
    for field in FIELDS:
        expected = getattr(measure(image), field)
        assert getattr(dim, field) == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert getattr(measure(torch.from_numpy(image)), field) == pytest.approx(expected)


def test_images_of_a_batch_are_measured_independently() -> None:
    images = np.stack([ring(8, 2), np.zeros((28, 28), np.uint8), bar(27.9, 27.9), ring(6, 4)] * 20)
    together = measure(images)
    for row in range(4):
        alone = measure(images[row : row + 1])
        for field in FIELDS:
            np.testing.assert_allclose(
                getattr(together, field)[row::4], getattr(alone, field)[0], atol=1e-9
            )


def test_a_black_image_measures_nan() -> None:
    found = measure(np.zeros((2, 28, 28), dtype=np.uint8))
    assert all(np.isnan(getattr(found, field)).all() for field in FIELDS)
    assert measure_intensity(np.zeros((2, 28, 28))).tolist() == [0, 0]


def test_no_images() -> None:
    found = measure(np.zeros((0, 28, 28)))
    assert isinstance(found, Morphometrics)
    assert found.thickness.shape == (0,)
    assert measure_intensity(np.zeros((0, 28, 28))).shape == (0,)


def test_images_need_not_be_square() -> None:
    image = ring(8, 3)
    wide = np.pad(image, ((0, 0), (6, 12)))
    assert measure(wide[None]).thickness == pytest.approx(measure(image[None]).thickness, rel=1e-3)


def test_intensity_is_the_median_of_the_bright_half() -> None:
    images = np.zeros((2, 4, 4))
    images[0, 0] = [99, 100, 150, 200]
    images[1] = 50
    images[1, 0] = [60, 80, 90, 100]
    assert measure_intensity(images).tolist() == [150, 90]


@pytest.mark.parametrize("shape", [(28,), (28, 28), (2, 1, 28, 28)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    for function in (measure, measure_intensity):
        with pytest.raises(ValueError, match=r"images must be of shape \(N, H, W\)"):
            function(np.zeros(shape))


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="images must be finite"):
        measure(np.full((1, 4, 4), np.nan))
    with pytest.raises(ValueError, match="scale must be at least 1"):
        measure(np.zeros((1, 4, 4)), scale=0)


def test_a_thousand_images_take_seconds() -> None:
    images = np.stack([ring(8, 3)] * 200)
    start = time.process_time()
    measure(images)
    assert 5 * (time.process_time() - start) < 10


def test_intensity_is_measured_with_the_rest() -> None:
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    images[0, 5:20, 10:14] = 130
    images[1, 5:20, 10:14] = 250
    assert measure(images).intensity.tolist() == [130, 250]
