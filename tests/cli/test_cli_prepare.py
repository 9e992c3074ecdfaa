"""Scans that no one has prepared: asked about as if they were rows of the data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from deepscm_pl.cli import main
from deepscm_pl.data import Placement, SyntheticBrainDataModule
from deepscm_pl.data.images import read_prepared
from deepscm_pl.training import load_data

from scan_folders import make, volume, write_folder, write_nifti

CONFIGURATION = {
    "seed_everything": 0,
    "model": {
        "graph": "age, sex -> image",
        "mechanisms": {
            "age": {"class_path": "deepscm_pl.AffineFlow"},
            "sex": {"class_path": "deepscm_pl.mechanisms.Bernoulli"},
            "image": {
                "class_path": "deepscm_pl.ConditionalVAE",
                "init_args": {
                    "shape": [1, 16, 14],
                    "latent": 4,
                    "encoder": {
                        "class_path": "deepscm_pl.nn.PyramidEncoder",
                        "init_args": {"channels": [4, 4]},
                    },
                    "decoder": {
                        "class_path": "deepscm_pl.nn.PyramidDecoder",
                        "init_args": {"channels": [4, 4]},
                    },
                },
            },
        },
    },
    "data": {
        "class_path": "deepscm_pl.data.BrainMRIDataModule",
        "init_args": {
            "subjects": {"images": "{eid}.nii.gz"},
            "splits": {"column": "split"},
            "slicing": {"axis": "axial", "slices": [0.4, 11]},
            "preprocessing": {"normalisation": "percentiles"},
            "random_crop": [16, 14],
            "cache": {"progress": False},
        },
    },
    "evaluation": {"enabled": False},
    "trainer": {"max_steps": 1, "accelerator": "cpu", "enable_progress_bar": False},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of the scans, and the checkpoint of a training on them."""
    root = tmp_path_factory.mktemp("scans")
    write_folder(root, suffix=".nii.gz")
    configuration = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
    settings = configuration["data"]["init_args"]
    settings["root"], settings["cache"]["folder"] = str(root), str(root / "cache")
    (root / "run.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    words = ["fit", "--config", str(root / "run.yaml"), "--trainer.default_root_dir", str(root)]
    assert main(words) == 0
    checkpoints = root / "lightning_logs" / "version_0" / "checkpoints"
    return root, next(checkpoints.glob("epoch=*.ckpt"))


def ask(checkpoint: Path, out: Path, *words: str) -> int:
    question = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "age=70", "--npz"]
    return main([*question, "--format", "nifti", "--out", str(out), *words])


def test_a_scan_is_answered_as_its_rows_of_the_test_split_are(run, tmp_path):
    root, checkpoint = run
    data = load_data(checkpoint)
    data.setup("test")
    rows = [row for row, name in enumerate(data.row_names("test")) if name.startswith("0009")]
    assert len(rows) == 2, "one for each slice"
    age, sex = (float(data.variables("test")[name][rows[0]]) for name in ("age", "sex"))
    (root / "mine.csv").write_text(f"age,sex,image\n{age},{sex:g},0009.nii.gz\n")
    assert ask(checkpoint, tmp_path / "rows", "--index", *map(str, rows)) == 0
    words = ["--observations", str(root / "mine.csv")]
    assert ask(checkpoint, tmp_path / "scan", *words) == 0
    one, other = (np.load(tmp_path / name / "answers.npz") for name in ("rows", "scan"))
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    with (tmp_path / "scan" / "answers.csv").open(encoding="utf-8") as file:
        names = {row["observation"] for row in csv.DictReader(file)}
    assert names == {"mine.csv 0, slice 0", "mine.csv 0, slice 1"}
    for row, (image, place) in zip(rows, data.prepare_file(root / "0009.nii.gz"), strict=True):
        assert torch.equal(image, data.variables("test")["image"][row])
        expected = data.placement("test", row)
        assert isinstance(place, Placement)
        np.testing.assert_allclose(place.affine, expected.affine)
        assert bytes(place.header.binaryblock) == bytes(expected.header.binaryblock)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((12, 16, 20), "random_crop: expected 2 sizes of at most"),
        ((20, 18), "expected a volume to cut"),
    ],
)
def test_a_scan_that_does_not_fit_is_named(run, tmp_path, capsys, shape, message):
    _, checkpoint = run
    array = volume(3, (*shape, 5)[:3])
    write_nifti(tmp_path / "a.nii", array if len(shape) == 3 else array[..., 2:3])
    (tmp_path / "mine.csv").write_text("age,sex,image\n60,1,a.nii\n")
    words = ["--observations", str(tmp_path / "mine.csv")]
    assert ask(checkpoint, tmp_path / "out", *words) == 1
    error = capsys.readouterr().err
    assert "mine.csv, line 2, image: " in error
    assert message in error
    assert "which a trained model cannot change: convert it" in error
    assert not (tmp_path / "out").exists()


