"""From nothing to a counterfactual head: the program draws a folder, fits and answers."""

from __future__ import annotations

import contextlib
import copy
import csv
import shutil
from pathlib import Path

import nibabel
import nibabel.processing
import numpy as np
import pytest
import torch
import yaml

from deepscm_pl.cli import main
from deepscm_pl.older import translated
from deepscm_pl.training import load_data

POSITIVE = {
    "class_path": "deepscm_pl.AffineFlow",
    "init_args": {"constraint": "deepscm_pl.Positive"},
}
CONFIGURATION = {
    "seed_everything": 1,
    "model": {
        "graph": "age, sex -> brain_volume; age, brain_volume -> ventricle_volume; "
        "brain_volume, ventricle_volume -> image",
        "mechanisms": {
            "age": POSITIVE,
            "sex": {"class_path": "deepscm_pl.mechanisms.Bernoulli"},
            "brain_volume": POSITIVE,
            "ventricle_volume": POSITIVE,
            "image": {
                "class_path": "deepscm_pl.ConditionalVAE",
                "init_args": {
                    "shape": [1, 16, 20],
                    "latent": 2,
                    "hidden": 8,
                    "encoder": {
                        "class_path": "deepscm_pl.nn.ConvolutionalEncoder",
                        "init_args": {"features": 8, "channels": [4, 8]},
                    },
                    "decoder": {
                        "class_path": "deepscm_pl.nn.ConvolutionalDecoder",
                        "init_args": {"hidden": 16, "channels": [8, 4]},
                    },
                },
            },
        },
    },
    "evaluation": {"num_particles": 2, "density_size": 60, "workers": 1},
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Small heads as NIfTI slices, drawn by the program."""
    out = tmp_path_factory.mktemp("brain") / "heads"
    words = ["data", "brain", "--out", str(out), "--size", "40", "--shape", "16", "20"]
    assert main([*words, "--format", "nifti", "--workers", "1"]) == 0
    return out


def data_settings(folder: Path, **more) -> dict:
    settings = {
        "root": str(folder),
        "images": "{eid}_T1_unbiased_brain_rigid_to_mni.nii.gz",
        "split_column": "split",
        "batch_size": 8,
        "cache_dir": str(folder.parent / "cache"),
        **more,
    }
    grouped = translated("BrainMRIDataModule", settings)
    return {"class_path": "deepscm_pl.data.BrainMRIDataModule", "init_args": grouped}


def fit(tmp_path: Path, **data) -> Path:
    """The checkpoint of a training that is not evaluated."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIGURATION, "data": data}))
    words = ["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path)]
    assert main([*words, "--evaluation.enabled", "false"]) == 0
    return tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"


def test_a_model_is_fitted_and_asked(folder, tmp_path, capsys):
    checkpoint = fit(tmp_path, **data_settings(folder))
    assert "log p(ventricle_volume | age, brain_volume)" in capsys.readouterr().out
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "ventricle_volume=60000"]
    assert main([*words, "--index", "0", "2", "--out", str(tmp_path / "answers")]) == 0
    (table,) = (tmp_path / "answers").glob("*.csv")
    with table.open() as file:
        found = {row["observation"] for row in csv.DictReader(file)}
    subjects = load_data(checkpoint).identifiers("test")
    assert found == {f"test {row} ({subjects[row]})" for row in (0, 2)}


def test_a_checkpoint_finds_its_data_where_they_have_moved(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, tmp_path / "first")
    checkpoint = fit(tmp_path, **data_settings(tmp_path / "first"))
    expected = load_data(checkpoint).variables("test")
    (tmp_path / "first").rename(moved)
    found = load_data(checkpoint, root=moved).variables("test")
    assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_slices_and_fractions_are_told_apart_in_yaml(tmp_path):
    out = tmp_path / "heads"
    words = ["data", "brain", "--out", str(out), "--size", "20", "--shape", "16", "16", "20"]
    assert main([*words, "--workers", "1"]) == 0
    settings = {"axis": "axial", "slices": [9, 0.5, 1], "shape": [16, 20], "memory": 0}
    data = load_data(fit(tmp_path, **data_settings(out, **settings)))
    assert data.slicing.slices == (9, 0.5, 1)
    assert [type(each) for each in data.slicing.slices] == [int, float, int]


def test_a_missing_image_stops_the_program_before_training(folder, tmp_path, capsys):
    copied = tmp_path / "heads"
    shutil.copytree(folder, copied)
    for path in sorted(copied.glob("*.nii.gz"))[3:5]:
        path.unlink()
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIGURATION, "data": data_settings(copied)}))
    words = ["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path)]
    assert main(words) != 0
    message = capsys.readouterr().err
    assert "images: line 5 of subjects.csv (eid 1000003): there is no file" in message
    assert "and 1 more are missing" in message


def recoded(folder: Path, target: Path, codes: dict[str, str]) -> Path:
    """A copy of the heads that says something else for the sexes 0 and 1, and has no world."""
    shutil.copytree(folder, target)
    (target / "world.json").unlink()
    with (target / "subjects.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (target / "subjects.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "sex": codes[row["sex"]]} for row in rows)
    return target


