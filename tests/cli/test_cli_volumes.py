"""Volumes from a training to files that open over the scan, by the program."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_brain import PLACE, SHAPE, write_configuration

from deepscm_pl import callbacks
from deepscm_pl.cli import main
from deepscm_pl.cli.observations import observations_from_csv
from deepscm_pl.data.images import default_placement, write_nifti
from deepscm_pl.figures import middle_planes
from deepscm_pl.training import DeepSCM, load_data

from oracle import make

DO = ["--do", "age=80", "sex=1, ventricle_volume*=1.5"]
UNKNOWN = "image: the position of the images in a scanner is not known"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on tiny heads: its folder, and what was printed."""
    root = tmp_path_factory.mktemp("brains")
    printed = io.StringIO()
    words = ["fit", "--config", str(write_configuration(root))]
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--trainer.default_root_dir", str(root)]) == 0
    return root / "lightning_logs" / "version_0", printed.getvalue()


@pytest.fixture(scope="module")
def checkpoint(run) -> Path:
    return next((run[0] / "checkpoints").glob("epoch=*.ckpt"))


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_model_of_volumes_is_evaluated_on_all_three_rungs(run):
    folder, printed = run
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text("utf-8"))
    assert found["left_out"] == ["Identity: no predictor was given."]
    assert "bound/image" in found["association"]
    assert "mean_absolute_error/image" in found["association"]
    assert {each["unit"] for each in found["intervention"]} == {"years", "", "mm³"}
    for answered in found["counterfactual"].values():
        quantities = answered["quantities"]
        assert quantities["error/structural_similarity/factual"]["mean"] < 1
        assert quantities["error/mean_absolute_error/stranger"]["mean"] > 0
        assert "effectiveness/brain_volume/intended/absolute_error" in quantities
        assert "reversibility/mean_absolute_error/10" in quantities
    assert found["composition"]["composition/mean_absolute_error/1"]["mean"] < 1
    text = (folder / "evaluation" / "evaluation.md").read_text("utf-8")
    assert "do(brain_volume = 1 million mm³, ventricle_volume × 1.2)" in text
    # No number of a table is cut off, however long the names are.
    assert "…" not in printed
    for name in ("examples", "densities", "errors", "coverage", "noise"):
        assert Image.open(folder / "evaluation" / f"{name}.png").size[0] > 300
    assert (folder / "checkpoints" / "counterfactual-image-test.png").is_file()
    log = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert "counterfactual/image/test" in log.Tags()["images"]


