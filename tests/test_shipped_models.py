"""The models inside the package are small, load, have measured figures, keep what is observed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import deepscm_pl
from deepscm_pl import load
from deepscm_pl.checkpoints.stored_observations import observations_beside
from deepscm_pl.cli import main
from deepscm_pl.shipped import names
from deepscm_pl.shipped.names import MODEL, find_model, model_names

INSIDE = Path(deepscm_pl.__file__).parent / "shipped" / "models"
NAMES = sorted(path.name for path in INSIDE.iterdir())
MOST_TOGETHER = 3e6  # bytes


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return load(name)


def test_there_are_a_model_of_images_and_one_of_a_table():
    assert {"digits", "tabular"} <= set(NAMES)


def test_they_are_small_together():
    assert sum(path.stat().st_size for path in INSIDE.rglob("*") if path.is_file()) <= MOST_TOGETHER


def test_each_has_a_card_observations_and_nothing_else(name):
    files = {path.name for path in (INSIDE / name).iterdir()}
    assert files == {"README.md", MODEL, "observations.safetensors"}


def test_the_package_contains_them():
    setup = (INSIDE.parents[2] / "setup.py").read_text("utf-8")
    assert '"deepscm_pl.shipped": ["models/*/*"]' in setup


def test_figures_of_the_card_are_those_of_its_test(name, model):
    card = (INSIDE / name / "README.md").read_text("utf-8")
    assert re.search(r"^### Evaluation, \d+ test rows$", card, re.MULTILINE)
    assert f"{sum(p.numel() for p in model.scm.parameters()):,} parameters" in card
    assert len(re.findall(r"± ", card)) >= 5


def test_the_null_intervention_changes_nothing(model):
    rows = model.observations()
    answer = model.counterfactual(rows, {}, seed=0)
    for key, value in rows.items():
        assert answer[key][0].equal(value), key
    root = model.scm.graph.nodes[0]
    answer = model.counterfactual(rows, {root: rows[root]}, seed=0)
    for key, value in rows.items():
        torch.testing.assert_close(answer[key][0], value, rtol=1e-4, atol=1e-3)


def test_an_intervention_changes_descendants(model):
    rows = model.observations()
    graph = model.scm.graph
    root = next(each for each in graph if graph.descendants(each))
    last = rows[root].roll(1, dims=0)
    answer = model.counterfactual(rows, {root: last}, seed=0)
    assert any(not answer[each][0].allclose(rows[each]) for each in graph.descendants(root))


def test_they_contain_no_place_of_a_computer(model):
    text = json.dumps(model.checkpoint.content, default=str)
    assert not re.search(r'"(/|~|[A-Z]:)', text)


def test_their_observations_are_rows_of_the_data():
    model = load("digits")
    data = model.data()
    data.prepare_data()
    data.setup("test")
    for key, value in model.observations().items():
        assert value.equal(data.variables("test")[key][: len(value)].to(value)), key
    stored = observations_beside(model.checkpoint.path, model.scm)
    assert stored.world == data.world


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("tabular") == INSIDE / "tabular" / MODEL
    Path("tabular").write_bytes(b"mine")
    assert find_model("tabular") == Path("tabular")
    with pytest.raises(ValueError, match=r"^checkpoint: tabular "):
        load("tabular")


def test_a_model_of_the_package_comes_before_one_of_a_clone(tmp_path, monkeypatch):
    for folder in ("experiments", "models/digits", "models/other"):
        (tmp_path / folder).mkdir(parents=True)
    for path in ("setup.cfg", f"models/digits/{MODEL}", f"models/other/{MODEL}"):
        (tmp_path / path).touch()
    monkeypatch.setattr(names, "_REPOSITORY", tmp_path)
    assert find_model("digits") == INSIDE / "digits" / MODEL
    assert find_model("other") == tmp_path / "models" / "other" / MODEL


def test_a_clone_adds_its_models():
    known = model_names()
    assert known["morphomnist"].parts[-3:] == ("models", "morphomnist", MODEL)
    assert known["digits"].parent.parent == INSIDE


@pytest.mark.parametrize("where", [load, lambda name: load(["digits", name])])
def test_an_unknown_name_is_an_error(where):
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: there is no file digts, and no mo"):
        where("digts")


def test_the_error_names_the_nearest_and_where_to_look(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "--ckpt_path", "digts", "--out", "o"]) == 1
    error = capsys.readouterr().err
    assert "did you mean 'digits'?" in error
    assert "digits, tabular" in error
    assert "from_pretrained('owner/name')" in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["none.ckpt", "folder/digits", "./none.safetensors", ".."])
def test_a_path_is_no_name(path):
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: there is no file"):
        load(path)


def test_commands_take_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--ckpt_path", "tabular", "--do", "bmi=25", "--index", "0", "1", "--out", "a"]
    assert main(["counterfactual", *words]) == 0
    said = capsys.readouterr().out
    assert "rows of its test split travel with the model" in said
    assert "--ckpt_path tabular" in said
    words = ["--ckpt_path", "tabular", "--do", "bmi=25", "--outcome", "progression", "--rows", "50"]
    assert main(["effect", "average", *words, "--out", "b"]) == 0
    assert "deepscm check" not in capsys.readouterr().out  # the table is not there
    assert main(["export", "--ckpt_path", "tabular", "--out", "mine.safetensors"]) == 0
    assert load("mine.safetensors").scm.graph == load("tabular").scm.graph
    assert main(["export", "--ckpt_path", "tabulr", "--out", "other.safetensors"]) == 1
    assert "did you mean 'tabular'?" in capsys.readouterr().err


def test_a_test_of_a_name_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--ckpt_path", "tabular"]) == 1
    error = capsys.readouterr().err
    assert "copy" in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())