@pytest.mark.parametrize(
    ("codes", "other"),
    [({"0": "female", "1": "male"}, "0"), ({"0": "1", "1": "2"}, "1.0")],
    ids=["texts", "numbers"],
)
def test_classes_are_called_as_in_the_table(folder, tmp_path, codes, other):
    data = data_settings(recoded(folder, tmp_path / "heads", codes))
    grid = {
        "class_path": "deepscm_pl.callbacks.CounterfactualGrid",
        "init_args": {"interventions": [f"sex={codes['1']}"], "num_images": 2},
    }
    questions = [f"sex={codes['0']}", f"sex={codes['1']}, age=60"]
    settings = {
        **CONFIGURATION,
        "data": data,
        "trainer": {**CONFIGURATION["trainer"], "callbacks": [grid]},
        "evaluation": {"interventions": questions, "num_particles": 2, "workers": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "config.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *words]) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    report = (run / "evaluation" / "evaluation.md").read_text()
    assert f"do(sex = {codes['1']}, age = 60)" in report
    # The data are not needed to know what classes are called.
    checkpoint = run / "checkpoints" / "last.ckpt"
    image = np.zeros((16, 20), np.uint8)
    image[4:12, 5:15] = 100
    np.save(tmp_path / "image.npy", image)
    lines = "age,sex,brain_volume,ventricle_volume,image\n"
    lines += f"60,{codes['1']},1100000,30000,image.npy\n"
    (tmp_path / "mine.csv").write_text(lines)
    shutil.rmtree(tmp_path / "heads")
    words = ["--ckpt_path", str(checkpoint), "--observations", str(tmp_path / "mine.csv")]
    words += ["--out", str(tmp_path / "answers"), "--npz"]
    assert main(["counterfactual", *words, "--do", f"sex={codes['0']}", f"sex={other}"]) == 0
    with (tmp_path / "answers" / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["sex"] for row in rows] == [codes["1"], codes["0"], codes["0"]]
    assert [row["intervention"] for row in rows[1:]] == [f"do(sex = {codes['0']})"] * 2
    arrays = np.load(tmp_path / "answers" / "answers.npz")
    assert [arrays[f"{k}/sex"].item() for k in range(3)] == [1.0, 0.0, 0.0]


def test_a_class_that_is_not_there_is_refused(folder, tmp_path, capsys):
    codes = {"0": "female", "1": "male"}
    data = data_settings(recoded(folder, tmp_path / "heads", codes))
    checkpoint = fit(tmp_path, **data)
    words = ["--ckpt_path", str(checkpoint), "--index", "0", "--out", str(tmp_path / "answers")]
    assert main(["counterfactual", *words, "--do", "sex=mail"]) == 1
    assert "do(sex): expected one of female, male, but got 'mail'" in capsys.readouterr().err
    assert main(["counterfactual", *words, "--do", "age=old"]) == 1
    assert "do(age): expected a number, because it has no named" in capsys.readouterr().err
    (tmp_path / "mine.csv").write_text("age,sex,brain_volume,ventricle_volume,image\n60,x,1,1,a\n")
    words = ["--ckpt_path", str(checkpoint), "--observations", str(tmp_path / "mine.csv")]
    words += ["--out", str(tmp_path / "answers")]
    assert main(["counterfactual", *words, "--do", "sex=male"]) == 1
    assert "line 2, sex: expected one of female, male, but got 'x'" in capsys.readouterr().err


SITES = ("Leeds", "London", "York")


def with_sites(folder: Path, target: Path) -> Path:
    """A copy of the heads that were seen at one of three sites."""
    shutil.copytree(folder, target)
    (target / "world.json").unlink()
    with (target / "subjects.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (target / "subjects.csv").open("w") as file:
        writer = csv.DictWriter(file, [*rows[0], "site"])
        writer.writeheader()
        writer.writerows({**row, "site": SITES[n % 3]} for n, row in enumerate(rows))
    return target


def model_of_sites(mechanism: str | dict) -> dict:
    model = copy.deepcopy(CONFIGURATION["model"])
    model["graph"] = "age -> site; " + model["graph"].replace("ventricle_volume -> i", "site -> i")
    model["mechanisms"]["site"] = mechanism
    return model


def test_a_category_of_several_classes_from_table_to_answer(folder, tmp_path):
    settings = {
        **CONFIGURATION,
        "model": model_of_sites(
            {
                "class_path": "deepscm_pl.mechanisms.Categorical",
                "init_args": {"categories": 3, "hidden": [4]},
            }
        ),
        "data": data_settings(with_sites(folder, tmp_path / "heads")),
        "evaluation": {
            "interventions": ["site=York", "age=50"],
            "num_particles": 2,
            "workers": 1,
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", str(tmp_path / "config.yaml"), "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *words]) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    report = (run / "evaluation" / "evaluation.md").read_text()
    assert "log p(site \\| age)" in report
    assert "do(site = York)" in report
    words = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--index", "0"]
    words += ["--out", str(tmp_path / "answers")]
    assert main(["counterfactual", *words, "--do", "site=York", "age=79"]) == 0
    with (tmp_path / "answers" / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["site"] == "York"
    assert {row["site"] for row in rows} <= set(SITES)


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [
        ("deepscm_pl.AffineFlow", "but AffineFlow expects values in (-inf, inf)"),
        (
            {"class_path": "deepscm_pl.mechanisms.Categorical", "init_args": {"categories": 4}},
            "but Categorical expects a class index from 0 to 3",
        ),
    ],
)
def test_classes_need_a_mechanism_of_as_many(folder, tmp_path, capsys, mechanism, expected):
    data = data_settings(with_sites(folder, tmp_path / "heads"))
    settings = {**CONFIGURATION, "model": model_of_sites(mechanism), "data": data}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 1
    error = capsys.readouterr().err
    assert f"site is one of 3 classes (Leeds, London, York), {expected}" in error
    assert "deepscm_pl.mechanisms.Categorical with categories: 3" in error


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, but got 0."),
        ({"batch_sizes": 8}, "Option 'batch_sizes' is not accepted; did you mean 'batch_size'?"),
        ({"split_column": "splits"}, "splits"),
    ],
)
def test_wrong_data_are_one_line_and_leave_no_folder(folder, tmp_path, capsys, wrong, message):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIGURATION, "data": data_settings(folder, **wrong)}))
    words = ["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path / "run")]
    with contextlib.suppress(SystemExit):
        assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Namespace" not in error
    assert "NoneType" not in error
    assert not list((tmp_path / "run").rglob("*"))


def test_a_training_that_is_refused_leaves_the_folders_of_others(folder, tmp_path, capsys):
    checkpoint = fit(tmp_path, **data_settings(folder))
    before = sorted(tmp_path.rglob("*"))
    words = ["fit", "--config", str(tmp_path / "config.yaml")]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    assert main([*words, "--evaluation.interventions", "[height=3]"]) == 1
    assert "height" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    going_on = ["--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert main([*words, *going_on, "--evaluation.interventions", "[height=3]"]) == 1
    assert set(before) <= set(tmp_path.rglob("*"))
    assert checkpoint.is_file()


def test_going_on_says_nothing_of_its_own_checkpoints(folder, tmp_path, recwarn):
    fit(tmp_path, **data_settings(folder))
    words = ["fit", "--config", str(tmp_path / "config.yaml"), "--ckpt_path", "last"]
    words += ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs", "2"]
    assert main([*words, "--evaluation.enabled", "false"]) == 0
    assert not [each for each in recwarn if "is not empty" in str(each.message)]


def test_a_mechanism_of_a_misspelt_name_is_named(folder, tmp_path, capsys):
    model = copy.deepcopy(CONFIGURATION["model"])
    model["mechanisms"]["brain_volumes"] = model["mechanisms"].pop("brain_volume")
    settings = {**CONFIGURATION, "model": model, "data": data_settings(folder)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 1
    error = capsys.readouterr().err
    assert "brain_volume has no mechanism, and brain_volumes is not in the graph" in error


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_impossible_value_in_any_split_stops_before_training(folder, tmp_path, capsys, split):
    shutil.copytree(folder, tmp_path / "heads")
    (tmp_path / "heads" / "world.json").unlink()
    with (tmp_path / "heads" / "subjects.csv").open() as file:
        rows = list(csv.DictReader(file))
    wrong = next(row for row in rows if row["split"] == split)
    wrong["brain_volume"] = "-5"
    with (tmp_path / "heads" / "subjects.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    path = tmp_path / "config.yaml"
    data = data_settings(tmp_path / "heads")
    path.write_text(yaml.safe_dump({**CONFIGURATION, "data": data}))
    words = ["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path / "run")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert f"data: row 0 ({wrong['eid']}) of the {split} split: brain_volume: expected" in error
    assert "but got -5" in error
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def configuration_of(shape: list[int], **data) -> dict:
    settings = copy.deepcopy({**CONFIGURATION, "data": data})
    settings["model"]["mechanisms"]["image"]["init_args"]["shape"] = [1, *shape]
    settings["evaluation"] = {"enabled": False}
    return settings


def test_pictures_of_odd_sizes_from_folder_to_answer(tmp_path):
    """As those of the authors, of 193 × 229 pixels, halved twice by the networks."""
    heads = tmp_path / "heads"
    words = ["data", "brain", "--out", str(heads), "--size", "12", "--shape", "193", "229"]
    assert main([*words, "--workers", "1"]) == 0
    data = data_settings(heads, images="{eid}_T1_unbiased_brain_rigid_to_mni.png", batch_size=4)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration_of([193, 229], **data)))
    assert main(["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path)]) == 0
    checkpoint = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "ventricle_volume=60000"]
    assert main([*words, "--index", "0", "--npz", "--out", str(tmp_path / "answers")]) == 0
    arrays = np.load(tmp_path / "answers" / "answers.npz")
    assert arrays["0/image"].shape[-2:] == arrays["1/image"].shape[-2:] == (193, 229)


def test_volumes_of_mixed_sizes_and_orientations_from_folder_to_answer(tmp_path):
    """Cut into slices of one size, trained on, and answered over the place of the source."""
    heads = tmp_path / "heads"
    words = ["data", "brain", "--out", str(heads), "--size", "12", "--format", "nifti"]
    assert main([*words, "--shape", "20", "24", "20", "--workers", "1"]) == 0
    (heads / "world.json").unlink()
    for number, path in enumerate(sorted(heads.glob("*.nii.gz"))):
        volume = nibabel.load(path)
        sizes = np.array(volume.header.get_zooms()) * (1.0 if number % 2 else 0.8)
        resampled = nibabel.processing.conform(
            volume, out_shape=(20, 24, 20) if number % 2 else (25, 30, 25), voxel_size=sizes,
            orientation="RAS" if number % 3 else "PIR",
        )  # fmt: skip
        nibabel.save(resampled, path)
    settings = {
        "axis": "axial",
        "slices": [0.45, 0.55],
        "normalisation": "percentiles",
        "voxel_size": [10.0, 10.0],
        "shape": [16, 20],
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration_of([16, 20], **data_settings(heads, **settings))))
    assert main(["fit", "--config", str(path), "--trainer.default_root_dir", str(tmp_path)]) == 0
    checkpoint = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    words = ["counterfactual", "--ckpt_path", str(checkpoint), "--do", "ventricle_volume=60000"]
    out = tmp_path / "answers"
    assert main([*words, "--index", "0", "1", "--format", "nifti", "--out", str(out)]) == 0
    data = load_data(checkpoint)
    for row in range(2):
        answer = nibabel.load(out / "images" / f"image-{row}-0-0.nii.gz")
        assert answer.shape == (16, 20, 1)
        np.testing.assert_allclose(answer.affine, data.placement("test", row).affine, atol=1e-3)
