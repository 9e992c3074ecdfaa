"""The evaluation at the end of ``deepscm fit`` and ``deepscm test``."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import shutil

import pytest
import pytorch_lightning as pl
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from world_columns import counterfactual

from deepscm_pl.callbacks import AssociationReport, EvaluationReport
from deepscm_pl.cli import main
from deepscm_pl.evaluation import ModelOnData, evaluate_importance_weighted_bound
from deepscm_pl.reports import Report
from deepscm_pl.training import DeepSCM, ImageClassifier

from tiny import CONFIGURATION, KnownTinyDataModule, TinyDataModule

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def configuration(root):
    settings = copy.deepcopy(CONFIGURATION)
    settings["data"] = {"class_path": "tiny.KnownTinyDataModule", "init_args": {"test_size": 12}}
    settings["trainer"]["callbacks"] = []
    settings["trainer"]["max_epochs"] = 1
    settings["trainer"]["default_root_dir"] = str(root)
    settings["association"] = {
        "num_importance_samples": 3,
        "reference": {"bound/thickness": -1.5},
        "reference_name": "paper",
    }
    settings["evaluation"] = {
        "interventions": ["thickness=2", "intensity=100, thickness=3"],
        "num_particles": 2,
        "density_size": 100,
        "workers": 1,
        "cache_dir": str(root / "cache"),
        "verdict": {"shown": 0.6},
    }
    return settings


def write(root, settings):
    path = root / "known.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A run on the known world: its folder, and what it printed, with tables."""
    root = tmp_path_factory.mktemp("known")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["fit", "--tables", "--config", str(write(root, configuration(root)))]) == 0
    return root / "lightning_logs" / "version_0", printed.getvalue()


@pytest.fixture
def known_checkpoint(known):
    return next((known[0] / "checkpoints").glob("epoch=*.ckpt"))


def test_fit_ends_with_the_whole_report(known):
    folder, printed = known
    document = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert document["world"] == "tiny"
    assert document["rows"] == 12
    assert list(document["counterfactual"]) == ["thickness=2", "intensity=100, thickness=3"]
    for answered in document["counterfactual"].values():
        quantities = answered["quantities"]
        assert quantities["error/ratio/particle"]["mean"] > 0
        assert quantities["error/ratio/particle"]["rows"] == 12
        assert quantities["reversibility/mean_absolute_error/10"]["mean"] >= 0
        assert quantities["effectiveness/thickness/noise_floor/absolute_error"]["mean"] < 0.1
    assert document["composition"]["composition/mean_absolute_error/10"]["mean"] < 0.1
    assert {each["done"] for each in document["intervention"]} == {True, False}
    assert "image/z" in document["noise"]
    markdown = (folder / "evaluation" / "evaluation.md").read_text()
    for picture in ("densities", "errors", "examples", "coverage", "noise"):
        assert f"]({picture}.png)" in markdown
        assert (folder / "evaluation" / f"{picture}.png").stat().st_size > 1000
    assert "Identity: no predictor was given." in markdown
    assert "Counterfactual: error against the truth" in printed
    for name in ("evaluation.md", "evaluation.html", "evaluation.json"):
        assert f"written: {folder / 'evaluation' / name}" in printed
    page = (folder / "evaluation" / "evaluation.html").read_text()
    pictures = list((folder / "evaluation").glob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures) >= 5
    assert document["verdict"]["headline"].capitalize() in page
    # The verdict comes after the tables, as the last paragraph.
    assert printed.rindex("Verdict: bad") > printed.rindex("Left out: ")


def test_association_has_the_reference_and_the_importance_weighted_bound(known):
    folder, printed = known
    quantities = json.loads((folder / "association.json").read_text())["quantities"]
    assert quantities["bound/thickness"]["reference"] == -1.5
    assert quantities["bound"]["rows"] == 12
    weighted, elbo = quantities["importance_weighted_bound/image"], quantities["bound/image"]
    assert weighted["mean"] > elbo["mean"] - 3 * elbo["standard_error"]
    assert weighted["mean"] == pytest.approx(elbo["mean"], rel=0.1)
    assert "| -1.5 |" in (folder / "association.md").read_text()
    assert "paper" in printed
    embedded = json.loads((folder / "evaluation" / "evaluation.json").read_text())["association"]
    assert embedded["bound/thickness"]["reference"] == -1.5


