"""Rendered digits have the requested attributes and agree with the reference."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.data import ThicknessIntensityWorld, read_attributes, read_idx
from deepscm_pl.worlds.strokes import measure, measure_intensity, set_intensity, set_thickness

from morphology_shapes import bar, ring

THICKNESSES = np.array([2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0])


@pytest.fixture
def real_data() -> Path:
    """Folder with MNIST and morphomnist, from the environment variable DEEPSCM_DATA."""
    folder = os.environ.get("DEEPSCM_DATA")
    if not folder:
        pytest.skip("DEEPSCM_DATA does not name a folder with MNIST and morphomnist")
    return Path(folder)


@pytest.mark.parametrize("drawn", [2.0, 4.0])
def test_thickness_is_the_target(drawn: float) -> None:
    rings = np.stack([ring(8, drawn)] * len(THICKNESSES))
    found = measure(set_thickness(rings, THICKNESSES)).thickness
    np.testing.assert_allclose(found, THICKNESSES, atol=0.35)


def test_brightness_rises_with_thickness() -> None:
    bars = np.stack([bar(4, 20)] * len(THICKNESSES))
    assert (np.diff(set_thickness(bars, THICKNESSES).sum(axis=(1, 2), dtype=int)) > 0).all()


def test_the_measured_thickness_hardly_changes_an_image() -> None:
    for image in (ring(8, 3), ring(7, 5), bar(4, 20)):
        own = measure(image[None]).thickness[0]
        drawn = set_thickness(image, own)
        assert np.abs(drawn.astype(float) - image).mean() < 4


def test_thickening_only_adds_and_thinning_only_removes() -> None:
    image = ring(8, 3)
    same, thick, thin = (set_thickness(image, t).astype(int) for t in (3.2, 5, 2))
    assert (thick >= same - 1).all()
    assert (thin <= same + 1).all()


@pytest.mark.parametrize("thickness", [1e-3, 0.3])
def test_erosion_leaves_a_digit(thickness: float) -> None:
    for image in (ring(8, 2), ring(8, 6), bar(1, 12)):
        drawn = set_thickness(image, thickness)
        assert drawn.max() >= 128
        assert measure(drawn[None]).thickness[0] <= measure(image[None]).thickness[0] + 0.3


def test_a_black_image_stays_black() -> None:
    black = np.zeros((28, 28), dtype=np.uint8)
    with np.errstate(divide="raise"):
        assert not set_thickness(black, 3).any()
        assert not set_intensity(black, 200).any()


def test_a_batch_is_rendered_like_single_images() -> None:
    images = np.stack([ring(8, 2), ring(6, 4), bar(3, 20)] * 30)
    targets = np.linspace(1, 6, len(images))
    drawn = set_thickness(images, targets)
    for row in (0, 50, 89):
        np.testing.assert_array_equal(drawn[row], set_thickness(images[row], targets[row]))
    np.testing.assert_array_equal(set_thickness(images[:2], 3.0)[1], set_thickness(images[1], 3.0))


@pytest.mark.parametrize("intensity", [0.0, 64.0, 100.7, 177.0, 254.9])
def test_intensity_is_the_target_truncated(intensity: float) -> None:
    drawn = set_intensity(set_thickness(ring(8, 3), 3.0), intensity)
    assert drawn.dtype == np.uint8
    assert intensity - 1 <= measure_intensity(drawn[None])[0] <= intensity


def test_scaling_clips() -> None:
    assert set_intensity(np.array([[0, 100, 120, 240]]), 250).max() == 255


@pytest.mark.parametrize("thickness", [0, -1, np.nan, np.inf])
def test_wrong_thickness(thickness: float) -> None:
    with pytest.raises(ValueError, match="thickness must be positive and finite"):
        set_thickness(ring(8, 3), thickness)


@pytest.mark.parametrize("intensity", [-1, 256, np.nan])
def test_wrong_intensity(intensity: float) -> None:
    with pytest.raises(ValueError, match="intensity must be within 0 to 255"):
        set_intensity(ring(8, 3), intensity)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"image must be of shape \(H, W\) or \(N, H, W\)"):
        set_thickness(np.zeros((1, 1, 28, 28)), 3)
    with pytest.raises(ValueError, match=r"thickness must be a number or of shape \(2,\)"):
        set_thickness(np.zeros((2, 28, 28)), np.ones(3))
    with pytest.raises(ValueError, match=r"intensity must be a number or of shape \(1,\)"):
        set_intensity(np.zeros((28, 28)), np.ones(3))


def test_reference_images(real_data: Path) -> None:
    """Training images of Morpho-MNIST from the reference pipeline."""
    path = real_data / "morphomnist" / "train-morpho.csv"
    attributes = read_attributes(path, ThicknessIntensityWorld())
    reference = read_idx(real_data / "morphomnist" / "train-images-idx3-ubyte.gz", dimensions=3)
    originals = read_idx(real_data / "MNIST" / "raw" / "train-images-idx3-ubyte", dimensions=3)
    rows = np.random.default_rng(0).choice(len(originals), 1000, replace=False)
    thickness, intensity = attributes["thickness"][rows], attributes["intensity"][rows]
    start = time.process_time()
    drawn = set_intensity(set_thickness(originals[rows], thickness), intensity)
    assert (time.process_time() - start) / len(rows) < 0.01
    assert np.abs(drawn.astype(float) - reference[rows]).mean() < 0.6
    noise_floor = np.abs(measure(reference[rows]).thickness - thickness).mean()
    assert np.abs(measure(drawn).thickness - thickness).mean() < 1.05 * noise_floor
    assert np.abs(measure_intensity(drawn) - intensity).mean() < 0.6
