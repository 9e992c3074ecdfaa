"""The notebooks run from top to bottom, on a model that is trained for an epoch."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from deepscm_pl.cli import main

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def digits_checkpoint(tmp_path_factory):
    """The model of the notebooks, after one epoch."""
    folder = tmp_path_factory.mktemp("digits")
    configuration = ROOT / "experiments" / "digits" / "full.yaml"
    words = ["fit", "--config", str(configuration), "--trainer.default_root_dir", str(folder)]
    assert main([*words, "--trainer.max_epochs", "1", "--trainer.callbacks", "[]"]) == 0
    return next(folder.rglob("epoch=*.ckpt"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch, digits_checkpoint):
    monkeypatch.setenv("DEEPSCM_CHECKPOINT", str(digits_checkpoint))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()
    assert any(
        "image/png" in output.get("data", {})
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
