"""The data module that a checkpoint describes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepscm_pl.data import MorphoMNISTDataModule
from deepscm_pl.training import load_data

from tiny import TinyDataModule


def test_the_data_module_is_that_of_the_training(checkpoint):
    data, expected = load_data(checkpoint), TinyDataModule(batch_size=16)
    assert isinstance(data, TinyDataModule)
    assert data.configuration() == expected.configuration()
    for split in ("train", "validation", "test"):
        for name, values in expected.variables(split).items():
            assert torch.equal(data.variables(split)[name], values)


def test_data_that_have_moved(altered, tmp_path):
    description = MorphoMNISTDataModule("somewhere", batch_size=7).configuration()
    path = altered(data=description)
    assert load_data(path).root == Path("somewhere").resolve()
    moved = load_data(str(path), root=tmp_path)
    assert (moved.root, moved.batch_size) == (tmp_path, 7)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "does not name the data of its training; make the data module yourself"),
        ("tiny.TinyDataModule", "expected a class with its arguments, but got 'tiny.Tiny"),
        ({"init_args": {}}, "expected a class with its arguments"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}}, "is refused"),
        ({"class_path": "torch.nn.Identity"}, "is refused: expected a class derived from Causal"),
        ({"class_path": "tiny.NoSuchDataModule"}, "cannot import 'tiny.NoSuchDataModule'"),
        (
            {"class_path": "tiny.TinyDataModule", "init_args": {"size": 1}},
            "size: TinyDataModule ha",
        ),
        ({"class_path": "tiny.TinyDataModule", "init_args": [1]}, "expected arguments by name"),
        ({"class_path": ".tiny.TinyDataModule"}, "expected the path of a class"),
    ],
)
def test_bad_descriptions_of_data_are_refused(altered, description, message):
    with pytest.raises(ValueError, match=message):
        load_data(altered(data=description))


def test_data_without_a_root_cannot_have_moved(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"data\.root: tiny\.TinyDataModule has no root"):
        load_data(checkpoint, root=tmp_path)


def test_a_missing_checkpoint_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(tmp_path / "none.ckpt")
