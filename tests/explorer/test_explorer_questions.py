"""Which variables can be set, to which values, and the answers as plain data."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deepscm_pl.checkpoints import TrainedModel
from deepscm_pl.escaping import for_terminal
from deepscm_pl.explorer import Explorer, questions
from deepscm_pl.explorer.questions import decimals_of, values_to_set
from deepscm_pl.interventions import parse_do
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.overlap import VERDICTS
from deepscm_pl.scm import StructuralCausalModel

from tiny import TinyWorld, image_mechanism


@pytest.mark.parametrize("name", ["pictures", "two_models", "table"])
def test_values_are_possible_different_and_within_the_training_data(name, request):
    explorer = request.getfixturevalue(name)
    for cause in explorer.causes(steps=9):
        domain = explorer.variables[cause.name].domain
        values = [each.value for each in cause.settings]
        assert values == sorted(set(values))
        assert bool(domain.contains(torch.tensor(values)[:, None]).all())
        if domain.categories is not None:
            assert values == list(range(domain.categories))
        else:
            low, high = explorer.scm.training_distribution.limits(cause.name)
            assert low <= values[0] < values[-1] <= high
            assert 2 <= len(values) <= 9


def test_every_text_is_read_as_its_setting(table):
    for cause in table.causes():
        for each in cause.settings:
            assert parse_do(each.text, table.variables) == {cause.name: each.value}
            assert for_terminal(each.text) == each.text  # nothing in a command is invisible


def test_images_are_not_set_and_effects_are_in_order(pictures):
    causes = {each.name: list(each.affected) for each in pictures.causes()}
    assert causes == {"thickness": ["intensity", "image"], "intensity": ["image"]}


@pytest.mark.parametrize("name", ["pictures", "table"])
def test_setting_the_observed_value_changes_nothing(name, request):
    explorer = request.getfixturevalue(name)
    for row in (1, 2):
        factual = explorer.observe(row)
        for cause in explorer.causes():
            (answer,) = explorer.ask(row, [{cause.name: factual.values[cause.name]}])
            assert answer.values == pytest.approx(factual.values, rel=1e-4)
            assert answer.pictures == factual.pictures


def test_answers_are_those_of_the_model(pictures):
    dos = [{"thickness": 2.0}, {"intensity": 90.0}, {"thickness": 5.5}]
    answers = pictures.ask(4, dos)
    expected = pictures.model.counterfactual(pictures.factual(4), dos, seed=0)
    measured = TinyWorld().measure(expected["image"][0, :, 0, 0].numpy())
    for k, answer in enumerate(answers):
        for name in ("thickness", "intensity"):
            assert answer.values[name] == pytest.approx(float(expected[name][0, k, 0, 0]), rel=1e-5)
            assert answer.measured[name] == pytest.approx(measured[name][k], nan_ok=True)
        picture = np.asarray(Image.open(io.BytesIO(answer.pictures["image"])))
        assert np.array_equal(picture, expected["image"][0, k, 0, 0].byte().numpy())
        assert answer.verdict == expected.overlap[k].verdicts[0]
        assert answer.rows == pytest.approx(float(expected.overlap[k].rows))


def test_a_colour_scale_covers_all_answers(pictures):
    factual = pictures.observe(0)
    answers = [
        replace(factual, images={"image": factual.images["image"] + float(k)}) for k in (15, 90)
    ]
    limit = pictures.difference_limits(factual, answers)["image"]
    assert limit == max(pictures.difference_limits(factual, [each])["image"] for each in answers)
    assert pictures.difference_limits(factual, answers[:1])["image"] < limit


def test_answers_do_not_depend_on_the_others(pictures, monkeypatch):
    dos = [{"thickness": value} for value in (1.5, 2.5, 3.5, 4.5)]
    together = pictures.ask(0, dos)
    monkeypatch.setattr(questions, "_NUMBERS_AT_A_TIME", 1)
    for one, each in zip(pictures.ask(0, dos), together, strict=True):
        assert one.values == pytest.approx(each.values, rel=1e-5)
        difference = one.images["image"].astype(int) - each.images["image"]
        assert np.abs(difference).max() <= 1


def test_several_models_answer_by_their_mean(two_models):
    (answer,) = two_models.ask(3, [{"thickness": 2.0}])
    expected = two_models.model.counterfactual(two_models.factual(3), {"thickness": 2.0}, seed=0)
    assert expected["intensity"].shape[0] == 4
    mean = expected.mean()
    assert answer.values["intensity"] == pytest.approx(float(mean["intensity"]), rel=1e-5)
    assert np.array_equal(answer.images["image"], mean["image"][0].round().byte().numpy())


def test_missing_values_are_none_and_are_inferred_in_answers(table):
    assert table.observe(0).values["effect"] is None
    (answer,) = table.ask(0, [{"dose": 5e5}])
    assert answer.values["effect"] is not None


def test_an_observation_has_neither_verdict_nor_rows(pictures):
    assert pictures.observe(0).verdict == ""
    assert pictures.observe(0).rows is None
    (far,) = pictures.ask(0, [{"thickness": 7.9}])
    assert far.verdict == VERDICTS[2]


def test_a_model_of_an_earlier_version_reads_its_training_data(pictures):
    scm = pictures.scm
    kept = {name: value.clone() for name, value in scm.training_distribution.state_dict().items()}
    try:
        for value in scm.training_distribution.buffers():
            value.zero_()
        again = Explorer(pictures.model, pictures.data)
        assert again.causes() == pictures.causes()
    finally:
        scm.training_distribution.load_state_dict(kept)


def test_volumes_show_their_planes(volumes):
    scm, data = volumes
    explorer = Explorer(TrainedModel.of(scm), data)
    assert explorer.observe(0).images["scan"].shape == (1, 8, 26)
    (answer,) = explorer.ask(0, [{"level": 100.0}])
    assert answer.images["scan"].shape == (1, 8, 26)


def test_volumes_that_are_too_large_are_refused(volumes, monkeypatch):
    scm, data = volumes
    monkeypatch.setattr(questions, "_MOST_VOXELS", 511)
    message = r"explore: expected images of at most 511 voxels, but scan has 8 × 8 × 8; ask"
    with pytest.raises(ValueError, match=message):
        Explorer(TrainedModel.of(scm), data)


def test_images_of_other_channels_are_refused(pictures):
    with pytest.raises(ValueError, match="one or three channels, but scan has 2"):
        questions._check_image("scan", (2, 8, 8))


def test_a_model_of_images_alone_is_refused(pictures):
    scm = StructuralCausalModel("image", {"image": image_mechanism()})
    scm.fit(pictures.data.variables("train"))
    with pytest.raises(ValueError, match="a number or a class that can be set"):
        Explorer(TrainedModel.of(scm), pictures.data).causes()


@pytest.mark.parametrize("row", [-1, 24])
def test_rows_that_do_not_exist_are_refused(pictures, row):
    with pytest.raises(ValueError, match=f"index: expected rows from 0 to 23 .* got {row}"):
        pictures.ask(row, [{"thickness": 2.0}])


def test_one_step_is_refused(pictures):
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 2"):
        pictures.causes(steps=1)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e3, 1e9])
def test_values_have_few_digits_at_every_scale(scale):
    scm = StructuralCausalModel("a", {"a": AffineFlow})
    scm.fit({"a": scale * torch.randn(2000, 1)})
    values = values_to_set(scm, "a", 7)
    assert len(values) == 7
    assert 0 <= decimals_of(scm, "a") <= 15
    assert all(math.isfinite(each) for each in values)
    if scale >= 1e-3:
        decimals = decimals_of(scm, "a")
        assert values == [round(each, decimals) for each in values]


def test_a_constant_has_one_value():
    scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": AffineFlow})
    scm.training_distribution.fit({"a": torch.full((50, 1), 3.25), "b": torch.randn(50, 1)})
    assert values_to_set(scm, "a", 7) == [3.25]
