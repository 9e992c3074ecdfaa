"""Overlap in evaluations: verdicts, and errors against known worlds by verdict."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_evaluation_pictures import check_legible
from torch.distributions import AffineTransform

from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, evaluate
from deepscm_pl.evaluation.overlap import _mean, evaluate_overlap
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.mechanisms import AffineFlow, Known
from deepscm_pl.overlap import VERDICTS, OverlapThresholds
from deepscm_pl.reports import Report
from deepscm_pl.reports.overlap import overlap_error_table, overlap_table
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.worlds import KnownWorld

from oracle import IntensityAlone, Picture, Thickness, make
from tiny import KnownTinyDataModule, TinyDataModule


def _curve(parents):
    return [AffineTransform(parents["a"] ** 2, 0.1)]


class Parabola(KnownWorld):
    """b = a² + 0.1 u; attributes only."""

    name = "parabola"

    def __init__(self):
        normal = partial(Known, layers=lambda parents: [AffineTransform(0.0, 1.0)])
        effect = partial(Known, layers=_curve)
        super().__init__("parabola", StructuralCausalModel("a -> b", {"a": normal, "b": effect}))


class ParabolaDataModule(CausalDataModule):
    def __init__(self):
        super().__init__(batch_size=64, validation_size=100)

    @property
    def world(self):
        return Parabola()

    def load(self):
        def split(size, seed):
            sample = self.world.sample(size, np.random.default_rng(seed))
            return {n: torch.from_numpy(c).float()[:, None] for n, c in sample.items()}

        return SourceSplits(train=split(3000, 1), test=split(200, 2))


def trained(data, steps=600, **settings):
    torch.manual_seed(0)
    scm = StructuralCausalModel("a -> b", {"a": AffineFlow, "b": partial(AffineFlow, **settings)})
    values = data.variables("train")
    scm.fit(values)
    optimiser = torch.optim.Adam(scm.parameters(), 0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        (-scm.log_prob(values).mean()).backward()
        optimiser.step()
    return scm.eval()


@pytest.fixture(scope="module")
def parabola():
    data = ParabolaDataModule()
    scm = trained(data, hidden=(32,))
    model = ModelOnData.of(scm, data)
    settings = EvaluationSettings(["a=1", "a=9", "a+=0.5"], density_size=50, workers=1)
    return model, evaluate(model, settings, progress=False)


def test_error_against_the_truth_rises_with_the_verdict(parabola):
    """The model is piecewise linear, and right only where training rows are."""
    (error,) = parabola[1].overlap.errors
    assert error.variable == "b"
    means = [error.by_verdict[verdict] for verdict in VERDICTS]
    for first, second in pairwise(means):
        assert first.mean + 3 * first.standard_error < second.mean - 3 * second.standard_error
    # The curve falls: fewer rows, larger errors.
    curve = [each.error.mean for each in error.by_rows if each.error.rows > 20]
    assert len(curve) >= 4
    assert curve[0] == max(curve)
    assert curve[-1] < 0.05 * curve[0]


def test_every_answer_is_in_one_verdict_and_one_interval(parabola):
    overlap = parabola[1].overlap
    (error,) = overlap.errors
    answers = len(overlap.asked) * overlap.rows
    assert answers == sum(each.rows for each in error.by_verdict.values())
    assert answers == sum(each.error.rows for each in error.by_rows)
    assert all(each.low < each.high for each in error.by_rows)
    low, high = parabola[0].scm.training_distribution.limits("a")
    values = [float(text.removeprefix("a=")) for text in overlap.asked]
    assert min(values) == pytest.approx(low - (high - low) / 2, rel=0.02)
    assert max(values) == pytest.approx(high + (high - low) / 2, rel=0.02)


def test_rows_are_counted_by_verdict(parabola):
    verdicts = parabola[1].overlap.verdicts
    assert verdicts["a=1"] == {"supported": 200, "edge": 0, "extrapolated": 0}
    assert verdicts["a=9"] == {"supported": 0, "edge": 0, "extrapolated": 200}
    assert sum(verdicts["a+=0.5"].values()) == 200
    assert verdicts["a+=0.5"]["supported"] > 180
    assert parabola[1].overlap.total("extrapolated") >= 200


def test_a_right_model_has_no_error_anywhere():
    """The oracle of the tiny world: its verdicts are the same, and its errors are zero."""
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=20))
    questions = [Question("thickness=2", model.scm.variables)]
    with torch.inference_mode():
        found = evaluate_overlap(model, questions, rows=20, workers=1, progress=False)
    errors = {each.variable: each for each in found.errors}
    assert set(errors) == {"image", "intensity"}
    for estimate in errors["intensity"].by_verdict.values():
        assert estimate.mean == pytest.approx(0, abs=1e-4)
    assert all(each.mean > 0 for each in errors["intensity"].unchanged.values())
    # Hidden columns of the texture are drawn, so that images differ from the truth by chance.
    assert all(each.mean > 0 for each in errors["image"].by_verdict.values())
    assert all(0 < float(t.split("=")[1]) <= 255 for t in found.asked)


def test_models_without_an_image_are_compared_by_their_attributes():
    data = KnownTinyDataModule(test_size=20)
    mechanisms = {"thickness": Thickness, "intensity": IntensityAlone}
    scm = StructuralCausalModel("thickness -> intensity", mechanisms).eval()
    found = evaluate(ModelOnData.of(scm, data), EvaluationSettings(density_size=50), progress=False)
    (error,) = found.overlap.errors
    assert error.variable == "intensity"
    # An intensity that ignores the thickness is as wrong as no change at all.
    for verdict, estimate in error.by_verdict.items():
        assert estimate.mean > 5
        assert estimate.mean == pytest.approx(error.unchanged[verdict].mean)


def test_worlds_without_originals_give_errors_of_attributes_only():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=20, has_originals=False))
    found = evaluate(model, EvaluationSettings(["thickness=2"], 1, density_size=50), progress=False)
    assert [each.variable for each in found.overlap.errors] == ["intensity"]


def test_errors_do_not_depend_on_batches():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=20))
    found = []
    for size in (20, 7):
        torch.manual_seed(0)
        with torch.inference_mode():
            found.append(
                evaluate_overlap(model, [], rows=20, batch_size=size, workers=1, progress=False)
            )
    images = [{e.variable: e for e in each.errors}["image"] for each in found]
    for verdict, estimate in images[0].by_verdict.items():
        other = images[1].by_verdict[verdict]
        assert estimate.rows == other.rows
        # Of another draw of the hidden texture.
        assert estimate.mean == pytest.approx(other.mean, rel=0.3)
        unchanged = [each.unchanged[verdict].mean for each in images]
        assert unchanged[0] == pytest.approx(unchanged[1])


class Restricted(Picture):
    """An image that has learned thickness up to 4, the largest in its training data."""

    def forward(self, noise, parents):
        return super().forward(noise, {**parents, "thickness": parents["thickness"].clamp(max=4)})


def test_images_are_wrong_where_they_were_not_trained():
    data = KnownTinyDataModule(test_size=20)
    errors = {}
    torch.manual_seed(0)
    for picture in (Picture, Restricted):
        model = ModelOnData.of(make(picture), data)
        narrow = model.training["thickness"].flatten() <= 4
        # As many rows as for a real model.
        training = {n: each[narrow].repeat(50, 1) for n, each in model.training.items()}
        part = replace(model, training=training)
        with torch.inference_mode():
            found = evaluate_overlap(part, [], rows=20, workers=1, progress=False)
        errors[picture] = {each.variable: each.by_verdict for each in found.errors}["image"]
    right, wrong = errors[Picture], errors[Restricted]
    # Both draw the hidden texture, and only the second misses what is beyond.
    assert wrong["supported"].mean == pytest.approx(right["supported"].mean, rel=0.2)
    gain = wrong["extrapolated"].mean - right["extrapolated"].mean
    assert gain > 10 * abs(wrong["supported"].mean - right["supported"].mean)
    assert wrong["extrapolated"].mean > 4 * wrong["supported"].mean


def test_thresholds_are_settings(parabola):
    model, _ = parabola
    settings = EvaluationSettings(["a=1"], density_size=50, overlap_rows=0, overlap_edge=1e9)
    found = evaluate(model, settings, progress=False).overlap
    assert found.thresholds == OverlapThresholds(1.0, 1e9)
    assert found.verdicts["a=1"] == {"supported": 0, "edge": 200, "extrapolated": 0}
    assert (found.errors, found.asked, found.rows) == ((), (), 0)
    strict = replace(settings, overlap_extrapolated=1e9)
    found = evaluate(model, strict, progress=False).overlap
    assert found.verdicts["a=1"]["extrapolated"] == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap_extrapolated": 0}, "overlap_extrapolated: expected a number above 0"),
        ({"overlap_extrapolated": 20}, "overlap_edge: expected a number of at least 20"),
        ({"overlap_edge": 0.5}, "overlap_edge: expected a number of at least 1"),
        ({"overlap_edge": math.nan}, "overlap_edge"),
        ({"overlap_rows": -1}, "overlap_rows"),
        ({"overlap_rows": 2.5}, "overlap_rows"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**settings)


def test_models_of_earlier_versions_are_compared_with_the_training_split(parabola):
    """They keep no training distribution, but the data have it."""
    model, found = parabola
    scm = StructuralCausalModel(
        "a -> b", {name: model.scm[name] for name in model.scm.graph.nodes}
    ).eval()
    older = replace(model, scm=scm)
    assert not scm.training_distribution.is_known
    questions = [Question(text) for text in found.overlap.verdicts]
    computed = evaluate_overlap(older, questions, rows=0, progress=False)
    assert computed.verdicts == found.overlap.verdicts
    assert not scm.training_distribution.is_known
    unknown = replace(older, training={})
    assert evaluate_overlap(unknown, questions, rows=0, progress=False) is None
    settings = EvaluationSettings(["a=1"], density_size=50)
    evaluation = evaluate(unknown, settings, progress=False)
    assert any(
        reason.startswith("Overlap: the model of an earlier") for reason in evaluation.left_out
    )
    report = Report(unknown, evaluation)
    assert "overlap" not in report.tables
    assert report.as_plain_data()["overlap"] is None


def test_impossible_rows_have_no_verdict():
    model = ModelOnData.of(make(), KnownTinyDataModule(test_size=20))
    thickness = model.variables["thickness"][:, 0]
    question = Question("thickness+=4", model.scm.variables)
    found = evaluate_overlap(model, [question], rows=0, progress=False)
    impossible = found.by_row["thickness+=4"] == -1
    assert torch.equal(impossible, thickness + 4 > 8)
    assert sum(found.verdicts["thickness+=4"].values()) == int((~impossible).sum())


def test_numbers_reach_table_json_document_and_tensorboard(parabola, tmp_path):
    model, found = parabola
    report = Report(model, found)
    table = overlap_table(found.overlap, model.scm.variables)
    assert table.columns == ["intervention", *VERDICTS]
    assert list(table.rows[1]) == ["do(a = 9)", "0", "0", "200"]
    counted = found.overlap.total("extrapolated")
    assert f"{counted} of 600 answers extrapolate" in table.title
    errors = overlap_error_table(found.overlap)
    (error,) = found.overlap.errors
    assert [row[2] for row in errors.rows] == list(VERDICTS)
    assert [int(row[3]) for row in errors.rows] == [e.rows for e in error.by_verdict.values()]
    report.write(tmp_path / "report")
    saved = json.loads((tmp_path / "report" / "evaluation.json").read_text())["overlap"]
    assert saved["verdicts"] == found.overlap.verdicts
    assert saved["thresholds"] == {"extrapolated": 1.0, "edge": 10.0}
    for verdict, estimate in error.by_verdict.items():
        assert saved["errors"]["b"]["by_verdict"][verdict]["mean"] == estimate.mean
    assert (tmp_path / "report" / "overlap.png").is_file()
    text = (tmp_path / "report" / "evaluation.md").read_text()
    assert "## Overlap with the training data" in text
    assert "no data support them" in text
    assert "(overlap.png)" in text
    scalars = report.scalars()
    assert scalars["evaluation/overlap/a_9/extrapolated"] == 200
    assert scalars["evaluation/overlap/error/b/supported"] == error.by_verdict["supported"].mean


def test_the_picture_shows_each_interval_and_the_mean_of_each_verdict(parabola):
    _, found = parabola
    figure = Report(*parabola).pictures["overlap"]
    (axes,) = figure.axes
    (error,) = found.overlap.errors
    points = axes.containers[0][0].get_ydata()
    shown = [each.error.mean for each in error.by_rows if math.isfinite(each.error.standard_error)]
    assert list(points) == shown
    heights = {line.get_ydata()[0] for line in axes.lines if len(line.get_ydata()) == 2}
    assert {each.mean for each in error.by_verdict.values()} <= heights
    assert axes.get_ylabel() == "mean absolute error"
    assert axes.get_xlabel() == "effective number of training rows"
    check_legible(figure)


def test_example_images_are_marked():
    model = ModelOnData.of(make(), TinyDataModule())
    settings = EvaluationSettings(["thickness=7.5", "thickness=2.5"], 1, density_size=50)
    found = evaluate(model, settings, progress=False)
    assert set(found.overlap.by_row["thickness=7.5"].tolist()) == {2}
    assert 2 not in found.overlap.by_row["thickness=2.5"][:4].tolist()
    figure = Report(model, found).pictures["examples"]
    marks = [text for text in figure.axes[0].texts if text.get_text() == "extrapolated"]
    assert len(marks) == 4
    assert len({round(mark.get_position()[0], 6) for mark in marks}) == 1
    check_legible(figure)


def test_standard_errors_are_of_rows_and_not_of_answers():
    """Equal values within a row add nothing."""
    torch.manual_seed(0)
    values = np.random.default_rng(0).normal(size=50)
    single = _mean(values, np.arange(50.0))
    repeated = _mean(np.tile(values, 8), np.tile(np.arange(50.0), 8))
    assert single.standard_error == pytest.approx(values.std() / 50**0.5)
    assert repeated.standard_error == pytest.approx(single.standard_error)
    assert (repeated.mean, repeated.rows) == (pytest.approx(single.mean), 400)
    assert math.isnan(_mean(values[:1], np.zeros(1)).standard_error)
