"""Checkpoints and exported models of version 0.1 can be opened and give the same answers."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from deepscm_pl.cli import main
from deepscm_pl.configuration import restore_class
from deepscm_pl.data import write_idx

FOLDER = Path(__file__).parent / "fixtures" / "checkpoints" / "0.1"
DIGITS = ("thickness=3", "intensity=100, thickness+=0.5", "intensity*=0.9")
HEADS = ("age=80", "sex=1", "brain_volume=1000000, ventricle_volume*=1.2")


@dataclass(frozen=True)
class Model:
    """A file of version 0.1.

    Attributes:
        file: Name of the file.
        interventions: Interventions of the questions.
        rows: Observed rows of its test split, if its data can be created here.
        size: Number of observations and particles.
    """

    file: str
    interventions: tuple[str, ...]
    rows: tuple[int, ...] = ()
    size: int = 2

    @property
    def name(self) -> str:
        return self.file.partition(".")[0]

    @property
    def path(self) -> Path:
        return FOLDER / self.file


MODELS = [
    Model("digits.ckpt", DIGITS, rows=(0, 3)),
    Model("image_flow.ckpt", DIGITS),
    Model("likelihoods.ckpt", ("width=2", "tilt-=1, width*=1.1")),
    Model("morphomnist.ckpt", DIGITS, rows=(0, 3)),
    Model("named_scans.ckpt", ("age=80", "sex=male", "site=Cardiff, age+=10")),
    Model("synthetic_brain.safetensors", HEADS, rows=(1, 3)),
    Model("volumes.safetensors", HEADS[:2], size=1),
    Model("world_scans.safetensors", HEADS, rows=(2,)),
]

models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
models_on_data = pytest.mark.parametrize(
    "model", [model for model in MODELS if model.rows], ids=lambda model: model.name
)


def ask(question: str, model: Model, out: Path, *words: str) -> Path:
    """Ask a question; the folder of the answers."""
    common = ["--ckpt_path", str(model.path), "--seed", "5", "--npz", "--out", str(out)]
    assert main([question, *common, *words]) == 0
    return out


def sample(model: Model, out: Path) -> Path:
    return ask("sample", model, out, "--size", str(model.size + 1))


def intervene(model: Model, out: Path) -> Path:
    size = ["--size", str(model.size)]
    return ask("intervene", model, out, *size, "--do", *model.interventions)


def counterfactual(model: Model, out: Path) -> Path:
    """Ask about the observations that are stored with the models."""
    table = FOLDER / "observations" / f"{model.name}.csv"
    words = ["--observations", str(table), "--num_particles", str(model.size)]
    return ask("counterfactual", model, out, *words, "--do", *model.interventions)


def counterfactual_of_test_rows(model: Model, out: Path) -> Path:
    words = ["--index", *map(str, model.rows), "--num_particles", "1"]
    return ask("counterfactual", model, out, *words, "--do", *model.interventions)


QUESTIONS = {each.__name__: each for each in (sample, intervene, counterfactual)}


def kept(model: Model, question: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / "answers" / f"{model.name}-{question}.npz") as file:
        return dict(file)


def require_equal(
    found: Path, expected: dict[str, np.ndarray], is_counterfactual: bool = True
) -> None:
    """Compare answers with those of version 0.1.

    A difference of 1e-6 before rounding can change the grey level of a few pixels by one. The noise
    within recorded grey levels is no longer drawn as it was, so that many pixels of counterfactual
    images are another draw of the same level or of the next.
    """
    with np.load(found / "answers.npz") as file:
        arrays = dict(file)
    share, most = (0.6, 3) if is_counterfactual else (0.995, 1)
    for name, array in expected.items():
        difference = np.abs(arrays[name].astype(np.float64) - array)
        assert difference.shape == array.shape, name
        close = difference <= 1e-5 * np.maximum(np.abs(array), 1)
        if array.ndim > 3:  # images
            assert close.mean() > share, name
            assert difference[~close].max(initial=0) <= most, name
        else:
            assert close.all(), name


@models
@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_equal_those_of_the_version_that_wrote_the_model(model, question, tmp_path):
    found = QUESTIONS[question](model, tmp_path / "answers")
    require_equal(found, kept(model, question), question == "counterfactual")


def test_classes_have_their_names(tmp_path):
    model = next(each for each in MODELS if each.name == "named_scans")
    found = counterfactual(model, tmp_path / "answers")
    with (found / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (FOLDER / "observations" / "named_scans.csv").open(newline="") as file:
        observed = list(csv.DictReader(file))
    for column in ("sex", "site"):
        assert [row[column] for row in rows[:2]] == [row[column] for row in observed]
    assert {row["sex"] for row in rows[6:10]} == {"male"}
    assert {row["site"] for row in rows[10:]} == {"Cardiff"}


def test_units_and_class_names_are_exported_again(tmp_path):
    out = tmp_path / "again.safetensors"
    assert main(["export", "--ckpt_path", str(FOLDER / "named_scans.ckpt"), "--out", str(out)]) == 0
    with safe_open(out, framework="pt") as file:
        variables = json.loads(file.metadata()["deepscm_pl"])["variables"]
    assert variables["age"]["unit"] == "years"
    assert variables["brain_volume"]["unit"] == variables["ventricle_volume"]["unit"] == "mm³"
    assert variables["sex"]["classes"] == ["female", "male"]
    assert variables["site"]["classes"] == ["Bristol", "Cardiff", "York"]


def draw_strokes(folder: Path) -> None:
    """A few strokes in the folder layout of torchvision's MNIST."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = np.zeros((40, 28, 28), dtype=np.uint8)
        for image, (left, top) in zip(images, generator.integers(4, 12, (40, 2)), strict=True):
            image[top : top + 14, left : left + 3] = 255
            image[top : top + 3, left : left + 10] = 200
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(40, dtype=np.uint8) % 10)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with the data of the models at the stored paths, and a home without caches."""
    root = tmp_path_factory.mktemp("older")
    draw_strokes(root / "MNIST" / "raw")
    digits = ["--mnist", str(root), "--out", str(root / "data" / "thickness-intensity")]
    assert main(["data", "morphomnist", *digits, "--workers", "1"]) == 0
    heads = ["--size", "60", "--shape", "16", "20", "--format", "nifti", "--workers", "1"]
    assert main(["data", "brain", "--out", str(root / "data" / "heads"), *heads]) == 0
    return root


@pytest.fixture
def in_workplace(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HOME", str(workplace))
    return workplace


@models_on_data
def test_data_are_found_and_asked_about(model, in_workplace, tmp_path):
    found = counterfactual_of_test_rows(model, tmp_path / "answers")
    require_equal(found, kept(model, "counterfactual_of_test_rows"))


def predict(path: Path, out: Path, *words: str) -> dict[str, np.ndarray]:
    """Quantities of every row of the test split, by name."""
    copied = shutil.copy(path, out)
    common = ["predict", "--ckpt_path", str(copied), "--trainer.default_root_dir", str(out)]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main([*common, *quiet, *words]) == 0
    with next(out.rglob("quantities.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_a_classifier_predicts_as_it_did(in_workplace, tmp_path):
    found = predict(FOLDER / "predictor.ckpt", tmp_path)
    with np.load(FOLDER / "answers" / "predictor-predict.npz") as expected:
        assert set(expected) == set(found)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4)


def test_data_are_found_where_they_have_moved(in_workplace, tmp_path, monkeypatch):
    shutil.copytree(in_workplace / "data" / "heads", tmp_path / "moved")
    model = next(each for each in MODELS if each.name == "world_scans")
    monkeypatch.chdir(tmp_path)
    words = ["--data.root", str(tmp_path / "moved"), "--index", "2", "--num_particles", "1"]
    words += ["--do", *model.interventions]
    found = ask("counterfactual", model, tmp_path / "answers", *words)
    require_equal(found, kept(model, "counterfactual_of_test_rows"))


CLASS_PATHS = json.loads((FOLDER / "class_paths.json").read_text())


@pytest.mark.parametrize("path", CLASS_PATHS)
def test_every_class_path_of_checkpoints_and_configurations_is_found(path):
    found = restore_class(path, (object,), ["deepscm_pl"])
    assert found.__name__ == path.rpartition(".")[2]
