"""The world of brains and the heads that are drawn in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from world_columns import abduct, counterfactual, predict, tensor

from deepscm_pl.data import BrainWorld, SyntheticBrainDataModule
from deepscm_pl.mechanisms import Context, KnownCoin

import laws

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
    again = predict(WORLD, abduct(WORLD, values))
    for name, column in values.items():
        np.testing.assert_allclose(again[name], column, rtol=1e-12)
    kept = counterfactual(WORLD, values, {})
    assert all(np.array_equal(kept[name], values[name]) for name in values)


def test_causes_are_kept_and_effects_follow():
    values = draw()
    after = counterfactual(WORLD, values, {"ventricle_volume": 5e4})
    assert all(np.array_equal(after[n], values[n]) for n in ("age", "sex", "brain_volume"))
    after = counterfactual(WORLD, values, {"sex": 1.0})
    assert np.array_equal(after["age"], values["age"])
    women = values["sex"] == 0
    np.testing.assert_allclose(
        after["brain_volume"][women] / values["brain_volume"][women], np.exp(0.105)
    )
    # Sex moves the ventricles through the volume of the brain only.
    through = counterfactual(WORLD, values, {"brain_volume": after["brain_volume"]})
    np.testing.assert_allclose(through["ventricle_volume"], after["ventricle_volume"])
    older = counterfactual(WORLD, values, {"age": lambda age: age + 0.5 * (80 - age)})
    assert (older["brain_volume"] < values["brain_volume"]).all()
    assert (older["ventricle_volume"] > values["ventricle_volume"]).all()


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("age", torch.linspace(40.0001, 79.9999, 40001)),
        ("brain_volume", torch.linspace(1e3, 4e6, 60001)),
        ("ventricle_volume", torch.linspace(1.0, 1e6, 200001)),
    ],
)
def test_densities_integrate_to_one_and_samples_follow_them(name, grid):
    mechanism = WORLD.scm[name]
    parents = {"age": tensor([70.0]), "sex": tensor([1.0]), "brain_volume": tensor([1.1e6])}
    grid = grid.double()[:, None]
    laws.density_integrates_to_one(mechanism, grid, parents)
    density = mechanism.log_prob(grid, parents).exp()
    sample = mechanism(mechanism.sample_noise((20_000,)), parents)
    mean = torch.trapezoid(density * grid[:, 0], grid[:, 0])
    assert sample.mean().item() == pytest.approx(mean.item(), rel=0.02)


def test_a_coin_shows_the_side_that_its_noise_says():
    coin = KnownCoin(Context(), 0.2)
    sample = coin(coin.sample_noise((20_000,)), {})
    assert sample.mean().item() == pytest.approx(0.2, abs=0.01)
    sides = tensor([0.0, 1.0])
    assert torch.equal(coin(coin.abduct(sides, {}), {}), sides)
    assert coin.log_prob(sides, {}).exp().tolist() == pytest.approx([0.8, 0.2])
    assert coin.log_prob(tensor([0.5]), {}) == -np.inf
    assert coin.abduct(tensor([0.5]), {})["u"].isnan()


def test_images_are_of_the_volumes_alone():
    values = draw(4)
    originals = WORLD.draw_originals(4, np.random.default_rng(1))
    image = WORLD.render(originals, values)
    assert image.shape == WORLD.renderer.drawn_shape(originals) == (4, 64, 64)
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
