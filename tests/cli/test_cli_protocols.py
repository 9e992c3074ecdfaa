"""``deepscm test --protocol``: trained judges, their errors, and the files."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from deepscm_pl.checkpoints import load
from deepscm_pl.cli import main
from deepscm_pl.digest import weights_digest
from deepscm_pl.runs.clock import training_seconds
from deepscm_pl.training import ImageRegressor
from deepscm_pl.training.judges import LatentEmbedding, network_of

QUIET = {
    "max_epochs": 16,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


def train(root, kind, **settings):
    """Train a judge of bars, and return its checkpoint."""
    network = {
        "class_path": "deepscm_pl.nn.ResidualClassifier",
        "init_args": {"channels": [8, 16]},
    }
    arguments = {"shape": [1, 8, 8], "network": network, **settings}
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}
    content = {
        "seed_everything": 1,
        "model": {
            "class_path": f"deepscm_pl.training.{kind}",
            "init_args": {**arguments, "optimizer": optimizer},
        },
        "data": {"class_path": "tiny.TinyDataModule", "init_args": {"batch_size": 16}},
        "checkpoint": {"monitor": "validation/mean_absolute_error", "mode": "min"},
        "trainer": {**QUIET, "default_root_dir": str(root)},
    }
    root.mkdir()
    path = root / "judge.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(path)]) == 0
    return next(root.glob("lightning_logs/version_0/checkpoints/epoch=*.ckpt"))


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    root = tmp_path_factory.mktemp("judges")
    return {n: train(root / n, "ImageRegressor", label=n) for n in ("thickness", "intensity")}


@pytest.fixture
def ask(checkpoint, judges, tmp_path, capsys):
    """Run a protocol and return its exit status, its output and its errors."""

    def run(*words, files=judges, model=(checkpoint,)):
        named = [f"{name}={path}" for name, path in files.items()]
        options = ["--judge", *named] if named else []
        paths = map(str, model)
        status = main(
            ["test", "--ckpt_path", *paths, "--out", str(tmp_path / "out"), *options, *words]
        )
        return status, *capsys.readouterr()

    return run


def test_a_regressor_reads_the_number(judges):
    regressor = ImageRegressor.load_from_checkpoint(judges["thickness"])
    image = torch.zeros(2, 1, 8, 8)
    image[0, ..., :2] = image[1, ..., :5] = 200
    thin, thick = regressor(image).flatten().tolist()
    assert thick - thin > 1.5
    assert float(regressor.deviation) > 1


def test_networks_judge_counterfactuals(ask, tmp_path):
    status, out, _ = ask("--protocol", "causal-gen", "--seeds", "0", "1", "--rows", "12")
    assert status == 0
    assert "causal-gen: 12 test images, 2 seeds" in out
    assert "only the first 12 of 20 test images" in out
    content = json.loads((tmp_path / "out" / "protocol.json").read_text())
    judged = {(f["intervention"], f["variable"], f["judge"]) for f in content["figures"]}
    assert ("do(thickness ~ train)", "intensity", "network") in judged
    assert len(judged) == 6
    assert all(0 < f["floor"] < f["defined"]["mean"] * 20 for f in content["figures"])


def test_missing_and_wrong_judges_are_named(ask, judges, checkpoint, altered, tmp_path):
    only = {"thickness": judges["thickness"]}
    swapped = {"thickness": judges["intensity"], "intensity": judges["thickness"]}
    wrong = {
        "none of intensity; train one": only,
        "expected a network that reads thickness, but got": swapped,
        "expected a cause of the image, thickness, intensity, but got 'digit'": {
            **judges,
            "digit": judges["thickness"],
        },
        "expected the checkpoint of an ImageClassifier or an ImageRegressor": {
            **judges,
            "thickness": checkpoint,
        },
        "No such file": {**judges, "thickness": tmp_path / "none.ckpt"},
    }
    for message, files in wrong.items():
        status, _, err = ask("--protocol", "ours", files=files)
        assert status == 1
        assert message.lower() in err.lower() or "none.ckpt" in err
        assert len(err.strip().splitlines()) == 1
    status, _, err = ask("--protocol", "rasal")
    assert (status, "no known world" in err) == (1, True)
    status, _, err = ask("--protocol", "theirs")
    assert (status, "expected one of causal-gen, benchmark, rasal, ours" in err) == (1, True)
    status, _, err = ask("--protocol", "ours", "--judge", "thickness")
    assert (status, "expected variable=FILE" in err) == (1, True)


def test_a_judge_by_which_the_model_was_tuned_is_refused(ask, judges, checkpoint, altered):
    digest = weights_digest(network_of(judges["thickness"]))
    tuned = altered(provenance={"thickness": digest})
    for protocol, model in {"causal-gen": [tuned], "ours": [checkpoint, tuned]}.items():
        status, _, err = ask("--protocol", protocol, model=model)
        assert status == 1
        assert "expected a network that the model has not seen" in err
        assert "by which it was tuned; train another judge" in err


def test_several_models_are_judged_together(ask, checkpoint, altered, tmp_path):
    models = [checkpoint, altered(training_seconds=2.5)]
    status, out, _ = ask("--protocol", "ours", "--rows", "6", "--seeds", "0", model=models)
    assert status == 0
    assert "Note: answers are medians of 2 models, which together have all costs." in out
    figures = json.loads((tmp_path / "out" / "protocol.json").read_text())["figures"]
    found = {each["quantity"]: each["defined"]["mean"] for each in figures}
    seconds = training_seconds(torch.load(checkpoint, weights_only=True))
    assert found["seconds of training"] == pytest.approx(2.5 + seconds)
    alone = load(checkpoint).scm["image"]
    assert found["parameters"] == 2 * sum(each.numel() for each in alone.parameters())


def test_other_protocols_judge_one_model(ask, checkpoint, altered):
    models = [checkpoint, altered(training_seconds=2.5)]
    status, _, err = ask("--protocol", "causal-gen", model=models)
    assert (status, "expected one model, but got 2; test them one by one" in err) == (1, True)


def test_an_embedding_is_a_model_without_parents(checkpoint):
    with pytest.raises(ValueError, match=r"embedding: expected a model of one image without par"):
        LatentEmbedding(checkpoint)


def test_a_regressor_of_an_unknown_number(tmp_path, capsys):
    with pytest.raises(AssertionError):
        train(tmp_path / "other", "ImageRegressor", label="width")
    assert "label: expected a variable of the data" in capsys.readouterr().err
