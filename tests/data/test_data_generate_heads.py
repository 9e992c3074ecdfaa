"""Folders of drawn heads: complete, repeatable, of any size."""

from __future__ import annotations

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepscm_pl.cli import main
from deepscm_pl.data import BrainWorld, SyntheticBrainDataModule, generate_brain
from deepscm_pl.worlds import read_world
from deepscm_pl.worlds.heads import HeadGrid

NAME = "{}_T1_unbiased_brain_rigid_to_mni"


def generate(out, size=10, shape=(32, 32), **more):
    generate_brain(out, size, shape, **{"workers": 1, "progress": False, **more})
    return out


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shape", [(32, 32), (16, 20, 16)])
def test_equal_arguments_give_equal_bytes(tmp_path, shape):
    first = content(generate(tmp_path / "a", shape=shape))
    assert content(generate(tmp_path / "b", shape=shape, workers=2)) == first
    other = content(generate(tmp_path / "c", shape=shape, seed=1))
    assert other.keys() == first.keys()
    assert sum(other[name] != first[name] for name in first) == 12  # all but the world


def test_a_table_with_a_row_per_image(tmp_path):
    folder = generate(tmp_path / "heads", size=50, fractions=(0.6, 0.2, 0.2))
    frame = pd.read_csv(folder / "subjects.csv", dtype={"eid": str})
    assert list(frame) == ["eid", "age", "sex", "ventricle_volume", "brain_volume", "split"]
    texts = pd.read_csv(folder / "subjects.csv", dtype=str)
    for name in ("age", "brain_volume"):  # no more digits than what was drawn with has
        shortest = [np.format_float_positional(np.float32(cell), trim="-") for cell in texts[name]]
        assert texts[name].tolist() == shortest
    assert frame["split"].value_counts().to_dict() == {"train": 30, "validation": 10, "test": 10}
    names = {NAME.format(eid) + ".png" for eid in frame["eid"]}
    assert {*names, "subjects.csv", "world.json", "originals.npz"} == set(content(folder))
    assert read_world(folder / "world.json") == BrainWorld(32, 32)
    image = np.asarray(Image.open(folder / sorted(names)[0]))
    assert (image.shape, image.dtype) == ((32, 32), np.uint8)
    found = BrainWorld(32, 32).measure(image[None])
    assert found["brain_volume"][0] == pytest.approx(frame["brain_volume"][0], rel=0.1)


@pytest.mark.parametrize(
    ("shape", "image_format", "stored"),
    [
        ((193, 229), None, None),
        ((193, 229), "nifti", (193, 229, 1)),
        ((17, 23, 19), None, (17, 23, 19)),
    ],
)
def test_any_size(tmp_path, shape, image_format, stored):
    folder = generate(tmp_path / "heads", 10, shape, image_format=image_format)
    path = folder / NAME.format(1000003)
    if stored is None:
        assert np.asarray(Image.open(f"{path}.png")).shape == shape
    else:
        image = nibabel.load(f"{path}.nii.gz")
        assert image.shape == stored
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.affine, HeadGrid(shape).affine)


@pytest.mark.parametrize("shape", [(16, 21), (16, 20, 18)])
def test_affine_gives_the_coordinates(shape):
    grid = HeadGrid(shape)
    index = np.indices((*shape, 1)[:3]).reshape(3, -1)
    place = grid.affine @ np.stack([*index, np.ones(index.shape[1])])
    np.testing.assert_allclose(place[: len(shape)], grid.coordinates(), atol=1e-4)
    assert np.linalg.norm(grid.affine[:3, 0]) == pytest.approx(grid.spacing)
    data = SyntheticBrainDataModule(shape=shape)
    assert np.array_equal(data.placement("test", 0).affine, grid.affine)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size: expected a whole number of at least 1"),
        ({"size": 2}, "fractions: 2 subjects"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"shape": (64,)}, "shape: expected 2 or 3 whole numbers"),
        ({"shape": (8, 8)}, "at least 16"),
        ({"shape": (16, 16, 16), "image_format": "png"}, "image_format: png is for slices"),
        ({"image_format": "gif"}, "image_format: expected png or nifti"),
        ({"fractions": (1, 0, 0)}, "fractions: expected three positive shares"),
        ({"workers": 0}, "workers: expected a whole number from 1"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "heads", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_kept(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def broken(self, path, image):
        path.touch()
        raise OSError("disk full")

    monkeypatch.setattr("deepscm_pl.data.generate._Draw._write", broken)
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "heads")
    assert list(tmp_path.iterdir()) == []


def test_the_program_draws_heads(tmp_path, capsys):
    words = ["data", "brain", "--out", str(tmp_path / "heads"), "--size", "12", "--workers", "1"]
    assert main([*words, "--shape", "16", "20", "16", "--seed", "3"]) == 0
    assert f"written: {tmp_path / 'heads'}" in capsys.readouterr().out
    expected = generate(tmp_path / "expected", 12, (16, 20, 16), seed=3)
    assert content(tmp_path / "heads") == content(expected)
