"""From a table without images to answers, on the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepscm_pl import load
from deepscm_pl.cli import main

MECHANISMS = {
    "age": {
        "class_path": "deepscm_pl.SplineFlow",
        "init_args": {"constraint": "deepscm_pl.Positive"},
    },
    "sex": {"class_path": "deepscm_pl.Bernoulli"},
    "risk": {"class_path": "deepscm_pl.Ordinal", "init_args": {"categories": 3}},
    "falls": {"class_path": "deepscm_pl.mechanisms.SteppedFlow"},
    "volume": {"class_path": "deepscm_pl.AffineFlow"},
}


def write_experiment(folder: Path, rows: int = 60) -> list[str]:
    """Write a table with semicolons and decimal commas, and an experiment; its command."""
    generator = np.random.default_rng(0)
    lines = ["id; age ;sex;risk;falls;volume"]
    for k in range(rows):
        risk = ("low", "medium", "none")[k % 3]
        number = 1000 - 3 * k + generator.normal()
        lines.append(f"{k:04d};{30 + k / 2:.1f};{'FM'[k % 2]};{risk};{k % 4};{number:.2f}")
    text = "\n".join([lines[0], *(line.replace(".", ",") for line in lines[1:])])
    (folder / "people.csv").write_text(text, encoding="utf-16")
    table = {
        "file": "people.csv",
        "identifier": "id",
        "classes": {"risk": ["none", "low", "medium"]},
        "missing_words": ["-"],
        "units": {"age": "years"},
    }
    settings = {
        "model": {
            "graph": "age, sex -> volume; age -> risk; age -> falls",
            "mechanisms": MECHANISMS,
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        },
        "data": {
            "class_path": "deepscm_pl.TableDataModule",
            "init_args": {"root": str(folder), "table": table, "batch_size": 16},
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "default_root_dir": str(folder / "runs"),
        },
    }
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["fit", "--config", str(folder / "experiment.yaml")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of such an experiment."""
    folder = tmp_path_factory.mktemp("table")
    assert main(write_experiment(folder)) == 0
    return next((folder / "runs").rglob("epoch=*.ckpt"))


def test_an_experiment_of_a_table_is_trained_and_asked(trained, tmp_path):
    variables = load(trained).variables
    assert variables["risk"].classes == ("none", "low", "medium")
    assert variables["age"].unit == "years"
    path = tmp_path / "o.csv"
    path.write_text("name\tage\tsex\trisk\tfalls\tvolume\nA\t50,5\tM\tnone\t1\t900,25\n")
    words = ["--ckpt_path", str(trained), "--do", "age=60", "--observations", str(path)]
    assert main(["counterfactual", *words, "--out", str(tmp_path / "answers")]) == 0
    with (tmp_path / "answers" / "answers.csv").open(encoding="utf-8") as file:
        factual, changed = csv.DictReader(file)
    assert (factual["name"], factual["age"], factual["risk"]) == ("A", "50.5", "none")
    assert (changed["age"], changed["sex"]) == ("60", "M")


def test_words_for_missing_values_are_those_of_the_training(trained, tmp_path, capsys):
    path = tmp_path / "o.csv"
    words = ["--ckpt_path", str(trained), "--do", "age=60", "--observations", str(path)]
    path.write_text("age,sex,risk,falls,volume\n50,M,low,1,n/a\n")
    assert main(["counterfactual", *words, "--out", str(tmp_path / "answers")]) == 1
    assert "line 2, volume: expected a number, but got 'n/a'" in capsys.readouterr().err
    path.write_text("age,sex,risk,falls,volume\n50,M,low,1,-\n")
    main(["counterfactual", *words, "--out", str(tmp_path / "answers")])
    assert "expected a number" not in capsys.readouterr().err


def test_a_training_without_a_batch_does_not_begin(tmp_path, capsys):
    words = write_experiment(tmp_path)
    small = ["--data.batch_size", "64", "--data.drop_last", "true"]
    assert main([*words, *small]) == 1
    assert "batch_size: expected at most 48, the rows of an epoch" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))