def test_rows_of_the_test_split_are_prepared_already(run, tmp_path, capsys):
    assert ask(run[1], tmp_path / "out", "--index", "0", "--prepared") == 1
    assert "prepared: expected with --observations only" in capsys.readouterr().err
    assert ask(run[1], tmp_path / "out", "--index", "0", "--prepare") == 0
    assert "like those of the run by default; leave it out" in capsys.readouterr().out


def test_data_that_are_not_made_from_files_say_so(tmp_path):
    data = SyntheticBrainDataModule(cache_dir=tmp_path)
    with pytest.raises(ValueError, match="prepare_file: SyntheticBrainDataModule does not prepare"):
        data.prepare_file(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "nifti"])
def test_answers_are_observations_as_they_are(run, tmp_path, kind):
    """They are prepared already, and would be changed by the percentiles of the data."""
    _, checkpoint = run
    assert ask(checkpoint, tmp_path / "first", "--index", "0", "--format", kind) == 0
    words = ["--observations", str(tmp_path / "first" / "answers.csv"), "--format", kind]
    assert ask(checkpoint, tmp_path / "second", *words) == 0
    first, second = (np.load(tmp_path / name / "answers.npz") for name in ("first", "second"))
    np.testing.assert_array_equal(second["0/image"][0, 0], first["0/image"][0, 0])
    np.testing.assert_array_equal(second["0/image"][0, 1], first["1/image"][0, 0])


def test_prepared_images_are_read_as_they_are(run, tmp_path, capsys):
    _, checkpoint = run
    levels = np.random.default_rng(0).integers(10, 200, (16, 14)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels.astype(np.uint16) * 16).save(tmp_path / "deep.png")
    (tmp_path / "mine.csv").write_text("age,sex,image\n60,1,a.png\n")
    words = ["--observations", str(tmp_path / "mine.csv")]
    assert ask(checkpoint, tmp_path / "out", *words) == 1, "volumes are cut"
    assert "expected a volume to cut" in capsys.readouterr().err
    assert ask(checkpoint, tmp_path / "out", *words, "--prepared") == 0
    found = np.load(tmp_path / "out" / "answers.npz")["0/image"]
    assert np.array_equal(found[0, 0, 0], levels)
    (tmp_path / "mine.csv").write_text("age,sex,image\n60,1,deep.png\n")
    assert ask(checkpoint, tmp_path / "deep", *words, "--prepared") == 1
    assert "expected grey levels of 8 bits, but got uint16" in capsys.readouterr().err


def test_observations_of_other_depths_and_colours(tmp_path):
    """By the settings of the data: prepared as they are, or refused; never changed unseen."""
    write_folder(tmp_path, shape=(20, 20))
    cases = Path(__file__).parents[1] / "fixtures" / "cases" / "observation-16-bit"
    plain, stretched = make(tmp_path), make(tmp_path, normalisation="percentiles")
    for name in ("u16_full", "u16_12bit"):
        with pytest.raises(ValueError, match=f"{name}.png: normalisation: none takes 8-bit images"):
            read_prepared(cases / f"{name}.png", (1, 20, 20), plain)
        [(image, _)] = read_prepared(cases / f"{name}.png", (1, 20, 20), stretched)
        assert len(image.unique()) > 50
    for data in (plain, stretched):
        with pytest.raises(ValueError, match=r"colour.png: expected grey levels, .* in colour"):
            read_prepared(cases / "colour.png", (1, 20, 20), data)
        grey = read_prepared(tmp_path / "0001.png", (3, 20, 20), data)[0][0]
        assert torch.equal(grey[0], grey[2])
