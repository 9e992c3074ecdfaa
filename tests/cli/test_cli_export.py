"""``deepscm export``, and questions to what it wrote."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deepscm_pl.cli import main
from deepscm_pl.training import read_checkpoint

QUESTIONS = {
    "sample": [],
    "intervene": ["--do", "thickness=3"],
    "counterfactual": ["--do", "thickness=3", "--index", "0", "1"],
}


@pytest.fixture
def exported(checkpoint, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", str(path)]) == 0
    assert f"written: {path}\n" in capsys.readouterr().out
    return path


def test_the_program_says_what_it_has_written(altered, tmp_path, capsys):
    units = {"thickness": "pixels", "intensity": "grey levels"}
    checkpoint = altered(variables={name: {"unit": unit} for name, unit in units.items()})
    path = tmp_path / "model.safetensors"
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "thickness: values in (0, inf), pixels",
        "intensity: values in (64, 255), grey levels",
        "image: whole numbers in [0, 255], 1 × 8 × 8",
    ]
    assert re.fullmatch(r"[\d,]+ parameters, raw weights, 0\.\d+ MB", lines[3])
    assert lines[4] == f"written: {path}"


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_the_same_bits(checkpoint, exported, tmp_path, question):
    answers = []
    for path in (checkpoint, exported):
        out = tmp_path / path.suffix.strip(".")
        words = [question, "--ckpt_path", str(path), *QUESTIONS[question], "--npz", "--seed", "7"]
        assert main([*words, "--out", str(out)]) == 0
        with np.load(out / "answers.npz") as content:
            answers.append({name: content[name] for name in content.files})
    expected, found = answers
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_test_is_the_same(checkpoint, exported, tmp_path, capsys, monkeypatch):
    tables = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.ckpt").write_bytes(checkpoint.read_bytes())
    for path in (tmp_path / "copy.ckpt", exported):
        words = ["test", "--tables", "--ckpt_path", str(path), "--trainer.accelerator", "cpu"]
        words += ["--trainer.enable_progress_bar", "false", "--seed_everything", "3"]
        assert main(words) == 0
        tables.append(capsys.readouterr().out.replace(str(path), "MODEL"))
        (tmp_path / "cause_predictor.safetensors").unlink()
    assert "Association" in tables[0]
    assert tables[1] == tables[0]


def test_a_training_does_not_go_on_from_it(exported, capsys):
    assert main(["fit", "--ckpt_path", str(exported)]) == 1
    error = capsys.readouterr().err
    assert "is an exported model, without the state of the optimiser" in error
    assert ".ckpt" in error


def test_existing_files_are_replaced_only_on_demand(checkpoint, exported, capsys):
    exported.write_text("mine")
    words = ["export", "--ckpt_path", str(checkpoint), "--out", str(exported)]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"deepscm export: out: {exported} exists; choose another --out, or ")
    assert "--overwrite" in error
    assert error.count("\n") == 1
    assert exported.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert exported.stat().st_size > 1000


def test_errors_are_one_line(checkpoint, tmp_path, capsys):
    assert main(["export", "--ckpt_path", str(tmp_path / "none.ckpt")]) == 1
    assert "there is no file" in capsys.readouterr().err
    out = str(tmp_path / "none" / "model.safetensors")
    assert main(["export", "--ckpt_path", str(checkpoint), "--out", out]) == 1
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1


def test_the_folder_of_the_data_can_be_that_of_other_computers(altered, tmp_path, capsys):
    data = {"class_path": "deepscm_pl.data.MorphoMNISTDataModule", "init_args": {"root": "/home/x"}}
    words = ["export", "--ckpt_path", str(altered(data=data)), "--data.root", "data/digits"]
    assert main([*words, "--out", str(tmp_path / "model.safetensors")]) == 0
    content = (tmp_path / "model.safetensors").read_bytes()
    assert b"/home/x" not in content
    assert read_checkpoint(tmp_path / "model.safetensors")["data"] == {
        **data,
        "init_args": {"root": "data/digits"},
    }


def test_data_without_a_folder_have_none(checkpoint, tmp_path, capsys):
    words = ["export", "--ckpt_path", str(checkpoint), "--data.root", "data/digits"]
    assert main([*words, "--out", str(tmp_path / "model.safetensors")]) == 1
    message = "root: expected a checkpoint of data in a folder, but it has none"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()


def test_folders_of_caches_are_left_out(altered, tmp_path):
    settings = {"cache_dir": "/home/x/a", "cache": {"folder": "/home/x/b", "memory": 2.0}}
    data = {"class_path": "deepscm_pl.data.DigitsDataModule", "init_args": settings}
    path = tmp_path / "model.safetensors"
    assert main(["export", "--ckpt_path", str(altered(data=data)), "--out", str(path)]) == 0
    assert b"/home/x" not in path.read_bytes()
    kept = read_checkpoint(path)["data"]["init_args"]
    assert kept == {"cache": {"folder": None, "memory": 2.0}}
