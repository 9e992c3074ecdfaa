"""Digits whose class causes their colour, and digits of thickness, intensity and slant."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import world_columns

from deepscm_pl.data import measure_attributes, render_truth
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question, default_questions
from deepscm_pl.mechanisms import Categorical, SplineFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.worlds import ColourWorld, ThicknessIntensitySlantWorld, known_world
from deepscm_pl.worlds.colour import measure_hue, set_hue

from tiny import TinyDataModule


def strokes(size: int = 3) -> np.ndarray:
    images = np.zeros((size, 28, 28), dtype=np.uint8)
    for number, image in enumerate(images):
        image[5:23, 9 + number : 13 + number] = 255
    return images


def test_every_hue_is_measured_as_it_was_drawn():
    hue = np.linspace(-59, 299, 60)
    drawn = set_hue(np.full((60, 8, 8), 255), hue)
    np.testing.assert_allclose(measure_hue(drawn), hue, atol=0.2)
    assert np.isnan(measure_hue(np.full((1, 3, 4, 4), 9))).all()


def test_the_truth_of_another_hue_is_the_same_digit():
    world, originals = ColourWorld(), strokes()
    factual = {"digit": [0.0, 4.0, 9.0], "hue": [5.0, 100.0, 250.0]}
    columns = world_columns.counterfactual(world, factual, {"hue": 180.0})
    assert columns["digit"].tolist() == factual["digit"]
    truth = render_truth(world, originals, columns, workers=1, progress=False)
    assert truth.shape == (3, 3, 28, 28)
    np.testing.assert_array_equal(truth.max(axis=1), originals)
    found = measure_attributes(world, truth, workers=1, progress=False)
    np.testing.assert_allclose(found["hue"], 180, atol=0.1)


def test_the_class_causes_the_hue():
    world = ColourWorld()
    digits = np.repeat(np.arange(10), 50)
    sample = world.sample(500, np.random.default_rng(0), {"digit": digits})
    assert np.array_equal(sample["digit"], digits)
    means = sample["hue"].reshape(10, 50).mean(axis=1)
    np.testing.assert_allclose(means, 28 * np.arange(10), atol=5)
    other = world_columns.counterfactual(world, {n: c[:3] for n, c in sample.items()}, {"digit": 2})
    np.testing.assert_allclose(other["hue"] - sample["hue"][:3], 56)
    drawn = world.sample(5000, np.random.default_rng(0))["digit"]
    assert set(drawn) == set(range(10))


class Coloured(TinyDataModule):
    """Ten strokes of a hue."""

    @property
    def world(self):
        return ColourWorld()

    def load_originals(self, split):
        return strokes(80 if split == "train" else 20)

    def load(self):
        source = super().load()
        for rows in (source.train, source.test):
            size = len(rows["label"])
            rows["digit"], rows["hue"] = torch.zeros(size, 1), torch.full((size, 1), 3.0)
        return source


def test_there_is_no_truth_of_another_digit():
    scm = StructuralCausalModel(
        "digit -> hue", {"digit": partial(Categorical, categories=10), "hue": SplineFlow}
    )
    model = ModelOnData.of(scm, Coloured())
    with pytest.raises(ValueError, match=r"originals of the world colour determine digit"):
        Question("digit=3", scm.variables).check(model)
    assert all("digit" not in each.do for each in default_questions(model))


def test_thickness_intensity_and_slant_are_drawn_together():
    world = known_world("thickness-intensity-slant", {"tilt": 20.0})
    assert world.parameters()["tilt"] == 20
    asked = {
        "thickness": [3.0, 3.2, 3.0],
        "intensity": [200.0, 120.0, 180.0],
        "slant": [0.3, 0, -0.3],
    }
    found = world.measure(world.render(strokes(), asked))
    np.testing.assert_allclose(found["thickness"], asked["thickness"], atol=0.5)
    np.testing.assert_allclose(found["intensity"], asked["intensity"], atol=1)
    np.testing.assert_allclose(found["slant"], asked["slant"], atol=0.03)
    brighter = world_columns.counterfactual(world, asked, {"thickness": 2.0})
    assert (brighter["intensity"] < asked["intensity"]).all()
    np.testing.assert_array_equal(brighter["slant"], asked["slant"])


@pytest.mark.parametrize(
    ("world", "argument"), [(ColourWorld, "spread"), (ThicknessIntensitySlantWorld, "tilt")]
)
def test_spreads_are_positive(world, argument):
    with pytest.raises(ValueError, match=f"{argument}: expected a positive number, but got 0"):
        world(**{argument: 0.0})
