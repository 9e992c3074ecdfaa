"""Deformed digits have the requested slant and width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data import read_idx
from deepscm_pl.worlds.strokes import measure, set_slant, set_width

from morphology_shapes import bar, ring

SLANTS = np.array([-0.5, -0.2, 0.0, 0.3, 0.5])
WIDTHS = np.array([9.0, 12.0, 16.0, 20.0, 22.0])
SHAPES = [ring(7, 3), bar(8, 18), bar(6, 16, 0.3), bar(12, 10, -0.2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_slant_is_the_target(shape: np.ndarray) -> None:
    sheared = set_slant(np.stack([shape] * len(SLANTS)), SLANTS)
    assert sheared.dtype == np.uint8
    np.testing.assert_allclose(measure(sheared).slant, SLANTS, atol=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_width_is_the_target_and_slant_is_kept(shape: np.ndarray) -> None:
    before, scaled = measure(shape[None]), set_width(np.stack([shape] * len(WIDTHS)), WIDTHS)
    np.testing.assert_allclose(measure(scaled).width, WIDTHS, atol=0.9)
    np.testing.assert_allclose(measure(scaled).slant, before.slant[0], atol=0.02)
    np.testing.assert_allclose(measure(scaled).height, before.height[0], atol=0.3)


def test_shearing_moves_within_rows_about_the_centroid() -> None:
    shape = bar(6, 16)
    sheared = set_slant(shape, 0.5).astype(float)
    # Except the ends, which are smoothed.
    np.testing.assert_allclose(sheared.sum(axis=1)[8:20], shape.sum(axis=1)[8:20], atol=5)
    mass = sheared.sum(axis=0)
    assert mass @ np.arange(28) / mass.sum() == pytest.approx(13.5, abs=0.05)
    # The top moves right, the bottom left.
    assert sheared[7] @ np.arange(28) / sheared[7].sum() > 16
    assert sheared[20] @ np.arange(28) / sheared[20].sum() < 11


@pytest.mark.parametrize("shape", SHAPES)
def test_the_measured_slant_and_width_hardly_change_an_image(shape: np.ndarray) -> None:
    own = measure(shape[None])
    for drawn in (set_slant(shape, own.slant[0]), set_width(shape, own.width[0])):
        assert np.abs(drawn.astype(float) - shape).mean() < 5


def test_a_batch_is_deformed_like_single_images() -> None:
    images = np.stack(SHAPES * 20)
    slants, widths = np.linspace(-0.4, 0.4, 80), np.linspace(8, 20, 80)
    sheared, scaled = set_slant(images, slants), set_width(images, widths)
    for row in (0, 30, 79):
        np.testing.assert_array_equal(sheared[row], set_slant(images[row], slants[row]))
        np.testing.assert_array_equal(scaled[row], set_width(images[row], widths[row]))
    np.testing.assert_array_equal(set_slant(images, 0.1)[1], set_slant(images[1], 0.1))


def test_a_black_image_stays_black() -> None:
    images = np.stack([np.zeros((28, 28), dtype=np.uint8), SHAPES[0]])
    assert not set_slant(images, 0.3)[0].any()
    assert not set_width(images, 12)[0].any()
    np.testing.assert_array_equal(set_width(images, 12)[1], set_width(SHAPES[0], 12))


def test_images_need_not_be_square() -> None:
    wide = np.pad(SHAPES[1], ((0, 0), (5, 7)))
    assert measure(set_slant(wide, 0.4)[None]).slant == pytest.approx([0.4], abs=0.01)
    assert measure(set_width(wide, 14.0)[None]).width == pytest.approx([14], abs=0.5)


@pytest.mark.parametrize("slant", [-1.6, np.pi / 2, np.nan, np.inf])
def test_wrong_slant(slant: float) -> None:
    with pytest.raises(ValueError, match="slant must be between -π/2 and π/2 radians"):
        set_slant(SHAPES[0], slant)


@pytest.mark.parametrize("width", [0, -1, 28.5, np.nan, np.inf])
def test_wrong_width(width: float) -> None:
    with pytest.raises(ValueError, match="width must be above 0 and at most 28, in pixels"):
        set_width(SHAPES[0], width)


@pytest.mark.parametrize("function", [set_slant, set_width])
def test_wrong_shapes(function) -> None:
    with pytest.raises(ValueError, match=r"image must be of shape \(H, W\) or \(N, H, W\)"):
        function(np.zeros((1, 1, 28, 28)), 1.0)
    with pytest.raises(ValueError, match=r"must be a number or of shape \(2,\)"):
        function(np.zeros((2, 28, 28)), np.ones(3))
    with pytest.raises(ValueError, match="images must be finite"):
        function(np.full((28, 28), np.nan), 1.0)


def test_real_digits(real_data: Path) -> None:
    """The errors are as small as the documentation states."""
    raw = real_data / "MNIST" / "raw"
    digits = read_idx(raw / "t10k-images-idx3-ubyte", dimensions=3)[::50]
    labels = read_idx(raw / "t10k-labels-idx1-ubyte", dimensions=1)[::50]
    for slant in (-0.4, 0.0, 0.4):
        errors = np.abs(measure(set_slant(digits, slant)).slant - slant)
        assert errors.mean() < 0.006
        assert np.quantile(errors, 0.95) < 0.015
    for width in (12.0, 16.0, 20.0):
        errors = np.abs(measure(set_width(digits, width)).width - width)[labels != 1]
        assert errors.mean() < 0.5
        assert np.quantile(errors, 0.95) < 0.8
