"""The program, as a user runs it: fit, test, predict, and its errors."""

from __future__ import annotations

import csv
import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl.cli import main
from deepscm_pl.training import DeepSCM

from tiny import CONFIGURATION, UNEVALUATED, write_configuration


def test_fit_says_what_it_made_and_what_is_next(run):
    folder, printed = run
    table = (folder / "association.md").read_text()
    assert "log p(intensity \\| thickness)" in table
    assert "bits per dimension" in table
    assert "log p(" not in printed  # tables are in the report only
    assert f"tensorboard --logdir {folder}" in printed
    assert "deepscm counterfactual --ckpt_path" in printed
    assert printed.count("last.ckpt --trust tiny") + printed.count("1.ckpt --trust tiny") == 2
    written = [
        Path(line.removeprefix("written: "))
        for line in printed.splitlines()
        if line.startswith("written: ")
    ]
    assert any(path.name == "counterfactual-image-test.png" for path in written)
    assert all(path.is_file() for path in written)
    assert not any("epoch=" in path.name for path in written)
    of_epochs = len(list((folder / "checkpoints").glob("*-epoch=*.png")))
    assert f"And {of_epochs} pictures of earlier epochs in {folder / 'checkpoints'}" in printed


def test_run_folder_is_complete(run):
    folder, _ = run
    assert (folder / "config.yaml").is_file()
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    table = json.loads((folder / "association.json").read_text())
    quantities = table["quantities"]
    terms = sum(quantities[f"bound/{name}"]["mean"] for name in ("thickness", "intensity", "image"))
    assert quantities["bound"]["mean"] == pytest.approx(terms)
    assert quantities["bound"]["standard_error"] > 0
    assert quantities["kl/image"]["mean"] >= 0
    markdown = (folder / "association.md").read_text()
    assert "| log p(thickness) | nats |" in markdown
    assert f"{quantities['bound']['mean']:.3f}" in markdown


def test_tensorboard_has_every_term_and_the_grids(run):
    events = EventAccumulator(str(run[0]))
    events.Reload()
    tags = events.Tags()
    for name in ("1 objective/bound train", "1 objective/bound validation", "5 test/bound"):
        assert name in tags["scalars"], name
    assert "3 image/kl image validation" in tags["scalars"]
    assert "3 image/bits_per_dimension image validation" in tags["scalars"]
    assert len(tags["scalars"]) <= 40
    assert "model/graph" in tags["images"]
    graph = events.Tensors("model/graph/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "| intensity | thickness | AffineFlow |" in graph
    assert "counterfactual/image/validation" in tags["images"]
    assert "intervention/image/validation" in tags["images"]
    assert len(events.Images("counterfactual/image/validation")) == 2


def test_test_needs_only_a_checkpoint_and_repeats_the_table(run, checkpoint, capsys, tmp_path):
    folder, _ = run
    before = json.loads((folder / "association.json").read_text())["quantities"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    words = ["test", "--ckpt_path", str(checkpoint), *quiet, "--tables"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert "log p(thickness)" in capsys.readouterr().out
    after = json.loads((folder / "association.json").read_text())["quantities"]
    assert after["bound/thickness"] == pytest.approx(before["bound/thickness"])
    error = before["bound"]["standard_error"]
    assert after["bound"]["mean"] == pytest.approx(before["bound"]["mean"], abs=error)
    assert not (tmp_path / "lightning_logs").exists()


def test_predict_writes_a_row_per_image(run, checkpoint, tmp_path):
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    words = ["predict", "--ckpt_path", str(checkpoint), *quiet]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    with (run[0] / "quantities.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert float(rows[0]["log_prob/thickness"]) < 5


def test_runs_repeat_under_a_seed(run, tmp_path):
    words = ["fit", "--config", str(write_configuration(tmp_path)), *UNEVALUATED]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 0
    again = torch.load(
        tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True
    )
    first = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in first["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name]), name


def test_resuming_continues(run, tmp_path):
    folder = run[0] / "checkpoints"
    before = sorted(path.name for path in folder.iterdir())
    last = folder / "last.ckpt"
    words = ["fit", "--config", str(write_configuration(tmp_path)), "--ckpt_path", str(last)]
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "3"]
    assert main([*words, *root, *UNEVALUATED]) == 0
    resumed = torch.load(
        tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True
    )
    assert resumed["epoch"] == 2
    # The schedule spans the longer run, and the older run's folder is as it was.
    assert resumed["optimizer_states"][0]["param_groups"][0]["lr"] < 0.005
    assert sorted(path.name for path in folder.iterdir()) == before
    first = torch.load(last, weights_only=True)
    moved = [
        (resumed["state_dict"][name] - value).abs().max()
        for name, value in first["state_dict"].items()
        if value.is_floating_point()
    ]
    assert max(moved) > 1e-3


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [
        (("model", "grph", "a"), [], "did you mean 'model.graph'"),
        (("trainer", "max_epoch", 3), [], "did you mean 'trainer.max_epochs'"),
        (("data", "init_args", {"batch_sise": 3}), [], "did you mean 'batch_size'"),
        ((), ["--model.num_partcles", "3"], "did you mean 'model.num_particles'"),
        ((), ["--trainr.max_epochs", "3"], "did you mean 'trainer.max_epochs'"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(tmp_path, capsys, change, words, hint):
    settings = json.loads(json.dumps(CONFIGURATION))
    if change:
        section, key, value = change
        settings[section][key] = value
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), *words])
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


def test_unknown_mechanism_argument_and_class_are_named(tmp_path, capsys):
    for old, new, hint in (
        ("latent", "latnt", "did you mean 'latent'"),
        ("ConditionalVAE", "ConditionalVEA", "did you mean 'ConditionalVAE'"),
    ):
        path = write_configuration(tmp_path)
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(path)])
        assert hint in capsys.readouterr().err


@pytest.mark.parametrize("name", ["deepscm_pl.likelihoods.Student", "Student", "laplace"])
def test_an_unknown_likelihood_is_told_the_known_ones(tmp_path, capsys, name):
    settings = json.loads(json.dumps(CONFIGURATION))
    settings["model"]["mechanisms"]["image"]["init_args"]["likelihood"] = name
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path)])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert name.rpartition(".")[2] in printed
    assert "did you mean" not in printed  # such as an option that happens to look alike
    for known in ("FixedVarianceGaussian", "LaplaceLikelihood", "PredictedLowRankGaussian"):
        assert f"deepscm_pl.likelihoods.{known}" in printed
    assert "deepscm_pl.likelihoods.Likelihood" not in printed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.graph", "a -> a", "its own parent"),
        ("model.graph", "thickness; intensity", "image is not in the graph"),
        ("model.learning_rates", {"colour": 1.0}, "unknown variable 'colour'"),
        (
            "model.learning_rates",
            {"image": -1.0},
            "learning_rates.image: expected a number above 0",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, capsys, key, value, message):
    settings = json.loads(json.dumps(CONFIGURATION))
    section, name = key.split(".")
    settings[section][name] = value
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_intervention_of_a_callback_is_checked_before_training(tmp_path, capsys):
    path = write_configuration(tmp_path)
    path.write_text(path.read_text().replace("thickness=2", "thickness=-2"))
    root = ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", "--config", str(path), *root]) == 1
    assert "do(thickness): expected values in (0, inf), but got -2" in capsys.readouterr().err


