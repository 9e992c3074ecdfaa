"""The world of brains and the heads that are drawn in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepscm_pl.data import BrainWorld, SyntheticBrainDataModule
from deepscm_pl.worlds.mechanisms import BoundedRoot, Coin, Effect, LogLinearNormal

WORLD = BrainWorld()


def draw(size=2000, seed=0):
    return WORLD.sample(size, np.random.default_rng(seed))


def test_magnitudes_are_those_of_adults():
    values = draw(20_000)
    assert values["age"].min() > 40
    assert values["age"].max() < 80
    assert values["sex"].mean() == pytest.approx(0.5, abs=0.02)
    assert values["brain_volume"].mean() == pytest.approx(1.16e6, rel=0.02)
    assert values["brain_volume"].std() == pytest.approx(0.11e6, rel=0.1)
    originals = WORLD.draw_originals(20_000, np.random.default_rng(0))
    WORLD.check_drawing(originals, values)  # all of them can be drawn
    ventricles = values["ventricle_volume"]
    assert ventricles.mean() == pytest.approx(36e3, rel=0.05)
    assert ventricles.std() == pytest.approx(20e3, rel=0.1)
    assert ((ventricles - ventricles.mean()) ** 3).mean() > 0  # right-skewed
    assert np.corrcoef(values["age"], ventricles)[0, 1] > 0.4


def test_noise_is_recovered_and_a_null_intervention_changes_nothing():
    values = draw()
    again = WORLD.predict(WORLD.abduct(values))
    for name, column in values.items():
        np.testing.assert_allclose(again[name], column, rtol=1e-12)
    kept = WORLD.counterfactual(values, {})
    assert all(np.array_equal(kept[name], values[name]) for name in values)


def test_causes_are_kept_and_effects_follow():
    values = draw()
    after = WORLD.counterfactual(values, {"ventricle_volume": 5e4})
    assert all(np.array_equal(after[n], values[n]) for n in ("age", "sex", "brain_volume"))
    after = WORLD.counterfactual(values, {"sex": 1.0})
    assert np.array_equal(after["age"], values["age"])
    women = values["sex"] == 0
    np.testing.assert_allclose(
        after["brain_volume"][women] / values["brain_volume"][women], np.exp(0.105)
    )
    # Sex moves the ventricles through the volume of the brain only.
    through = WORLD.counterfactual(values, {"brain_volume": after["brain_volume"]})
    np.testing.assert_allclose(through["ventricle_volume"], after["ventricle_volume"])
    older = WORLD.counterfactual(values, {"age": lambda age: age + 0.5 * (80 - age)})
    assert (older["brain_volume"] < values["brain_volume"]).all()
    assert (older["ventricle_volume"] > values["ventricle_volume"]).all()


@pytest.mark.parametrize(
    ("mechanism", "grid"),
    [
        (BoundedRoot(40.0, 80.0, 0.3, 0.85), np.linspace(40.0001, 79.9999, 40001)),
        (
            LogLinearNormal(1.0, (Effect("a", 0.5, 1.0), Effect("b", 0.3, 0.2, log=True)), 0.4),
            np.linspace(1e-6, 60, 60001),
        ),
    ],
)
def test_densities_integrate_to_one_and_samples_follow_them(mechanism, grid):
    parents = {name: np.full_like(grid, 2.0) for name in mechanism.parents}
    density = np.exp(mechanism.log_prob(grid, parents))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
    few = {name: np.full(20_000, 2.0) for name in mechanism.parents}
    sample = mechanism.sample(20_000, few, np.random.default_rng(0))
    mean = np.trapezoid(density * grid, grid)
    assert sample.mean() == pytest.approx(mean, rel=0.02)
    noise = mechanism.noise(sample, few)
    assert noise.std() == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(mechanism.value(noise, few), sample)


def test_a_coin_shows_the_side_that_its_noise_says():
    coin = Coin(0.2)
    sample = coin.sample(20_000, {}, np.random.default_rng(0))
    assert sample.mean() == pytest.approx(0.2, abs=0.01)
    sides = np.array([0.0, 1.0])
    assert np.array_equal(coin.value(coin.noise(sides, {}), {}), sides)
    assert np.exp(coin.log_prob(sides, {})).tolist() == pytest.approx([0.8, 0.2])
    assert coin.log_prob(np.array([0.5]), {}) == -np.inf


def test_images_are_of_the_volumes_alone():
    values = draw(4)
    originals = WORLD.draw_originals(4, np.random.default_rng(1))
    image = WORLD.render(originals, values)
    assert image.shape == WORLD.drawn_shape(originals) == (4, 64, 64)
    other = {**values, "age": values["age"] + 1, "sex": 1 - values["sex"]}
    assert np.array_equal(WORLD.render(originals, other), image)
    found = WORLD.measure(image)
    assert set(found) == set(WORLD.image_attributes)
    with pytest.raises(ValueError, match=r"originals: expected finite traits of shape"):
        WORLD.render(originals[:, :3], values)
    with pytest.raises(ValueError, match="ventricle_volume: expected"):
        WORLD.render(originals, {**values, "ventricle_volume": np.full(4, -1.0)})


@pytest.mark.parametrize("shape", [[32, 40], [16, 20, 16]])
def test_a_data_module_of_heads(tmp_path, shape):
    def make(**more):
        return SyntheticBrainDataModule(
            train_size=10, validation_size=3, test_size=4, shape=shape, cache_dir=tmp_path, **more
        )

    data = make()
    variables = data.variables("test")
    assert variables["image"].shape == (4, 1, *shape)
    assert variables["image"].dtype == torch.uint8
    assert len(data.variables("train")["age"]) == 7
    # The truth of what is recorded is what was drawn.
    columns = {n: variables[n][:, 0].double().numpy() for n in data.world.attributes}
    drawn = data.world.render(data.originals("test"), columns)
    assert np.array_equal(drawn[:, None], variables["image"].numpy())
    again = make().variables("test")
    assert all(torch.equal(again[name], value) for name, value in variables.items())
    other = make(seed=1).variables("test")
    assert not torch.equal(other["age"], variables["age"])
    made = type(data)(**data.configuration()["init_args"])
    assert torch.equal(made.variables("train")["image"], data.variables("train")["image"])


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="expected 2 or 3 whole numbers"):
        SyntheticBrainDataModule(shape=[64])
    with pytest.raises(ValueError, match="at least 16"):
        SyntheticBrainDataModule(shape=[4, 4])