def test_the_gain_of_the_importance_weighted_bound_is_over_its_own_rows(known):
    """The evidence lower bound of other rows says nothing beside it."""
    model = ModelOnData.of(trained(known), KnownTinyDataModule(test_size=12), rows=5)
    found = evaluate_importance_weighted_bound(model, 4, batch_size=5, seed=1, progress=False)
    torch.manual_seed(1)
    with torch.inference_mode():
        expected = model.scm.importance_weighted_bound(model.rows(0, 5), 4)
    lower = expected.evidence_lower_bounds["image"].double().mean()
    gain = found.gaps["image"]
    difference = found.bounds["image"].mean - lower.item()
    assert gain.mean == pytest.approx(difference, abs=1e-3)
    assert gain.mean > 0
    assert gain.rows == 5
    assert list(found.gaps) == ["image"]
    single = evaluate_importance_weighted_bound(model, 1, progress=False)
    assert single.gaps["image"].mean == pytest.approx(0, abs=1e-3)


def test_the_gain_is_in_the_table(known):
    folder, printed = known
    quantities = json.loads((folder / "association.json").read_text())["quantities"]
    assert quantities["importance_weighted_gap/image"]["mean"] >= 0
    assert quantities["importance_weighted_gap/image"]["rows"] == 12
    assert "image, gain of K = 3 over the bound" in (folder / "association.md").read_text()
    assert "image, gain of K = 3 over the bound" in printed


def test_the_importance_weighted_bound_depends_on_its_seed_only(known):
    model = ModelOnData.of(trained(known), KnownTinyDataModule(test_size=12))
    before = torch.get_rng_state()
    first, again, other = (
        evaluate_importance_weighted_bound(model, 2, seed=seed, progress=False)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.bounds["image"].mean != other.bounds["image"].mean
    torch.testing.assert_close(torch.get_rng_state(), before)


def trained(known):
    return DeepSCM.load_from_checkpoint(next((known[0] / "checkpoints").glob("epoch=*.ckpt"))).scm


def test_a_quick_run_leaves_the_results_as_they_are(known, known_checkpoint):
    before = {path.name: path.read_bytes() for path in known[0].glob("association.*")}
    assert before
    words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET]
    assert main([*words, "--trainer.fast_dev_run", "true"]) == 0
    assert {path.name: path.read_bytes() for path in known[0].glob("association.*")} == before


@pytest.mark.parametrize("size", [1, 2])
def test_a_table_needs_no_more_than_a_row(known_checkpoint, tmp_path, size):
    model = DeepSCM.load_from_checkpoint(known_checkpoint)

    def report(samples):
        found = AssociationReport(num_importance_samples=samples)
        trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[found],
                             default_root_dir=tmp_path, enable_progress_bar=False,
                             enable_model_summary=False)  # fmt: skip
        trainer.test(model, datamodule=KnownTinyDataModule(test_size=size), verbose=False)
        return {row.key for row in found.rows}

    assert not any("importance" in key for key in report(0))
    assert any("importance" in key for key in report(2))


def test_tensorboard_has_scalars_pictures_and_real_hparams(known):
    events = EventAccumulator(str(known[0]))
    events.Reload()
    tags = events.Tags()
    assert "evaluation/thickness_2/error/ratio/particle" in tags["scalars"]
    assert len(tags["scalars"]) <= 40
    assert "evaluation/densities" in tags["images"]
    found = json.loads((known[0] / "evaluation" / "evaluation.json").read_text())
    in_order = sorted(tag for tag in tags["tensors"] if tag.startswith("evaluation/"))
    texts = {
        tag.split("/")[1].split()[-1]: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
        for tag in in_order
    }
    assert list(texts) == ["verdict", "numbers", "report"]
    for question in found["counterfactual"].values():
        for key in question["quantities"]:
            assert key.replace("_", "\\_") in texts["numbers"] or key in texts["numbers"]
    assert texts["report"].startswith("# Evaluation")
    assert ".png" not in texts["report"]
    assert "hp_metric" not in tags["scalars"]
    hparams = events.summary_metadata["_hparams_/experiment"].plugin_data
    assert hparams.plugin_name == "hparams"
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(hparams.content)
    names = {info.name.tag for info in data.experiment.metric_infos}
    assert "evaluation/thickness_2/error/ratio/particle" in names
    assert "evaluation/bound" in names
    assert names <= set(tags["scalars"])
    assert all(math.isfinite(events.Scalars(name)[-1].value) for name in names)
    started = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(started).session_start_info.hparams
    assert settings["mechanisms.image"].string_value == "ConditionalVAE"
    assert "mechanisms.image.levels" not in settings  # a default
    assert len(settings) < 30


