"""Each command reads a checkpoint once."""

from __future__ import annotations

import shutil

import pytest
import torch

from deepscm_pl.cli import main
from deepscm_pl.runs import reading

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
BRIEF = [*QUIET, "--evaluation.enabled", "false", "--association.num_importance_samples", "0"]
OUT = ["--out", "answers"]

COMMANDS = {
    "fit": [*BRIEF, "--trainer.max_epochs", "2"],
    "fit with a configuration": ["--config", "tiny.yaml", *BRIEF, "--trainer.max_epochs", "2"],
    "test": BRIEF,
    "validate": QUIET,
    "predict": QUIET,
    "sample": ["--size", "1", *OUT],
    "intervene": ["--size", "1", "--do", "thickness=2", *OUT],
    "counterfactual": ["--do", "thickness=2", "--index", "0", *OUT],
    "export": ["--out", "model.safetensors"],
}


@pytest.fixture
def reads(monkeypatch):
    """The files that were read so far, whether as checkpoints or as exported models."""
    found = []
    load, read_exported = torch.load, reading.read_exported

    def noting_load(file, *arguments, **settings):
        found.append(file)
        return load(file, *arguments, **settings)

    def noting_read(path, *arguments, **settings):
        found.append(path)
        return read_exported(path, *arguments, **settings)

    monkeypatch.setattr(torch, "load", noting_load)
    monkeypatch.setattr(reading, "read_exported", noting_read)
    return found


@pytest.fixture
def copied(run, tmp_path, monkeypatch):
    """A checkpoint of a run that is complete, in a folder of its own."""
    folder, _ = run
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(folder / "checkpoints" / "last.ckpt", "last.ckpt")
    shutil.copyfile(folder.parents[1] / "tiny.yaml", "tiny.yaml")
    return "last.ckpt"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_its_checkpoint_once(command, copied, reads, capsys):
    words = [command.split()[0], "--ckpt_path", copied, *COMMANDS[command]]
    assert main(words) == 0, capsys.readouterr().err
    assert len([each for each in reads if str(each).endswith(copied)]) == 1


@pytest.mark.parametrize("command", ["test", "sample", "export"])
def test_so_it_does_with_an_exported_model(command, copied, reads, capsys):
    assert main(["export", "--ckpt_path", copied, "--out", "first.safetensors"]) == 0
    reads.clear()
    assert main([command, "--ckpt_path", "first.safetensors", *COMMANDS[command]]) == 0
    assert [str(each) for each in reads] == ["first.safetensors"]
