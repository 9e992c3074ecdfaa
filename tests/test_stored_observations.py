"""Observations that travel with a model are rows of its test split, and nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from deepscm_pl.checkpoints import StoredObservations, load
from deepscm_pl.checkpoints.stored_observations import FORMAT, observations_of
from deepscm_pl.cli import main
from deepscm_pl.data import Placement

from tiny import TinyDataModule

COUNT = 3


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    """An exported model with three observations."""
    out = tmp_path_factory.mktemp("exported") / "model.safetensors"
    words = ["export", "--ckpt_path", str(checkpoint), "--observations", str(COUNT)]
    assert main([*words, "--out", str(out)]) == 0
    return out.parent


@pytest.fixture
def model(folder):
    return load(folder / "model.safetensors")


@pytest.fixture
def absent(monkeypatch):
    """The data of the run are not there."""

    def missing(self):
        raise FileNotFoundError("root: data is missing.")

    monkeypatch.setattr(TinyDataModule, "load", missing)


@pytest.fixture
def changed(folder, tmp_path):
    """Copy the folder with changed observations; return it."""

    def write(tensors=None, **description):
        shutil.copy(folder / "model.safetensors", tmp_path)
        with safe_open(folder / "observations.safetensors", framework="pt") as file:
            metadata = json.loads(file.metadata()["deepscm_pl"]) | description
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = {n: v for n, v in {**values, **(tensors or {})}.items() if v is not None}
        path = tmp_path / "observations.safetensors"
        save_file(values, path, metadata={"deepscm_pl": json.dumps(metadata)})
        return tmp_path

    return write


def ask(folder, out, *rows, root=()):
    words = ["counterfactual", "--ckpt_path", str(folder / "model.safetensors"), "--do"]
    return main([*words, "thickness=3", "--index", *map(str, rows), "--out", str(out), *root])


def read(out):
    with (out / "answers.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_they_are_the_first_rows_of_the_test_split(model):
    data = model.data()
    data.setup()
    rows, stored = data.variables("test"), model.observations()
    for name, value in stored.items():
        assert value.equal(rows[name][:COUNT].to(value))


def test_images_and_classes_are_bytes(folder):
    with safe_open(folder / "observations.safetensors", framework="pt") as file:
        assert file.get_tensor("image").dtype == torch.uint8
        assert file.get_tensor("thickness").dtype == torch.float32


def test_the_smallest_type_keeps_the_values():
    class Data(TinyDataModule):
        def variables(self, split):
            return {
                "image": torch.tensor([[0.0], [255.0]]),
                "thickness": torch.tensor([[0.5], [torch.nan]], dtype=torch.float64),
                "intensity": torch.tensor([[0.1], [256.0]], dtype=torch.float64),
            }

    class Model(torch.nn.Module):
        graph = type("Graph", (tuple,), {"nodes": ("image",)})(("image", "thickness", "intensity"))
        image_variables = ()

    tensors, _ = observations_of(Model(), Data(), 2)
    assert [each.dtype for each in tensors.values()] == [torch.uint8, torch.float32, torch.float64]
    for name, value in Data().variables("test").items():
        torch.testing.assert_close(
            tensors[name].double(), value.double(), rtol=0, atol=0, equal_nan=True
        )


def test_answers_are_the_same_without_the_data(folder, changed, tmp_path, capsys, request):
    incomplete = changed(complete=False)
    assert ask(incomplete, tmp_path / "with", 0, 2) == 0
    assert "travel" not in capsys.readouterr().out
    request.getfixturevalue("absent")
    assert ask(incomplete, tmp_path / "without", 0, 2) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "travel" in line]
    assert said == [
        "index: the data of the run are not here; the first 3 rows of its test split travel with "
        "the model."
    ]
    assert ask(folder, tmp_path / "complete", 0, 2) == 0
    assert "travel" not in capsys.readouterr().out
    answers = read(tmp_path / "with")
    assert answers == read(tmp_path / "without") == read(tmp_path / "complete")


def test_complete_rows_take_the_place_of_the_data(model, changed):
    assert isinstance(model.test_data(rows=[0, 2]), StoredObservations)
    for rows in (None, [0, COUNT], [-1]):
        assert isinstance(model.test_data(rows=rows), TinyDataModule)
    incomplete = load(changed(complete=False) / "model.safetensors")
    assert isinstance(incomplete.test_data(rows=[0]), TinyDataModule)
    assert incomplete.observations([COUNT + 1])["image"].shape[0] == 1


@pytest.mark.parametrize(
    ("members", "is_complete"),
    [
        ({}, True),
        ({"placement": lambda self, split, row: Placement(np.eye(4))}, True),
        ({"placement": lambda self, split, row: Placement(np.eye(4), object())}, False),
        ({"row_names": lambda self, split: ["a"] * 9}, False),
        ({"prepare_file": lambda self, path: []}, False),
    ],
)
def test_rows_are_complete_if_nothing_about_them_is_left_out(model, members, is_complete):
    data = type("Data", (TinyDataModule,), members)()
    _, description = observations_of(model.scm, data, COUNT)
    assert description["complete"] is is_complete


def test_data_are_not_looked_for_in_a_folder_that_does_not_exist(model, tmp_path):
    def lacks(root):
        data = {"class_path": "missing.Module", "init_args": {"root": root}}
        return replace(model.checkpoint, content={"data": data}).lacks_data

    assert lacks(str(tmp_path / "none"))
    assert lacks("\0")
    assert not lacks(str(tmp_path))
    assert not lacks(None)
    assert replace(model.checkpoint, content={}).lacks_data


def test_a_row_beyond_them_is_an_error(folder, tmp_path, capsys, absent):
    assert ask(folder, tmp_path / "out", 0, 7) == 1
    error = capsys.readouterr().err
    assert "from 0 to 2, because 3 rows of the test split travel with the model, but got 7" in error
    assert "--data.root DIR" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_them_the_error_is_that_of_the_data(folder, tmp_path, capsys, absent):
    shutil.copy(folder / "model.safetensors", tmp_path)
    assert ask(tmp_path, tmp_path / "out", 0) == 1
    assert "data is missing" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^rows: no observations travel with .*name rows"):
        load(tmp_path / "model.safetensors").observations()


def test_a_folder_that_is_named_is_not_replaced_by_them(model, absent):
    with pytest.raises(ValueError, match=r"has no root"):
        model.test_data("elsewhere")


def test_there_are_no_other_splits(model, absent):
    data = model.test_data()
    assert isinstance(data, StoredObservations)
    with pytest.raises(ValueError, match="none of the training split; give the folder"):
        data.setup("fit")
    with pytest.raises(ValueError, match="none of the validation split"):
        data.variables("validation")


def test_an_export_with_too_many_rows_writes_nothing(checkpoint, tmp_path, capsys):
    words = ["export", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "m.safetensors")]
    for count, text in (("100000", "expected at most"), ("0", "of at least 1")):
        assert main([*words, "--observations", count]) == 1
        assert text in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_existing_observations_are_kept(checkpoint, tmp_path, capsys):
    (tmp_path / "observations.safetensors").write_text("mine")
    words = ["export", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "m.safetensors")]
    assert main([*words, "--observations", "2"]) == 1
    assert "observations.safetensors exists" in capsys.readouterr().err
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("tensors", "description", "message"),
    [
        ({}, {"format": FORMAT + 1}, rf"has format {FORMAT + 1}.*install a newer version"),
        ({}, {"format": "1"}, r"no valid format"),
        ({}, {"weights": "0" * 64}, r"belongs to another model"),
        ({"image": None}, {}, r"it has intensity, thickness instead of"),
        ({"other": torch.zeros(3, 1)}, {}, r"instead of"),
        ({"thickness": torch.zeros(3, 1)}, {}, r"thickness has values outside of"),
        ({"thickness": torch.full((3, 1), torch.inf)}, {}, r"thickness has values outside of"),
        ({"thickness": torch.ones(2, 1)}, {}, r"thickness has shape \(2, 1\) instead of"),
        ({"image": torch.full((3, 1, 8, 8), torch.nan)}, {}, r"image has values outside of"),
        ({"image": torch.zeros(3, 1, 9, 8)}, {}, r"image has shape"),
        ({}, {"rows": -1}, r"rows: expected a whole number"),
        ({}, {"complete": "yes"}, r"complete is 'yes' instead of true or false"),
        ({}, {"rows": 2}, r"instead of \(2,"),
        ({}, {"world": {"name": "moon", "parameters": {}}}, r"world must be one of"),
        ({}, {"world": ["x"]}, r"does not fit its model"),
        ({}, {"placements": {"image": [None]}}, r"positions of image"),
        ({}, {"placements": {"image": [[[1, 2], [3, 4]]] * 3}}, r"positions of image"),
        ({}, {"placements": None}, r"does not fit its model"),
    ],
)
def test_bad_files_are_refused(changed, absent, tensors, description, message):
    found = load(changed(tensors, **description) / "model.safetensors")
    with pytest.raises(ValueError, match=rf"^observations: .*{message}.*\.$"):
        found.test_data()


def test_a_truncated_file_is_refused(folder, tmp_path, absent):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "observations.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"^observations: .* cannot be read"):
        load(tmp_path / "copy" / "model.safetensors").observations()