def test_a_test_of_a_checkpoint_is_in_the_tensorboard_of_its_run(known, known_checkpoint, tmp_path):
    run = tmp_path / "lightning_logs" / "version_3"
    shutil.copytree(known[0], run)
    checkpoint = run / "checkpoints" / known_checkpoint.name

    def shifted():
        events = EventAccumulator(str(run))
        events.Reload()
        tags = events.Tags()["scalars"]
        return [
            (e.step, e.value) for t in tags if "thickness_plus_1" in t for e in events.Scalars(t)
        ]

    assert shifted() == []
    words = ["test", "--ckpt_path", str(checkpoint), *QUIET, "--evaluation.rows", "5"]
    words += ["--evaluation.cache_dir", str(known[0] / "cache"), "--evaluation.workers", "1"]
    assert main([*words, "--evaluation.interventions", "[thickness+=1]"]) == 0
    trained = torch.load(checkpoint, weights_only=True)["global_step"]
    assert trained > 0
    assert {step for step, _ in shifted()} == {trained}
    assert len(shifted()) >= 1
    assert list(run.parent.iterdir()) == [run]


def test_settings_travel_with_the_checkpoint(known, known_checkpoint, capsys):
    folder = known[0] / "evaluation"
    before = json.loads((folder / "evaluation.json").read_text())
    words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET]
    cache = ["--evaluation.cache_dir", str(known[0] / "cache"), "--evaluation.workers", "1"]
    assert main([*words, *cache]) == 0
    after = json.loads((folder / "evaluation.json").read_text())
    assert after["counterfactual"] == before["counterfactual"]
    assert after["association"]["bound/thickness"]["reference"] == -1.5
    assert "| log p(joint) ≥, 1 draw |" in (folder / "evaluation.md").read_text()
    assert after["verdict"]["thresholds"] == before["verdict"]["thresholds"]
    assert before["verdict"]["thresholds"]["shown"] == 0.6
    more = ["--evaluation.interventions", "[intensity+=1]", "--evaluation.rows", "6"]
    more += ["--evaluation.verdict.bits", "0.5", "--evaluation.verdict.exaggerated=3"]
    assert main([*words, *cache, *more]) == 0
    changed = json.loads((folder / "evaluation.json").read_text())
    limits = changed["verdict"]["thresholds"]
    chosen = {"shown": 0.6, "bits": 0.5, "exaggerated": 3, "gain": 0.01}
    assert {name: limits[name] for name in chosen} == chosen
    assert list(changed["counterfactual"]) == ["intensity+=1"]
    assert changed["rows"] == 6
    printed = capsys.readouterr().out
    assert "Evaluated: The first 6 of 12 rows of the test split." in printed
    assert "log p(" not in printed  # tables are in the report only
    stated = "Limits other than the defaults: verdict.bits = 0.5 (0.01), verdict.shown = 0.6 (0.5)"
    for name in ("evaluation.md", "evaluation.html"):
        assert stated in (folder / name).read_text().replace("\\_", "_")
    assert f"{stated}, verdict.exaggerated = 3 (1.5)." in " ".join(printed.split())
    assert "The first 6 of 12 rows" in (folder / "evaluation.md").read_text()


def test_an_interrupted_evaluation_leaves_the_former_report(known, known_checkpoint, monkeypatch):
    """Wherever it stops, the folder is the old one or the new one; then it starts afresh."""
    folder = known[0] / "evaluation"

    def reports():
        files = [*folder.iterdir(), *known[0].glob("association.*")]
        return {path.name: path.read_bytes() for path in files}

    before = reports()
    assert {"association.json", "association.md", "evaluation.json"} <= before.keys()
    words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET, "--evaluation.rows", "5"]
    words += ["--evaluation.cache_dir", str(known[0] / "cache"), "--evaluation.workers", "1"]

    def stop(*_, **__):
        raise KeyboardInterrupt

    places = (
        "callbacks.evaluation.evaluate",
        "reports.report.save_figure",
        "reports.report.render_page",
    )
    for place in places:
        with monkeypatch.context() as patch:
            patch.setattr(f"deepscm_pl.{place}", stop)
            with contextlib.suppress(SystemExit):
                main(words)
        assert reports() == before, place
        assert not list(known[0].glob(".evaluation*"))
    assert main([*words, "--association.num_importance_samples", "4"]) == 0
    after = json.loads((folder / "evaluation.json").read_text())
    assert after["rows"] == 5
    association = json.loads((known[0] / "association.json").read_text())["quantities"]
    for name, row in after["association"].items():
        assert association[name]["mean"] == row["mean"], name
    assert reports()["association.json"] != before["association.json"]


