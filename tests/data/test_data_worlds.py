"""The world of thickness and intensity knows its own densities."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from deepscm_pl.data import ThicknessIntensityWorld, read_attributes
from deepscm_pl.morphology import measure_intensity

WORLDS = [ThicknessIntensityWorld(), ThicknessIntensityWorld(slope=-2, centre=2, spread=0.3)]


@pytest.fixture
def real_data() -> Path:
    """The folder with MNIST and morphomnist, of the environment variable DEEPSCM_DATA."""
    folder = os.environ.get("DEEPSCM_DATA")
    if not folder:
        pytest.skip("DEEPSCM_DATA does not name a folder with MNIST and morphomnist")
    return Path(folder)


@pytest.mark.parametrize("world", WORLDS)
def test_densities_integrate_to_one(world: ThicknessIntensityWorld) -> None:
    total, _ = quad(lambda t: np.exp(world.log_prob_thickness(t)), 0, 30)
    assert total == pytest.approx(1, abs=1e-6)
    for thickness in (1.0, 2.5, 4.0):
        total, _ = quad(
            lambda i, t=thickness: np.exp(world.log_prob_intensity(i, t)), 64, 255, limit=200
        )
        assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_samples_follow_the_densities(world: ThicknessIntensityWorld) -> None:
    sample = world.sample(20000, np.random.default_rng(0))
    thickness, intensity = sample["thickness"], sample["intensity"]
    assert thickness.mean() == pytest.approx(2.5, abs=0.02)
    assert thickness.var() == pytest.approx(0.4, abs=0.02)
    share = (intensity - 64) / 191
    noise = np.log(share / (1 - share)) - world.slope * (thickness - world.centre)
    assert noise.std() / world.spread == pytest.approx(1, abs=0.02)
    assert np.corrcoef(noise, thickness)[0, 1] == pytest.approx(0, abs=0.03)
    middle = np.abs(thickness - 2.5) < 0.1
    share = np.mean((intensity[middle] > 120) & (intensity[middle] < 180))
    expected, _ = quad(lambda i: np.exp(world.log_prob_intensity(i, 2.5)), 120, 180)
    assert share == pytest.approx(expected, abs=0.05)


def test_samples_depend_on_the_generator_alone() -> None:
    first, second = (
        ThicknessIntensityWorld().sample(5, np.random.default_rng(3)) for _ in range(2)
    )
    assert all((first[name] == second[name]).all() for name in ("thickness", "intensity"))


def test_nothing_is_outside_of_the_support() -> None:
    world = ThicknessIntensityWorld()
    assert (world.log_prob_thickness([-1.0, 0.4, 0.5]) == -np.inf).all()
    assert (world.log_prob_intensity([0.0, 64.0, 255.0, 300.0], 2.5) == -np.inf).all()


def test_rendering_has_the_attributes() -> None:
    image = np.zeros((2, 28, 28), dtype=np.uint8)
    image[:, 5:23, 12:15] = 255
    drawn = ThicknessIntensityWorld().render(image, np.array([2.0, 5.0]), np.array([90.0, 200.0]))
    np.testing.assert_allclose(measure_intensity(drawn), [89.5, 199.5], atol=0.5)
    assert (drawn[1] > 0).sum() > (drawn[0] > 0).sum()


def test_spread_must_be_positive() -> None:
    with pytest.raises(ValueError, match="spread must be positive, got 0"):
        ThicknessIntensityWorld(spread=0)


def test_published_test_attributes(real_data: Path) -> None:
    attributes = read_attributes(real_data / "morphomnist" / "t10k-morpho.csv")
    world = ThicknessIntensityWorld()
    thickness, intensity = attributes.thickness, attributes.intensity
    assert world.log_prob_thickness(thickness).mean() == pytest.approx(-0.927, abs=5e-4)
    assert world.log_prob_intensity(intensity, thickness).mean() == pytest.approx(-4.195, abs=5e-4)
