"""The laws of every known world."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import gamma, kstest, norm
from torch.distributions import AffineTransform
from world_columns import abduct, counterfactual, log_prob, predict, tensor

from deepscm_pl.data import (
    KnownWorld,
    ThicknessIntensityFallingWorld,
    ThicknessIntensityWorld,
    ThicknessSlantWorld,
    ThicknessWidthWorld,
    known_world,
    measure_attributes,
    read_attributes,
    read_idx,
    render_truth,
)
from deepscm_pl.interventions import parse_do
from deepscm_pl.mechanisms import Context, GammaScore, Known, Logistic
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain
from deepscm_pl.worlds import DIGIT_WORLDS, read_world, write_world
from deepscm_pl.worlds.strokes import measure_intensity

EVERY = [
    *(each() for each in DIGIT_WORLDS if each.name != "colour"),  # test_worlds_colour.py
    ThicknessIntensityWorld(slope=-1, centre=3, spread=0.3),
]

worlds = pytest.mark.parametrize("world", EVERY, ids=lambda world: world.name)


def draw(world: KnownWorld, size: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    return world.sample(size, np.random.default_rng(seed))


def effect(world: KnownWorld) -> str:
    """The attribute that thickness causes."""
    return world.attributes[1]


@worlds
def test_graph(world: KnownWorld) -> None:
    assert world.attributes[0] == "thickness"
    assert world.graph.nodes == (*world.attributes, "image")
    assert world.graph.parents[effect(world)] == ("thickness",)
    assert world.graph.parents["image"] == world.attributes
    assert tuple(world.units) == tuple(world.domains) == world.attributes
    assert world.units["thickness"] == "pixels"
    assert set(world.renderer.shape_attributes) <= set(world.attributes)


@worlds
def test_densities_integrate_to_one(world: KnownWorld) -> None:
    name = effect(world)
    others = {other: column[:1] for other, column in draw(world).items()}

    def density(value: float, thickness: float, of: str) -> float:
        given = {**others, "thickness": [thickness], name: [value]}
        return np.exp(log_prob(world, given)[of][0])

    total, _ = quad(lambda t: density(1.0, t, "thickness"), 0, 30, points=[2.5])
    assert total == pytest.approx(1, abs=1e-6)
    for thickness in (1.0, 2.5, 4.0):
        noise = {other: np.zeros(3) for other in others} | {name: np.array([-8.0, 0.0, 8.0])}
        ends = predict(world, noise, {"thickness": thickness})
        low, middle, high = ends[name]
        total, _ = quad(
            lambda v, t=thickness: density(v, t, name), low, high, points=[middle], limit=200
        )
        assert total == pytest.approx(1, abs=1e-6)


@worlds
def test_samples_follow_the_density(world: KnownWorld) -> None:
    """Both attributes, by the probability of falling below the median of either."""
    sample = draw(world, 20000)
    noise = abduct(world, sample)
    for column in noise.values():
        assert kstest(column, norm.cdf).pvalue > 0.01
    correlations = np.corrcoef([*noise.values()])
    np.testing.assert_allclose(correlations, np.eye(len(noise)), atol=0.02)
    found = {name: column.mean() for name, column in log_prob(world, sample).items()}
    # By the change of variables: log N(u) - log |dx / du|.
    for name in world.attributes:
        slopes = _slope(world, noise, name)
        expected = norm.logpdf(noise[name]) - np.log(slopes)
        assert found[name] == pytest.approx(expected.mean(), abs=1e-5)


def _slope(world: KnownWorld, noise: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The derivative of an attribute by its noise, numerically."""
    step = 1e-5
    above, below = (
        predict(world, {**noise, name: noise[name] + sign * step})[name] for sign in (1, -1)
    )
    return (above - below) / (2 * step)


@worlds
def test_noise_is_recovered(world: KnownWorld) -> None:
    factual = draw(world)
    found = predict(world, abduct(world, factual))
    for name in world.attributes:
        np.testing.assert_allclose(found[name], factual[name], rtol=1e-12, atol=1e-12)
    generator = np.random.default_rng(1)
    noise = {name: generator.standard_normal(50) for name in world.attributes}
    again = abduct(world, predict(world, noise))
    for name in world.attributes:
        np.testing.assert_allclose(again[name], noise[name], atol=1e-9)


