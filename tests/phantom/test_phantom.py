"""Synthetic heads: exact volumes, independent of the batch, and their measurement."""

from __future__ import annotations

import numpy as np
import pytest

from deepscm_pl.worlds.heads import (
    TISSUES,
    TRAITS,
    HeadGrid,
    draw_heads,
    draw_labels,
    measure_heads,
)

GRIDS = {
    "32": HeadGrid((32, 32)),
    "64": HeadGrid((64, 64)),
    "odd": HeadGrid((77, 91)),
    "192": HeadGrid((192, 192)),
    "volume": HeadGrid((32, 40, 32)),
}
WITHIN_BRAIN = [TISSUES.index(name) for name in ("grey matter", "white matter", "ventricles")]


def heads(size, seed=0):
    generator = np.random.default_rng(seed)
    traits = generator.standard_normal((size, TRAITS))
    brain = 1.16e6 * np.exp(0.1 * generator.standard_normal(size))
    ventricles = np.clip(32e3 * np.exp(0.5 * generator.standard_normal(size)), 8e3, 1.2e5)
    return traits, brain, ventricles


@pytest.mark.parametrize("name", GRIDS)
def test_labels_have_the_requested_volumes(name):
    grid = GRIDS[name]
    traits, brain, ventricles = heads(6)
    labels = draw_labels(traits, brain, ventricles, grid)
    assert labels.shape == (6, len(TISSUES), *grid.shape)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert labels.min() >= 0
    space = tuple(range(1, 1 + grid.dimensions))
    found = labels[:, WITHIN_BRAIN].sum(axis=1).sum(axis=space, dtype=float) * grid.brain_per_voxel
    np.testing.assert_allclose(found, brain, rtol=1e-3)
    found = labels[:, -1].sum(axis=space, dtype=float) * grid.ventricle_per_voxel
    np.testing.assert_allclose(found, ventricles, rtol=2e-3)


@pytest.mark.parametrize("volume", [1e3, 4e3, 1e4])
@pytest.mark.parametrize("name", GRIDS)
def test_ventricles_thinner_than_a_voxel_have_their_volume(name, volume):
    grid = GRIDS[name]
    traits, brain, _ = heads(40)
    labels = draw_labels(traits, brain, np.full(40, volume), grid)
    found = labels[:, -1].reshape(40, -1).sum(axis=1, dtype=float) * grid.ventricle_per_voxel
    np.testing.assert_allclose(found, volume, rtol=2e-3)


def test_a_head_does_not_depend_on_its_batch():
    traits, brain, ventricles = heads(5)
    grid = GRIDS["64"]
    together = draw_heads(traits, brain, ventricles, grid)
    alone = draw_heads(traits[3:4], brain[3:4], ventricles[3:4], grid)
    assert np.array_equal(together[3:4], alone)


def test_ventricles_grow_while_the_outline_and_the_noise_stay():
    traits, brain, ventricles = heads(8)
    grid = GRIDS["64"]
    before = draw_labels(traits, brain, ventricles, grid)
    after = draw_labels(traits, brain, 1.8 * ventricles, grid)
    outside = [TISSUES.index(name) for name in ("background", "scalp", "skull", "fluid")]
    assert np.array_equal(before[:, outside], after[:, outside])
    assert (after[:, -1] >= before[:, -1] - 1e-6).all()
    images = [draw_heads(traits, brain, v, grid) for v in (ventricles, 1.8 * ventricles)]
    still = before[:, -2:].sum(axis=1) == 0
    assert np.array_equal(images[0][still], images[1][still])


def test_noise_is_rayleigh_distributed_and_uncorrelated():
    traits, brain, ventricles = heads(200)
    corners = draw_heads(traits, brain, ventricles, GRIDS["64"])[:, :3, :3].astype(float)
    # Rayleigh distributed with the mean √(π/2)·σ, and independent between pixels.
    assert corners.mean() == pytest.approx(np.sqrt(np.pi / 2) * 2.5, rel=0.1)
    table = corners.reshape(200, -1)
    standard = (table - table.mean(axis=1, keepdims=True)) / table.std(axis=1, keepdims=True)
    correlations = np.corrcoef(standard.T)[np.triu_indices(9, 1)]
    assert np.abs(correlations).max() < 0.35


@pytest.mark.parametrize("name", ["64", "odd", "192", "volume"])
def test_measured_volumes_are_those_drawn(name):
    traits, brain, typical = heads(60, seed=1)
    for ventricles in (typical, np.full(60, 15_000.0)):
        found = measure_heads(draw_heads(traits, brain, ventricles, GRIDS[name]), GRIDS[name])
        assert np.abs(found.brain_volume / brain - 1).mean() < 0.01
        error = found.ventricle_volume / ventricles - 1
        assert np.abs(error).mean() < 0.02
        assert np.abs(error.mean()) < 0.007  # neither noise nor the bias field counts as fluid


@pytest.mark.parametrize("name", ["64", "volume"])
def test_darker_ventricles_do_not_measure_larger(name):
    traits, brain, ventricles = heads(8)
    heads_drawn = draw_heads(traits, brain, 2 * ventricles, GRIDS[name])
    inner = draw_labels(traits, brain, 2 * ventricles, GRIDS[name])[:, -1] > 0.5
    expected, found = (
        measure_heads(np.where(inner, level, heads_drawn), GRIDS[name]).ventricle_volume
        for level in (36, 0)
    )
    assert np.abs(found / expected - 1).max() < 0.06


def test_an_empty_image_has_no_volumes():
    found = measure_heads(np.zeros((1, 64, 64)), GRIDS["64"])
    assert np.isnan(found.brain_volume).all()
    assert np.isnan(found.ventricle_volume).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeadGrid((64,)), "two or three sizes of at least 16, but got"),
        (lambda: HeadGrid((8, 64)), "at least 16"),
        (lambda: HeadGrid((64, 64), extent=0), "extent: expected a positive length"),
        (
            lambda: measure_heads(np.zeros((1, 32, 64)), GRIDS["64"]),
            r"expected shape \(N, 64, 64\)",
        ),
        (lambda: measure_heads(np.full((1, 64, 64), np.nan), GRIDS["64"]), "finite grey levels"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ventricles_that_fill_the_brain_stay_within_it():
    traits = heads(6)[0]
    grid = GRIDS["64"]
    brain, ventricles = np.full(6, 5.5e5), np.full(6, 3e5)
    labels = draw_labels(traits, brain, ventricles, grid)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-5)
    assert labels.min() >= 0
    found = labels[:, -1].sum(axis=(1, 2), dtype=float) * grid.ventricle_per_voxel
    np.testing.assert_allclose(found, ventricles, rtol=2e-3)
