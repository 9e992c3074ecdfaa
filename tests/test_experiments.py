"""Every experiment has a description and a command of one line, and trains."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from public_layouts import write_public

from deepscm_pl.callbacks import FigureCallback
from deepscm_pl.cli import main
from deepscm_pl.cli.configurations import Configuration

FOLDER = Path(__file__).parents[1] / "experiments"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
NAMES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*.yaml"))
WORLDS = (
    "thickness-intensity-falling",
    "thickness-slant",
    "thickness-width",
    "thickness-intensity-slant",
    "colour",
)
SMALL = {
    "brain/full_192.yaml": ["--data.init_args.shape", "[64, 64]", "IMAGE.shape", "[1, 64, 64]"],
    "brain/full_volume.yaml": [
        "--data.init_args.shape",
        "[16, 20, 16]",
        "IMAGE.shape",
        "[1, 16, 20, 16]",
    ],
}
"""Images of other sizes, where those of the experiment take long."""


def description(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()[0]


def test_every_experiment_is_in_the_table_with_its_description():
    listed = re.findall(r"^\| `(\w+/\w+\.yaml)` \| (.*) \|$", README, re.MULTILINE)
    assert sorted(listed) == [(name, description(name).removeprefix("# ")) for name in NAMES]
    assert len(listed) >= 34


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_an_experiment_describes_it(name):
    assert re.fullmatch(r"# [A-Z].{20,98}[.?]", description(name))


def redundant(base: Any, overlay: Any, path: str = "") -> Iterator[str]:
    """Keys of an overlay that change nothing."""
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping):
        if base == overlay:
            yield path
        return
    if overlay.get("class_path") not in (None, base.get("class_path")):
        return
    for key, value in overlay.items():
        if key in base and key != "class_path":
            yield from redundant(base[key], value, f"{path}.{key}")


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_contains_only_its_difference(name):
    layers = Configuration.read([str(FOLDER / name)]).layers
    assert not list(redundant(Configuration(layers[:-1]).settings, layers[-1].settings))


@pytest.mark.parametrize("name", NAMES)
def test_an_overlay_is_the_same_after_its_base(name):
    layers = Configuration.read([str(FOLDER / name)]).layers
    files = [str(layer.path) for layer in layers]
    assert Configuration.read(files).settings == Configuration(layers).settings


def write_mnist(folder: Path) -> None:
    """Forty strokes in the files of MNIST."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        images = np.zeros((40, 28, 28), dtype=np.uint8)
        for number, image in enumerate(images):
            left = 4 + number % 12
            image[6:22, left : left + 3] = 255
            image[6:9, left : left + 9] = 200
        labels = np.arange(40, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data that the experiments name, of a few images each."""
    root = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HOME", str(root))  # where drawn images are kept
        write_mnist(root / "mnist")
        digits = ["data", "morphomnist", "--mnist", "mnist", "--workers", "1"]
        assert main([*digits, "--out", "data/morphomnist"]) == 0
        for world in WORLDS:
            assert main([*digits, "--world", world, "--out", f"data/{world}"]) == 0
        write_public(root / "data")
        assert main(["data", "brain", "--out", "data/brain", "--size", "60", "--workers", "1"]) == 0
        yield root


def command(name: str) -> list[str]:
    """The command of an experiment, with options that make it small."""
    settings = Configuration.read([str(FOLDER / name)]).settings
    words = ["fit", "--config", str(FOLDER / name), "--trainer.fast_dev_run", "2"]
    words += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    words += ["--trainer.enable_model_summary", "false", "--trainer.precision", "32-true"]
    words += ["--data.init_args.batch_size", "3"]
    if settings["data"]["class_path"].endswith("SyntheticBrainDataModule"):
        for size in ("train_size", "validation_size", "test_size"):
            words += [f"--data.init_args.{size}", "12" if size == "train_size" else "4"]
    elif settings["data"]["class_path"].endswith("MorphoMNISTDataModule"):
        words += ["--data.init_args.validation_size", "6"]
    for word in SMALL.get(name, []):
        words.append(word.replace("IMAGE", "--model.mechanisms.image.init_args"))
    return words


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_trains(folder, monkeypatch, name):
    """Two steps, and two batches of validation, without figures."""
    monkeypatch.setattr(FigureCallback, "on_validation_epoch_end", lambda *arguments: None)
    assert main(command(name)) == 0