def thickness_of(least: float) -> Known:
    """An unshifted or shifted gamma variable."""
    layers = [GammaScore(10, 5), AffineTransform(least, 1.0)]
    return Known(Context(), lambda _: layers, Domain(lower=0.0, open=True))


def test_noise_is_exact_in_both_tails() -> None:
    mechanism = thickness_of(0.5)
    noise = torch.linspace(-7, 37, 200, dtype=torch.float64)[:, None]
    found = mechanism.abduct(mechanism({"u": noise}, {}), {})["u"]
    torch.testing.assert_close(found, noise, rtol=1e-9, atol=1e-9)
    # Far below, values differ from the least by less than float64 tells.
    unshifted = thickness_of(0.0)
    noise = torch.linspace(-37, 37, 200, dtype=torch.float64)[:, None]
    found = unshifted.abduct(unshifted({"u": noise}, {}), {})["u"]
    torch.testing.assert_close(found, noise, rtol=1e-9, atol=1e-9)
    values = np.array([0.6, 1.5, 2.4, 2.6, 4.0, 12.0])
    found = mechanism.abduct(tensor(values), {})["u"][:, 0].numpy()
    expected = norm.ppf(gamma.cdf(values[:4] - 0.5, 10, scale=0.2))
    np.testing.assert_allclose(found[:4], expected, rtol=1e-9)
    expected = -norm.ppf(gamma.sf(values[2:] - 0.5, 10, scale=0.2))
    np.testing.assert_allclose(found[2:], expected, rtol=1e-9)