def test_without_originals_the_truth_is_left_out_and_said_to_be(known_checkpoint, known):
    words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET]
    assert main([*words, "--data.has_originals", "false"]) == 0
    document = json.loads((known[0] / "evaluation" / "evaluation.json").read_text())
    assert any("there are no originals here" in reason for reason in document["left_out"])
    assert document["intervention"]
    for answered in document["counterfactual"].values():
        assert "reversibility/mean_absolute_error/1" in answered["quantities"]
        assert not any(key.startswith("error/") for key in answered["quantities"])
    assert document["noise"]


def test_without_a_world_what_is_left_still_runs(run):
    document = json.loads((run[0] / "evaluation" / "evaluation.json").read_text())
    assert document["world"] is None
    assert document["intervention"]
    assert all(each["wasserstein_distance"] is None for each in document["intervention"])
    assert any("no known world" in reason for reason in document["left_out"])
    assert len(document["counterfactual"]) == 4
    for answered in document["counterfactual"].values():
        assert "reversibility/mean_absolute_error/10" in answered["quantities"]
    assert document["noise"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "other.OtherVariables"], "the model has the variables thickness, intensity"),
        (["--evaluation.rows", "13"], "rows: expected from 3 to 12"),
        (["--evaluation.rows", "2"], "rows: expected from 3 to 12"),
        (["--evaluation.detail_rows", "13"], "detail_rows: expected from 2 to 12"),
        (
            ["--evaluation.num_particles", "0"],
            "num_particles: expected a whole number",
        ),
        (["--evaluation.density_size", "1"], "density_size: expected a whole number"),
        (["--evaluation.interventions", "[thickness]"], "do: cannot read 'thickness'"),
        (["--evaluation.interventions", "[colour=1]"], "do: unknown variable 'colour'"),
        (["--evaluation.interventions", "[image=1]"], "image"),
        (["--evaluation.interventions", "[thickness=-1]"], "do(thickness): expected"),
        (["--evaluation.density_values", "{colour: [1]}"], "no attribute 'colour'"),
        (["--evaluation.predictor", "missing.ckpt"], "there is no file missing.ckpt"),
        (["--evaluation.verdict.p_value", "2"], "evaluation.verdict.p_value: expected a number of"),
        (
            ["--evaluation.verdict.coverage", "0.3"],
            "evaluation.verdict.coverage: expected at most wrong_coverage (0.15), but got 0.3",
        ),
        (["--association.importance_rows", "13"], "rows: expected from 1 to 12"),
        (["--association.num_importance_samples", "-1"], "num_importance_samples: expected"),
        (["--association.reference", "{bond: 1}"], "there is no quantity 'bond'"),
    ],
)
def test_bad_input_stops_before_the_work(known_checkpoint, capsys, monkeypatch, words, message):
    seen = []
    monkeypatch.setattr(DeepSCM, "test_step", lambda *args: seen.append(args))
    assert main(["test", "--ckpt_path", str(known_checkpoint), *QUIET, *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not seen


def test_an_attribute_that_the_world_lacks_cannot_be_intervened_on(tmp_path, capsys):
    """The model has a variable more than the world."""
    settings = configuration(tmp_path)
    settings["data"] = {"class_path": "other.OneMore"}
    settings["model"]["graph"] = "age; thickness -> intensity; thickness, intensity -> image"
    settings["model"]["mechanisms"]["age"] = {"class_path": "deepscm_pl.mechanisms.AffineFlow"}
    settings["evaluation"]["interventions"] = ["age=3"]
    assert main(["fit", "--config", str(write(tmp_path, settings))]) == 1
    error = capsys.readouterr().err
    assert "the world tiny has no attribute 'age'" in error
    assert "intervene on thickness, intensity" in error


def test_a_predictor_has_to_be_loaded(known_checkpoint):
    report = EvaluationReport(predictor="some.ckpt")
    model = DeepSCM.load_from_checkpoint(known_checkpoint)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[report],
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    with pytest.raises(ValueError, match=r"some\.ckpt is not loaded"):
        trainer.test(model, datamodule=KnownTinyDataModule(), verbose=False)


def test_a_classifier_set_in_python_judges_identity(known_checkpoint, tmp_path):
    report = EvaluationReport(interventions=["thickness=2"], density_size=50,
                              num_particles=1, workers=1, cache_dir=str(tmp_path))  # fmt: skip
    report.classifier = lambda images: (images[:, 0, 1, 0] >= 128).long()
    model = DeepSCM.load_from_checkpoint(known_checkpoint)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[report],
                         default_root_dir=tmp_path, enable_progress_bar=False,
                         enable_model_summary=False)  # fmt: skip
    trainer.test(model, datamodule=KnownTinyDataModule(), verbose=False)
    assert isinstance(report.report, Report)
    found = report.report.as_plain_data()["counterfactual"]["thickness=2"]["quantities"]
    assert found["identity/truth"]["mean"] == 1
    assert 0 <= found["identity/kept"]["mean"] <= 1
    assert (tmp_path / "evaluation" / "evaluation.json").is_file()


class NearestLevel(nn.Module):
    """The class is the level that the brightness of the top left pixel is nearest to."""

    def __init__(self, shape, classes):
        super().__init__()
        self.levels = nn.Parameter(torch.zeros(classes))

    def forward(self, image):
        return -(image[:, 0, 0, :1] - self.levels).square()


LEVELS = torch.tensor([90.0, 130.0, 230.0])


def nearest_level(images):
    return (images[:, 0, 0, :1].float() - LEVELS).abs().argmin(dim=1)


@pytest.fixture
def predictor(tmp_path):
    """A checkpoint of a classifier that sees the nearest of three levels."""
    model = ImageClassifier((1, 8, 8), classes=3, network=NearestLevel)
    model.network.levels.data = 2 * LEVELS / 255 - 1
    trainer = pl.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.validate(model, datamodule=KnownTinyDataModule(), verbose=False)
    trainer.save_checkpoint(tmp_path / "predictor.ckpt")
    return tmp_path / "predictor.ckpt"


def test_a_predictor_judges_identity_by_its_most_likely_class(known, known_checkpoint, predictor):
    """As classifying the true images by hand does."""
    words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET, "--evaluation.workers", "1"]
    assert main([*words, "--evaluation.predictor", str(predictor)]) == 0
    document = json.loads((known[0] / "evaluation" / "evaluation.json").read_text())
    found = document["counterfactual"]["thickness=2"]["quantities"]

    model = ModelOnData.of(trained(known), KnownTinyDataModule(test_size=12))
    attributes = counterfactual(model.world, model.columns(), {"thickness": 2.0})
    truth = torch.from_numpy(model.world.render(model.originals, attributes))[:, None]
    kept = nearest_level(truth) == nearest_level(model.variables["image"])
    assert 0 < kept.sum() < 12
    assert found["identity/truth"]["mean"] == pytest.approx(kept.double().mean().item())
    assert 0 <= found["identity/kept"]["mean"] <= 1


def test_nothing_is_evaluated_when_disabled(known_checkpoint, tmp_path):
    report = EvaluationReport(enabled=False)
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[report],
                         default_root_dir=tmp_path, enable_progress_bar=False,
                         enable_model_summary=False)  # fmt: skip
    model = DeepSCM.load_from_checkpoint(known_checkpoint)
    trainer.test(model, datamodule=TinyDataModule(), verbose=False)
    assert report.report is None
    assert not (tmp_path / "evaluation").exists()
    assert torch.is_inference_mode_enabled() is False


def test_the_evaluation_runs_in_the_precision_of_the_trainer(known, known_checkpoint, monkeypatch):
    seen = []

    def look(*_, **__):
        seen.append(torch.is_autocast_enabled("cpu"))
        raise KeyboardInterrupt

    monkeypatch.setattr("deepscm_pl.callbacks.evaluation.evaluate", look)
    for precision in ("32-true", "bf16-mixed"):
        words = ["test", "--ckpt_path", str(known_checkpoint), *QUIET]
        with contextlib.suppress(SystemExit):
            main([*words, "--trainer.precision", precision])
    assert seen == [False, True]