@pytest.mark.parametrize(
    "callback",
    [
        callbacks.CounterfactualGrid(["age=40", "brain_volume=1e6"], num_images=2),
        callbacks.InterventionGrid(["sex=1"], num_images=2, num_particles=2),
        callbacks.ReconstructionGrid(num_images=2),
        callbacks.SampleGrid(num_images=5),
        callbacks.ConditionalSampleGrid(num_images=1, quantiles=[0.1, 0.9]),
        callbacks.AttributeDensities(["age=80"]),
        callbacks.NoiseHistograms(),
        callbacks.LatentTraversal(num_images=1, num_dimensions=2),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_every_figure_of_volumes_is_drawn(checkpoint, callback):
    scm = DeepSCM.load_from_checkpoint(checkpoint).eval().scm
    test = load_data(checkpoint).variables("test")
    observations = {name: value.float() for name, value in test.items()}
    assert callback.check(scm) is None
    with torch.no_grad():
        drawn = dict(callback.draw(scm, observations, "test"))
    assert drawn
    for figure in drawn.values():
        assert figure.axes


def texts_of(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_captions_and_axes_have_the_units_of_the_data(checkpoint):
    model, data = DeepSCM.load_from_checkpoint(checkpoint).eval(), load_data(checkpoint)
    observations = {name: value.float() for name, value in data.variables("test").items()}
    assert data.units == {"age": "years", "brain_volume": "mm³", "ventricle_volume": "mm³"}
    shown = []
    for callback in (
        callbacks.CounterfactualGrid(["age=80"]),
        callbacks.SampleGrid(num_images=1),
        callbacks.ConditionalSampleGrid(num_images=1, units={"ventricle_volume": "ml"}),
        callbacks.AttributeDensities(units={"age": "a"}),
    ):
        # As often as Lightning sets it up: what is known of the data is not taken for given.
        for _ in range(2):
            callback.setup(SimpleNamespace(datamodule=data), model, "fit")
        with torch.no_grad():
            _, figure = next(callback.draw(model.scm, observations, "test"))
        shown.append(texts_of(figure))
    assert "age 80 years\nsex" in shown[0]
    assert " mm³\nventricle volume" in shown[0]
    assert " years\nsex" in shown[1]
    assert "ventricle volume (ml)" in shown[2]
    assert "brain volume (mm³)" in shown[2]
    assert "age (a)" in shown[3]
    assert "brain volume (million mm³)" in shown[3]


def test_counterfactual_volumes_lie_over_their_scans(checkpoint, tmp_path, capsys):
    out = tmp_path / "answers"
    words = ["--ckpt_path", str(checkpoint), "--out", str(out), "--index", "2", "4", "--npz"]
    assert main(["counterfactual", *words, *DO, "--num_particles", "2"]) == 0
    assert UNKNOWN not in capsys.readouterr().out
    rows, arrays = read(out), np.load(out / "answers.npz")
    assert len(rows) == 2 + 2 * 2 * 2
    factual = nibabel.load(out / rows[0]["image"])
    test = load_data(checkpoint).variables("test")["image"]
    np.testing.assert_array_equal(np.asarray(factual.dataobj), test[2, 0].numpy())
    assert factual.header["descrip"].item() == b"factual"
    assert rows[0]["image_difference"] == ""
    particles = [row for row in rows if row["intervention"] == "do(age = 80)"]
    for n in range(2):
        for particle in range(2):
            row = particles[2 * n + particle]
            image = nibabel.load(out / row["image"])
            np.testing.assert_array_equal(image.affine, PLACE)
            assert image.get_data_dtype() == np.uint8
            assert image.header["db_name"].item() == f"test {2 * n + 2}".encode()
            assert image.header["descrip"].item() == b"counterfactual under do(age = 80)"
            answer = arrays["1/image"][particle, n, 0]
            np.testing.assert_array_equal(np.asarray(image.dataobj), answer)
            change = nibabel.load(out / row["image_difference"])
            assert change.get_data_dtype() == np.float32
            np.testing.assert_array_equal(change.affine, PLACE)
            before = arrays["0/image"][0, n, 0]
            np.testing.assert_array_equal(np.asarray(change.dataobj), answer - before)
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(
        Path(row[column]).name for row in rows for column in ("image", "image_difference")
        if row[column]
    )  # fmt: skip
    assert (out / "image.png").is_file()
    assert (out / "image-deviation.png").is_file()


def test_volumes_from_nowhere_are_said_to_be(checkpoint, tmp_path, capsys):
    words = ["--ckpt_path", str(checkpoint), "--out"]
    index = ["--index", "0", "1", "--do", "age=80"]
    assert main(["counterfactual", *words, str(tmp_path / "a"), *index]) == 0
    assert UNKNOWN in capsys.readouterr().out
    known, unknown = (
        nibabel.load(tmp_path / "a" / row["image"]) for row in read(tmp_path / "a")[:2]
    )
    np.testing.assert_array_equal(known.affine, PLACE)
    np.testing.assert_array_equal(unknown.affine, np.eye(4))
    for question, more in (("sample", []), ("intervene", ["--do", "age=80"])):
        out = tmp_path / question
        assert main([question, *words, str(out), *more, "--size", "2"]) == 0
        assert UNKNOWN in capsys.readouterr().out
        rows = read(out)
        assert "image_difference" not in rows[0]
        image = nibabel.load(out / rows[1]["image"])
        assert image.shape == SHAPE
        about = b"sample under do(age = 80)" if more else b"sample"
        assert image.header["descrip"].item() == about


def test_grids_of_answers_have_the_units_of_the_data(checkpoint, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "deepscm_pl.cli.answers.save_figure", lambda figure, path: shown.append(texts_of(figure))
    )
    words = ["--ckpt_path", str(checkpoint), "--out", str(tmp_path / "a"), "--size", "1"]
    assert main(["intervene", *words, "--do", "brain_volume=1.2e6"]) == 0
    assert "brain volume 1.2 million mm³\nventricle volume" in shown[0]
    assert "do(brain_volume = 1.2 million mm³)" in shown[0]


def test_pictures_of_volumes_are_their_planes(checkpoint, tmp_path, capsys):
    out = tmp_path / "answers"
    words = ["--ckpt_path", str(checkpoint), "--out", str(out), "--index", "3", "--do", "age=80"]
    assert main(["counterfactual", *words, "--format", "png"]) == 0
    assert UNKNOWN not in capsys.readouterr().out
    rows = read(out)
    assert "image_difference" not in rows[0]
    volume = load_data(checkpoint).variables("test")["image"][3]
    shown = np.asarray(Image.open(out / rows[0]["image"]))
    np.testing.assert_array_equal(shown, middle_planes(volume)[0].numpy())


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PSR"])
def test_own_volumes_come_back_where_they_were(checkpoint, tmp_path, codes):
    """From a scan of any orientation, through the program, to a file over the same scan."""
    test = load_data(checkpoint).variables("test")
    volume = test["image"][1, 0].numpy()
    scan = nibabel.Nifti1Image(volume, PLACE)
    scan.header["aux_file"] = b"ward 7"
    turned = scan.as_reoriented(nibabel.orientations.axcodes2ornt(codes))
    nibabel.save(turned, tmp_path / "mine.nii.gz")
    np.save(tmp_path / "mine.npy", volume)
    names = ("age", "sex", "brain_volume", "ventricle_volume")
    values = ",".join(str(test[name][1].item()) for name in names)
    lines = [f"{','.join(names)},image", f"{values},mine.nii.gz", f"{values},mine.npy"]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    out = tmp_path / "answers"
    words = ["--ckpt_path", str(checkpoint), "--observations", str(tmp_path / "mine.csv")]
    assert main(["counterfactual", *words, "--do", "age+=0", "--out", str(out)]) == 0
    rows = read(out)
    found = nibabel.load(out / rows[2]["image"])
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume)
    np.testing.assert_array_equal(found.affine, PLACE)
    assert found.header["aux_file"].item() == b"ward 7"
    from_array = nibabel.load(out / rows[3]["image"])
    np.testing.assert_array_equal(np.asarray(from_array.dataobj), volume)
    np.testing.assert_array_equal(from_array.affine, np.eye(4))


def write_observations(folder: Path, kind: str) -> Path:
    name = {"picture": "a.png", "text": "a.npy", "sizes of array": "a.npy"}.get(kind, "a.nii.gz")
    path = folder / name
    if kind == "picture":
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    elif kind == "text":
        path.write_text("no array")
    elif kind == "sizes of array":
        np.save(path, np.zeros((20, 16, 16)))
    elif kind == "sizes":
        write_nifti(path, np.zeros((20, 16, 16), np.uint8), default_placement(3))
    elif kind == "four dimensions":
        nibabel.save(nibabel.Nifti1Image(np.zeros((*SHAPE, 2), np.uint8), np.eye(4)), path)
    elif kind == "slice":
        write_nifti(path, np.zeros((16, 20), np.uint8), default_placement(2))
    elif kind == "a scanner's numbers":
        nibabel.save(nibabel.Nifti1Image(np.full(SHAPE, 1043, np.int16), np.eye(4)), path)
    elif kind == "truncated":
        write_nifti(path, np.random.default_rng(0).integers(0, 9, SHAPE), default_placement(3))
        path.write_bytes(path.read_bytes()[:900])
    table = folder / "mine.csv"
    table.write_text(f"age,sex,brain_volume,ventricle_volume,image\n60,1,1.1e6,3e4,{name}\n")
    return table


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("picture", "expected a volume, but it is a single slice"),
        ("text", "cannot be read"),
        ("sizes of array", "expected a volume of 16×20×16 voxels, but"),
        ("sizes", "has 20×16×16; prepare it"),
        ("slice", "is a single slice of shape (16, 20, 1); prepare it"),
        ("four dimensions", "expected a volume of three dimensions"),
        (
            "a scanner's numbers",
            "has from 1043 to 1043; prepare it as the training data",
        ),
        ("truncated", "it is truncated or of another format"),
        ("missing", "there is no image"),
    ],
)
def test_bad_volumes_are_named(checkpoint, tmp_path, capsys, kind, message):
    table = write_observations(tmp_path, kind)
    words = ["--ckpt_path", str(checkpoint), "--observations", str(table), "--do", "age=80"]
    assert main(["counterfactual", *words, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "line 2, image" in error
    assert not (tmp_path / "out").exists()


def test_a_model_of_slices_refuses_a_volume(tmp_path):
    scm = make()
    write_nifti(tmp_path / "a.nii", np.zeros((5, 6, 7), np.uint8), default_placement(3))
    cells = {"thickness": "2", "intensity": "100", "image": "a.nii"}
    table = tmp_path / "mine.csv"
    table.write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    observed = observations_from_csv(scm, table)
    with pytest.raises(ValueError, match=r"expected a single slice, but it is a volume of shape"):
        next(observed.read(1))


def test_the_evaluation_is_repeated_from_the_checkpoint(run, checkpoint, tmp_path, capsys):
    copy = tmp_path / "run" / "checkpoints" / "best.ckpt"
    copy.parent.mkdir(parents=True)
    shutil.copy(checkpoint, copy)
    words = ["--evaluation.rows", "4", "--evaluation.interventions", "[sex=1]"]
    assert main(["test", "--ckpt_path", str(copy), *words]) == 0
    found = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text("utf-8"))
    assert found["rows"] == 4
    assert list(found["counterfactual"]) == ["sex=1"]
