"""Calibrated intervals hold what they promise, on rows that the calibration has not seen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from deepscm_pl.callbacks import EvaluationReport
from deepscm_pl.checkpoints import load
from deepscm_pl.checkpoints.calibrated import store_calibration
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.evaluation import EvaluationSettings, ModelOnData, calibrate, evaluate
from deepscm_pl.evaluation.calibration import calibrate_by_composition, calibrate_by_follow_up
from deepscm_pl.evaluation.counterfactuals import TrueImages, true_images
from deepscm_pl.evaluation.intervals import GROUPS, Calibration, IntervalFactor, group_of
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.moments import Moments
from deepscm_pl.reports import Report

from oracle import Photograph, Picture, Timid, make
from tiny import KnownTinyDataModule

TEXT = "thickness=7.5"


class Certain(Picture):
    """An image whose particles are nearly equal, although they hide a texture."""

    def abduct(self, value, parents, sample_shape=()):
        drawn = super().abduct(value, parents, sample_shape)["u"]
        return {"u": drawn[:1] + 0.2 * (drawn - drawn[:1])} if sample_shape else {"u": drawn}


def validation(scm, rows=200):
    data = KnownTinyDataModule(test_size=rows)
    return ModelOnData.of(scm, data, rows, split="test")


def calibrated(scm, rows=200, particles=9, **settings):
    model = validation(scm, rows)
    questions = [Question(TEXT)]
    truths = list(true_images(model, questions, 1, False))
    return calibrate(model, questions, truths, particles, progress=False, **settings)


@pytest.mark.parametrize("picture", [Picture, Certain, Timid])
def test_new_rows_are_held(picture):
    """Overconfident particles, too: here the texture of hidden columns is drawn once or nearly."""
    data = KnownTinyDataModule(test_size=200, validation_size=60)
    scm = make(picture)
    found = evaluate(
        ModelOnData.of(scm, data),
        EvaluationSettings([TEXT], num_particles=9, workers=1, detail_rows=200, density_size=100),
        progress=False,
        validation=ModelOnData.of(scm, data, split="validation"),
    )
    intervals = found.counterfactuals[0].intervals
    assert intervals.covered_varying.mean == pytest.approx(0.9, abs=0.04)
    ratio = intervals.spread_over_error.mean
    if picture is Picture:
        assert ratio == pytest.approx((9 / 10) ** 0.5, abs=0.03)
    else:
        assert ratio < 0.3
        assert found.counterfactuals[0].coverage.varying[0.5].mean < 0.3
    text = Report(ModelOnData.of(scm, data), found).as_markdown()
    assert "calibrated on 60 validation rows of the world tiny" in text


def test_without_validation_rows_the_report_calls_intervals_lower_bounds():
    model = validation(make())
    settings = EvaluationSettings([TEXT], num_particles=3, workers=1, density_size=100)
    found = evaluate(model, settings, progress=False)
    assert found.calibration is None
    assert found.counterfactuals[0].intervals.covered_all is None
    assert found.counterfactuals[0].intervals.spread_over_error is not None
    assert "Intervals of the particles are lower bounds" in Report(model, found).as_markdown()


def drawn(rows, seed):
    """Rows of the oracle as a model on data, without its world."""
    torch.manual_seed(seed)
    scm = make()
    return ModelOnData(scm, scm.sample(rows), None, None)


def share_inside(calibration, scm, factual, do, truth, title):
    particles = scm.counterfactual(factual, do, 9)["image"]
    half = calibration.half_width(title, list(do), Moments.of(particles), factual["image"])
    varying = (particles != truth).any(dim=0)
    inside = (particles.mean(dim=0) - truth).abs() <= half
    return float(inside[varying].float().mean())


def test_intervals_are_calibrated_by_later_visits():
    """Visits are drawn from the truth; the model is too certain; new pairs are held."""
    model, truth = drawn(400, 0), make()
    later = model.variables["thickness"] + 2
    with torch.no_grad():
        after = {
            n: v[0] for n, v in truth.counterfactual(model.variables, {"thickness": later}).items()
        }
    names = [f"person {k}" for k in range(200)]
    wrong = make(Certain)
    visits = replace(
        model,
        scm=wrong,
        variables={n: torch.cat([v[:200], after[n][:200]]) for n, v in model.variables.items()},
        identifiers=[*names, *names],
    )
    found = calibrate_by_follow_up(visits, ["thickness"], 9, progress=False)
    assert found.source == "200 pairs of visits in the validation split"
    factual = {name: value[200:] for name, value in model.variables.items()}
    do, true = {"thickness": later[200:]}, after["image"][200:]
    title = "do(thickness = 5)"
    assert share_inside(found, wrong, factual, do, true, title) == pytest.approx(0.9, abs=0.03)
    alone = replace(visits, identifiers=[str(k) for k in range(400)])
    with pytest.raises(ValueError, match="need at least 9 pairs"):
        calibrate_by_follow_up(alone, ["thickness"], 9, progress=False)
    with pytest.raises(ValueError, match="follow_up: expected some of thickness, intensity"):
        calibrate_by_follow_up(visits, ["age"], 9, progress=False)
    with pytest.raises(ValueError, match="no identifiers of persons"):
        calibrate_by_follow_up(model, ["thickness"], 9, progress=False)


def test_intervals_of_reconstructions_are_lower_bounds(checkpoint):
    loaded = load(checkpoint)
    data = loaded.data()
    model = ModelOnData.of(loaded.scm, data, split="validation")
    with torch.no_grad():
        found = calibrate_by_composition(model, 9, progress=False)
    assert not found.is_complete
    assert found.source == f"the reconstruction of {len(model)} validation images"
    assert min(each.factor for each in found.factors) > 0
    with torch.no_grad():  # a model without latents has no reconstruction
        assert calibrate_by_composition(drawn(20, 1), 9, progress=False) is None
    settings = EvaluationSettings(num_particles=9, workers=1, density_size=100)
    test = ModelOnData.of(loaded.scm, data)
    evaluated = evaluate(replace(test, world=None), settings, progress=False, validation=model)
    text = Report(test, evaluated).as_markdown()
    assert "lower bounds: they were calibrated on the reconstruction of" in text


def test_groups_are_by_spread_and_change():
    particles = torch.tensor([[0.0, 10.0, 100.0], [0.0, 12.0, 120.0]])
    factual = torch.tensor([0.0, 10.0, 10.0])
    assert [GROUPS[k] for k in group_of(Moments.of(particles), factual)] == [
        "equal",
        "kept",
        "changed",
    ]


def test_factors_of_other_interventions_are_the_largest():
    factors = [
        IntervalFactor("do(a = 1)", ("a",), "kept", 2.0, 20),
        IntervalFactor("do(a = 2)", ("a",), "kept", 3.0, 20),
        IntervalFactor("do(b = 2)", ("b",), "kept", 5.0, 20),
    ]
    calibration = Calibration(0.9, 9, 1, factors, "the truth")
    assert calibration.factors_of("do(a = 1)", ["a"])["kept"] == 2
    assert calibration.factors_of("do(a = 7)", ["a"])["kept"] == 3
    assert calibration.factors_of("do(c = 7)", ["c"])["kept"] == 5
    assert calibration.is_exact("do(a = 1)")
    assert not calibration.is_exact("do(a = 7)")


def test_an_ensemble_is_calibrated_as_a_whole():
    scm = make(Timid)
    model = validation(scm)
    others = [make(Timid), make(Timid)]
    for other in others:
        other.describe(scm.variables)
    model = replace(model, ensemble=Ensemble([scm, *others]))
    questions = [Question(TEXT)]
    truths = list(true_images(model, questions, 1, False))
    found = calibrate(model, questions, truths, 9, progress=False)
    alone = calibrated(scm)
    assert (found.members, alone.members) == (3, 1)
    changed = {each.group: each.factor for each in found.factors}["changed"]
    # Three members disagree where one is certain.
    assert changed < 0.2 * {each.group: each.factor for each in alone.factors}["equal"]


def test_it_is_stored_with_the_model(checkpoint, altered):
    assert load(checkpoint).calibration is not None  # a training ends with a test
    path = altered(calibration=None)
    assert load(path).calibration is None
    before = torch.load(path, weights_only=True)
    factors = [IntervalFactor("do(a = 1)", ("a",), "kept", 2.0, 20)]
    calibration = Calibration(0.9, 9, 1, factors, "the truth")
    store_calibration(path, calibration)
    found = load(path).calibration
    assert found == calibration
    after = torch.load(path, weights_only=True)
    assert after.keys() - before.keys() == {"calibration"}
    assert all(torch.equal(before["state_dict"][k], v) for k, v in after["state_dict"].items())


def test_bad_calibrations_are_refused():
    scm = make()
    model, questions = validation(scm), [Question(TEXT)]
    with pytest.raises(ValueError, match="expected the truth of each intervention"):
        calibrate(model, questions, [], 9, progress=False)
    with pytest.raises(ValueError, match="num_particles: expected"):
        calibrated(scm, particles=1)
    with pytest.raises(ValueError, match="need at least 9 rows, but there are 8"):
        calibrated(scm, rows=8)
    for broken in ("[]", "{}", '{"factors": 3}', {"factors": [{"variables": 3}]}, "no json"):
        with pytest.raises(ValueError, match="calibration: expected the content"):
            Calibration.read(broken)
    with pytest.raises(ValueError, match="calibration_rows: expected"):
        EvaluationSettings(calibration_rows=-1)


def test_an_evaluation_without_varying_pixels_has_no_calibration():
    """Nothing changes under an intervention on nothing that the image shows."""
    model = validation(make(Photograph))
    image = model.variables["image"]
    same = TrueImages(image, torch.ones(len(image), dtype=torch.bool), {})
    assert calibrate(model, [Question(TEXT)], [same], 9, progress=False) is None


def test_an_evaluation_restores_every_member(checkpoint):
    members = [load(checkpoint).scm for _ in range(2)]
    for member in members:
        member.train()
    data = load(checkpoint).data()
    model = ModelOnData.of(members[0], data)
    members[1].describe(members[0].variables)
    settings = EvaluationSettings(num_particles=3, workers=1, density_size=100, coupling="renewed")
    evaluate(replace(model, ensemble=Ensemble(members)), settings, progress=False)
    assert [member["image"].coupling for member in members] == ["kept", "kept"]
    assert all(member.training for member in members)


def test_too_few_visits_are_refused_before_a_training(checkpoint, monkeypatch):
    loaded = load(checkpoint)
    data = loaded.data()
    names = lambda split: [str(k) for k in range(len(data.variables(split)["index"]))]  # noqa: E731
    monkeypatch.setattr(data, "identifiers", names)
    trainer = SimpleNamespace(callbacks=[], datamodule=data, fast_dev_run=False)
    report = EvaluationReport(follow_up=["thickness"], calibration_rows=20)
    module = SimpleNamespace(scm=loaded.scm)
    with pytest.raises(ValueError, match="need at least 9 pairs of visits"):
        report.setup(trainer, module, "fit")