def test_output_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = write_configuration(tmp_path)
    root = ["--trainer.default_root_dir", str(tmp_path / "file" / "below")]
    assert main(["fit", "--config", str(path), *root]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_broken_data_stops_before_training(tmp_path, capsys):
    path = write_configuration(tmp_path)
    words = ["fit", "--config", str(path), "--data.broken_row", "7"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 1
    assert "thickness: expected values in (0, inf), but got inf" in capsys.readouterr().err


def test_words_change_the_settings_of_a_checkpoint(checkpoint, tmp_path, monkeypatch):
    seen = []
    test_step = DeepSCM.test_step
    monkeypatch.setattr(
        DeepSCM,
        "test_step",
        lambda self, *args: (seen.append(self.num_evaluation_particles), test_step(self, *args))[1],
    )
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    words = ["test", "--ckpt_path", str(checkpoint), "--model.num_evaluation_particles", "3"]
    assert main([*words, *quiet, *UNEVALUATED]) == 0
    assert set(seen) == {3}


def test_checkpoint_must_fit_the_configuration(checkpoint, tmp_path, capsys):
    path = write_configuration(tmp_path)
    path.write_text(path.read_text().replace("latent: 2", "latent: 3"))
    assert main(["test", "--config", str(path), "--ckpt_path", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert "does not fit the model of the configuration: the weights do not fit" in error
    assert "is of shape" in error
    assert error.count("\n") == 1


def test_training_without_validation_still_ends_well(tmp_path, capsys):
    words = ["fit", "--config", str(write_configuration(tmp_path))]
    more = ["--trainer.limit_val_batches", "0", "--trainer.default_root_dir", str(tmp_path)]
    assert main([*words, *more]) == 0
    out = capsys.readouterr().out
    assert "Verdict: bad" in out or "No checkpoint was written" in out


def test_a_command_without_options_says_what_it_needs(capsys):
    assert main(["fit"]) == 1
    assert "give --config FILE.yaml" in capsys.readouterr().err


def test_help_and_unknown_commands(capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("fit", "test", "sample", "intervene", "counterfactual", "data", "graph"):
        assert f"\n  {command} " in out
    assert main(["ft"]) == 2
    assert "did you mean 'fit'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["fit", "test", "sample", "intervene", "counterfactual", "data", "graph"]
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "--" in capsys.readouterr().out


CHOICES = """
model:
  graph: image
  mechanisms:
    image:
      class_path: deepscm_pl.ConditionalVAE
      init_args:
        encoder: deepscm_pl.nn.ResidualEncoder
        decoder:
          class_path: deepscm_pl.nn.TemplateDecoder
          init_args:
            decoder: deepscm_pl.nn.ResidualDecoder
        likelihood: deepscm_pl.likelihoods.DiscretisedLogisticMixture
  optimizer: torch.optim.AdamW
  objective: deepscm_pl.training.objectives.ImportanceWeightedObjective
data: deepscm_pl.data.SyntheticBrainDataModule
"""


def own_defaults(found):
    """Arguments of a class in a configuration that are not those of its own signature."""
    module, _, name = found["class_path"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    for argument, value in found.get("init_args", {}).items():
        expected = parameters[argument].default
        expected = list(expected) if isinstance(expected, tuple) else expected
        if not isinstance(value, dict):
            assert value == expected, (name, argument)


def test_a_class_has_its_own_defaults_and_not_those_of_the_one_that_it_replaces(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(CHOICES)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "config.yaml"), "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    image = model["mechanisms"]["image"]["init_args"]
    chosen = [image["encoder"], image["decoder"], image["decoder"]["init_args"]["decoder"]]
    chosen += [image["likelihood"], model["optimizer"], model["objective"]]
    assert len({each["class_path"] for each in chosen}) == 6
    for each in chosen:
        own_defaults(each)
    assert model["optimizer"]["init_args"]["weight_decay"] == 0.01
