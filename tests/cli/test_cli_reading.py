"""Each command reads a checkpoint once."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.cloud_io import _load

from deepscm_pl.cli import main
from deepscm_pl.runs import reading

from tiny import UNEVALUATED

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
BRIEF = [*QUIET, *UNEVALUATED]
OUT = ["--out", "answers"]

COMMANDS = {
    "fit": [*BRIEF, "--trainer.max_epochs", "2"],
    "fit further": [*BRIEF, "--trainer.max_epochs", "3"],
    "fit with a configuration": ["--config", "tiny.yaml", *BRIEF, "--trainer.max_epochs", "3"],
    "test": BRIEF,
    "test with a configuration": ["--config", "tiny.yaml", *BRIEF],
    "validate": QUIET,
    "validate with a configuration": ["--config", "tiny.yaml", *QUIET],
    "predict": QUIET,
    "predict with a configuration": ["--config", "tiny.yaml", *QUIET],
    "sample": ["--size", "1", *OUT],
    "intervene": ["--size", "1", "--do", "thickness=2", *OUT],
    "counterfactual": ["--do", "thickness=2", "--index", "0", *OUT],
    "export": ["--out", "model.safetensors"],
}


@pytest.fixture
def reads(monkeypatch):
    """How often each file was read so far, whether as a checkpoint or as an exported model.

    Reads by path and by open file count; those that leave the weights on the disk do not.
    """
    found = Counter()
    load, read_exported = torch.load, reading.read_exported

    def noting_load(file, *arguments, **settings):
        if not settings.get("mmap"):
            found[Path(str(getattr(file, "name", file))).resolve()] += 1
        return load(file, *arguments, **settings)

    def noting_read(path, *arguments, **settings):
        found[path.resolve()] += 1
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
    return Path("last.ckpt").resolve()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_reads_its_checkpoint_once(command, copied, reads, capsys):
    words = [command.split()[0], "--ckpt_path", copied.name, *COMMANDS[command]]
    assert main(words) == 0, capsys.readouterr().err
    assert reads[copied] == 1
    assert set(reads.values()) == {1}, "a training tests its best checkpoint, and reads it once"


def test_the_last_checkpoint_is_read_once(copied, reads, capsys):
    words = ["fit", "--config", "tiny.yaml", *BRIEF, "--ckpt_path", "last"]
    assert main([*words, "--trainer.max_epochs", "3"]) == 0, capsys.readouterr().err
    assert reads[copied] == 1
    assert set(reads.values()) == {1}


@pytest.mark.parametrize(
    "command", ["test", "validate", "predict", "sample", "intervene", "counterfactual", "export"]
)
def test_a_command_reads_an_exported_model_once(command, copied, reads, capsys):
    assert main(["export", "--ckpt_path", str(copied), "--out", "first.safetensors"]) == 0
    reads.clear()
    assert main([command, "--ckpt_path", "first.safetensors", *COMMANDS[command]]) == 0
    assert reads == {Path("first.safetensors").resolve(): 1}


def test_reads_of_lightning_would_be_counted(copied, reads):
    """Lightning opens the file itself."""
    _load(copied, weights_only=True)
    assert reads[copied] == 1
