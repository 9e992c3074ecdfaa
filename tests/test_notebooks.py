"""The notebooks run completely with models that were trained for one epoch."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from deepscm_pl.cli import main

from tiny import CONFIGURATION, UNEVALUATED

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def train(configuration, folder):
    """Train for one epoch without figures or evaluation; the checkpoint."""
    words = ["fit", "--config", str(configuration), "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.max_epochs", "1", "--trainer.callbacks", "[]"]
    assert main([*words, *UNEVALUATED]) == 0
    return next(folder.rglob("epoch=*.ckpt"))


@pytest.fixture(scope="module")
def digits_checkpoint(tmp_path_factory):
    """A checkpoint of the notebooks' default experiment."""
    configuration = ROOT / "experiments" / "digits" / "full.yaml"
    return train(configuration, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory):
    """A checkpoint for another known world with images of another size."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = copy.deepcopy(CONFIGURATION)
    settings["data"] = {"class_path": "tiny.KnownTinyDataModule", "init_args": {"test_size": 64}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return train(folder / "tiny.yaml", folder)


def check_that_it_runs(path, checkpoint, folder, monkeypatch, first="pass"):
    monkeypatch.setenv("DEEPSCM_CHECKPOINT", str(checkpoint))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert any(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch, digits_checkpoint):
    check_that_it_runs(path, digits_checkpoint, tmp_path, monkeypatch)


def test_data_are_those_of_the_checkpoint(tmp_path, monkeypatch, tiny_checkpoint):
    """Uses the notebook with the most requirements: observations, originals and the world."""
    folders = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    # A checkpoint may name classes of modules that the program has imported.
    check_that_it_runs(NOTEBOOKS[-1], tiny_checkpoint, tmp_path, monkeypatch, "import tiny")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_small(path):
    """Pictures depend on the processor, so that only errors are compared."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    cells = [c for c in nbformat.reads(text, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [each for each in outputs if each.output_type == "error"]
    assert not [each for each in outputs if each.get("name") == "stderr"]
    assert any("image/png" in each.get("data", {}) for each in outputs)


def test_no_notebook_chooses_data_of_its_own():
    for path in NOTEBOOKS:
        assert "DataModule" not in path.read_text(encoding="utf-8"), path.stem