def test_densities_are_finite_where_noise_is_not() -> None:
    """Far above, where no number of double precision has the rank of a value."""
    values = np.array([0.6, 20.0, 500.0, 1e5])
    found = thickness_of(0.5).log_prob(tensor(values), {}).numpy()
    expected = gamma.logpdf(values - 0.5, 10, scale=0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert thickness_of(0.0).log_prob(tensor([-1.0, 0.0, np.inf]), {}).tolist() == [-np.inf] * 3


def test_a_logit_near_its_upper_end_is_exact() -> None:
    layers = [AffineTransform(0.0, 0.5), Logistic(0.0, 1.0)]
    found = Known(Context(), lambda _: layers).abduct(tensor([1 - 2.0**-40]), {})["u"]
    assert found.item() == pytest.approx(2 * 40 * np.log(2), rel=1e-11)


@worlds
def test_null_intervention(world: KnownWorld) -> None:
    factual = draw(world)
    same = counterfactual(world, factual, {})
    assert all((same[name] == factual[name]).all() for name in world.attributes)
    for do in ({"thickness": factual["thickness"]}, {"thickness": lambda t: t}):
        found = counterfactual(world, factual, do)
        assert (found["thickness"] == factual["thickness"]).all()
        np.testing.assert_allclose(
            found[effect(world)], factual[effect(world)], rtol=1e-12, atol=1e-12
        )


@worlds
def test_causes_are_kept_and_effects_follow(world: KnownWorld) -> None:
    name, factual = effect(world), draw(world)
    middle = float(np.median(factual[name]))
    found = counterfactual(world, factual, {name: middle})
    assert (found["thickness"] == factual["thickness"]).all()
    assert (found[name] == middle).all()
    thicker = counterfactual(world, factual, {"thickness": lambda t: t + 0.5})
    np.testing.assert_array_equal(thicker["thickness"], factual["thickness"] + 0.5)
    noise = abduct(world, thicker)[name]
    np.testing.assert_allclose(noise, abduct(world, factual)[name], atol=1e-9)
    sign = -1 if world.parameters()["slope"] < 0 else 1
    assert (sign * (thicker[name] - factual[name]) > 0).all()


@worlds
def test_a_function_is_applied_to_what_would_have_been(world: KnownWorld) -> None:
    name, factual = effect(world), draw(world)
    natural = counterfactual(world, factual, {"thickness": 2.0})
    both = counterfactual(world, factual, {"thickness": 2.0, name: lambda x: 0.9 * x})
    np.testing.assert_array_equal(both[name], 0.9 * natural[name])
    written = counterfactual(world, factual, parse_do(f"thickness=2,{name}*=0.9"))
    assert all((written[each] == both[each]).all() for each in world.attributes)
    cut = counterfactual(world, factual, {"thickness": lambda t: t + 1, name: factual[name]})
    assert (cut[name] == factual[name]).all()


@worlds
def test_prediction_under_an_intervention(world: KnownWorld) -> None:
    factual = draw(world)
    do = {"thickness": lambda t: t + 0.1}
    found = predict(world, abduct(world, factual), do)
    expected = counterfactual(world, factual, do)
    for name in world.attributes:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


@worlds
def test_samples_depend_on_the_generator_alone(world: KnownWorld) -> None:
    first, second, other = draw(world, seed=3), draw(world, seed=3), draw(world, seed=4)
    assert all((first[name] == second[name]).all() for name in world.attributes)
    assert not any((first[name] == other[name]).any() for name in world.attributes)


@worlds
def test_description(world: KnownWorld, tmp_path: Path) -> None:
    write_world(tmp_path / "world.json", world)
    assert read_world(tmp_path / "world.json") == world


def test_intensity_falls() -> None:
    """Half-way at a thickness of 2, and falling as steeply as it rises in the other world."""
    falling, rising = ThicknessIntensityFallingWorld(), ThicknessIntensityWorld()
    still = {"thickness": np.zeros(3), "intensity": np.zeros(3)}
    down = predict(falling, still, {"thickness": [1.5, 2.0, 2.5]})["intensity"]
    up = predict(rising, still, {"thickness": [3.0, 2.5, 2.0]})["intensity"]
    np.testing.assert_allclose(down, up)
    assert down[1] == 159.5


def test_nothing_is_outside_of_the_support() -> None:
    world = ThicknessIntensityWorld()
    found = log_prob(world, {"thickness": [-1, 0.4, 0.5, 3], "intensity": [0, 64, 255, 300]})
    assert (found["thickness"][:3] == -np.inf).all()
    assert (found["intensity"] == -np.inf).all()
    for thickness, intensity in [(0.4, 100), (0.5, 100), (2.5, 64), (2.5, 255), (2.5, 30)]:
        with pytest.raises(ValueError, match=r"which no noise explains"):
            abduct(world, {"thickness": [2.5, thickness], "intensity": [100, intensity]})


def test_what_is_not_asked_need_not_be_explained() -> None:
    world = ThicknessIntensityWorld()
    factual = {"thickness": [0.4], "intensity": [30.0]}
    assert counterfactual(world, factual, {"intensity": 200.0})["thickness"] == [0.4]
    with pytest.raises(
        ValueError,
        match=r"intensity: expected values that its .* got 30 in row 0",
    ):
        counterfactual(world, factual, {"thickness": 2.0})


def test_rendering_has_the_attributes() -> None:
    image = np.zeros((2, 28, 28), dtype=np.uint8)
    image[:, 5:23, 12:15] = 255
    attributes = {"thickness": [3.0, 5.0], "intensity": [90.0, 200.0]}
    drawn = ThicknessIntensityWorld().render(image, attributes)
    np.testing.assert_allclose(measure_intensity(drawn), [89.5, 199.5], atol=0.5)
    measured = ThicknessIntensityWorld().measure(drawn)
    np.testing.assert_allclose(measured["thickness"], [3, 5], atol=0.4)
    np.testing.assert_allclose(measured["intensity"], [89.5, 199.5], atol=0.5)


TOLERANCE = {"thickness": 0.3, "intensity": 1.0, "slant": 0.01, "width": 0.5}
"""Of the mean error of a measured attribute, in its unit."""


@worlds
def test_real_digits_measure_what_was_drawn(world: KnownWorld, real_data: Path) -> None:
    """But ones, which cannot be both wide and thin."""
    raw = real_data / "MNIST" / "raw"
    digits = read_idx(raw / "t10k-images-idx3-ubyte", dimensions=3)
    digits = digits[read_idx(raw / "t10k-labels-idx1-ubyte", dimensions=1) != 1][:150]
    asked = draw(world, 150)
    found = world.measure(world.render(digits, asked))
    for name, column in found.items():
        assert np.abs(column - asked[name]).mean() < TOLERANCE[name], name


def test_slants_that_cannot_be_drawn_are_drawn_at_the_limit() -> None:
    bar = np.zeros((2, 28, 28), dtype=np.uint8)
    bar[:, 4:24, 12:16] = 255
    drawn = ThicknessSlantWorld().render(bar, {"thickness": [4, 4], "slant": [1.4, 2.0]})
    np.testing.assert_array_equal(*drawn)


def test_published_equations() -> None:
    """The medians of slant and width at a thickness, by hand."""
    still = {"thickness": [0.0], "slant": [0.0], "width": [0.0]}
    slant = predict(ThicknessSlantWorld(), still, {"thickness": 4.0})["slant"]
    assert slant == pytest.approx(np.deg2rad([30]))
    spread = predict(ThicknessSlantWorld(), {**still, "slant": [1.0]}, {"thickness": 4.0})["slant"]
    assert spread == pytest.approx(np.deg2rad([31]))
    width = predict(ThicknessWidthWorld(), still, {"thickness": 3.0})["width"]
    assert width == pytest.approx([10 + 15 / (1 + np.exp(-1))])
    spread = predict(ThicknessWidthWorld(), {**still, "width": [1.0]}, {"thickness": 3.0})["width"]
    assert spread == pytest.approx([10 + 15 / (1 + np.exp(-3))])
    assert predict(ThicknessWidthWorld(), still)["thickness"] == pytest.approx(
        gamma.ppf(0.5, 10, scale=0.2)
    )


def test_broken_questions() -> None:
    world = ThicknessIntensityWorld()
    factual = {"thickness": np.array([2.0, 3.0]), "intensity": np.array([100.0, 200.0])}
    with pytest.raises(ValueError, match="do: unknown variable 'slant'"):
        counterfactual(world, factual, {"slant": 1.0})
    with pytest.raises(ValueError, match="do: unknown variable 'image'"):
        predict(world, abduct(world, factual), {"image": 1.0})
    with pytest.raises(ValueError, match=r"do\(thickness\): .*\(2,\), but got \(3,\)"):
        counterfactual(world, factual, {"thickness": np.ones(3)})
    with pytest.raises(ValueError, match=r"thickness: expected values in \(0, inf\)"):
        counterfactual(world, factual, {"thickness": lambda t: t - 2})
    with pytest.raises(ValueError, match=r"do\(intensity\): .*but got 300"):
        counterfactual(world, factual, {"intensity": 300})
    with pytest.raises(ValueError, match="expected a number, a tensor or a function for intensity"):
        world.scm.counterfactual({n: tensor(c) for n, c in factual.items()}, {"intensity": "x"})
    with pytest.raises(ValueError, match=r"do\(intensity\): .*but got NaN"):
        counterfactual(world, factual, {"intensity": np.nan})


def test_broken_drawings() -> None:
    world = ThicknessIntensityWorld()
    attributes = {"thickness": [2.0, 3.0], "intensity": [100.0, 200.0]}
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    with pytest.raises(ValueError, match="originals: expected uint8"):
        world.render(images.astype(float), attributes)
    with pytest.raises(ValueError, match=r"originals: expected uint8.*\(2, 1, 28, 28\)"):
        world.render(images[:, None], attributes)
    with pytest.raises(ValueError, match="each of the 1 originals, but got 2"):
        world.render(images[:1], attributes)
    with pytest.raises(ValueError, match=r"intensity: expected values .* but got 256 in row 1"):
        world.render(images, {**attributes, "intensity": [100, 256]})


@pytest.mark.parametrize("world", DIGIT_WORLDS)
def test_spread_must_be_positive(world: type[KnownWorld]) -> None:
    with pytest.raises(ValueError, match="spread: expected a positive number, but got 0"):
        known_world(world.name, {"spread": 0})


def test_functions_cannot_change_what_was_observed() -> None:
    """One that works in place gives the answer of one that does not, and the input stays."""
    scm = ThicknessIntensityWorld().scm
    observed = {"thickness": tensor([2.0, 3.0]), "intensity": tensor([100.0, 200.0])}
    kept = {name: column.clone() for name, column in observed.items()}
    found = scm.counterfactual(observed, {"thickness": lambda thickness: thickness.add_(1)})
    wanted = scm.counterfactual(kept, {"thickness": lambda thickness: thickness + 1})
    for name in observed:
        assert torch.equal(found[name], wanted[name])
        assert torch.equal(observed[name], kept[name])


def test_a_world_without_a_renderer_has_no_images() -> None:
    given = partial(Known, layers=lambda _: [AffineTransform(1.0, 2.0)])
    scm = StructuralCausalModel("age -> size", {"age": given, "size": given})
    world = KnownWorld("growth", scm)
    assert world.graph.nodes == world.attributes == ("age", "size")
    assert world.image_attributes == ()
    assert (world.sample(3, np.random.default_rng(0))["age"] != 0).all()
    ages = {"age": [1.0], "size": [2.0]}
    for ask in (
        lambda: world.render(np.zeros((1, 8, 8)), ages),
        lambda: world.measure(np.zeros((1, 8, 8))),
        lambda: render_truth(world, np.zeros((1, 8, 8)), ages, workers=1, progress=False),
        lambda: measure_attributes(world, np.zeros((1, 8, 8)), workers=1, progress=False),
    ):
        with pytest.raises(ValueError, match="the world growth has no renderer, and so no images"):
            ask()
    with pytest.raises(ValueError, match="renderer: expected attributes of age, size, but got"):
        KnownWorld("growth", scm, ThicknessIntensityWorld().renderer)


def test_worlds_are_equal_by_their_numbers() -> None:
    assert ThicknessIntensityWorld() == ThicknessIntensityWorld(slope=2.0)
    assert ThicknessIntensityWorld() != ThicknessIntensityWorld(slope=1.0)
    assert ThicknessIntensityWorld(-2.0, 2.0) != ThicknessIntensityFallingWorld()
    assert len({ThicknessIntensityWorld(), ThicknessIntensityWorld()}) == 1
    scm = ThicknessIntensityWorld().scm
    assert KnownWorld("a", scm) != KnownWorld("a", scm)


@worlds
def test_worlds_can_be_pickled(world: KnownWorld) -> None:
    again = pickle.loads(pickle.dumps(world))
    assert again == world
    sample = draw(world)
    assert all(np.array_equal(draw(again)[name], column) for name, column in sample.items())


def test_what_is_set_needs_no_explanation() -> None:
    """Values without any noise may be replaced, also below another intervention."""
    observed = {"thickness": [0.4], "intensity": [30.0]}
    do = {"thickness": 2.0, "intensity": 200.0}
    found = counterfactual(ThicknessIntensityWorld(), observed, do)
    assert {name: float(column[0]) for name, column in found.items()} == do


@pytest.mark.parametrize("name", ["slope", "centre", "spread"])
def test_parameters_that_are_no_numbers_are_named(name: str) -> None:
    for make in (ThicknessIntensityWorld, ThicknessSlantWorld, ThicknessWidthWorld):
        with pytest.raises(ValueError, match=f"{name}: expected a finite"):
            make(**{name: float("nan")})


def test_unknown_world() -> None:
    with pytest.raises(ValueError, match=r"thickness-intensity, thickness-.*, got 'size'"):
        known_world("size")
    with pytest.raises(ValueError, match="no parameter 'scale'; use slope, centre, spread"):
        known_world("thickness-intensity", {"scale": 1.0})
    with pytest.raises(ValueError, match="spread: expected a positive"):
        known_world("thickness-intensity", {"spread": -1.0})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"world": "thickness-intensity"}',
        '{"world": [], "parameters": {}}',
        '{"world": "size", "parameters": {}}',
        '{"world": "thickness-intensity", "parameters": {"slope": "steep"}}',
        '{"world": "thickness-intensity", "parameters": {"steepness": 1}}',
        '{"world": "thickness-intensity", "parameters": {"spread": 0}}',
        '{"world": "thickness-intensity", "parameters": {"spread": NaN}}',
        '{"world": "thickness-intensity", "parameters": [1]}',
    ],
)
def test_broken_description(content: str, tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text(content)
    with pytest.raises(ValueError, match=r"world.json should describe a world as JSON"):
        read_world(tmp_path / "world.json")


def test_missing_description(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"world.json is missing"):
        read_world(tmp_path / "world.json")


def test_published_test_attributes(real_data: Path) -> None:
    """The world's own log-densities of the published attributes."""
    world = ThicknessIntensityWorld()
    attributes = read_attributes(real_data / "morphomnist" / "t10k-morpho.csv", world)
    found = {name: column.mean() for name, column in log_prob(world, attributes).items()}
    assert found["thickness"] == pytest.approx(-0.927, abs=5e-4)
    assert found["intensity"] == pytest.approx(-4.195, abs=5e-4)
    noise = abduct(world, attributes)
    for column in noise.values():
        assert kstest(column, norm.cdf).pvalue > 0.01
