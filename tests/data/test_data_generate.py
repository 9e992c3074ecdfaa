"""A generated data set is complete, repeatable, and there entirely or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from deepscm_pl.cli import main
from deepscm_pl.data import (
    MorphoMNISTDataModule,
    ThicknessIntensityWorld,
    generate,
    generate_morphomnist,
    known_world,
    read_attributes,
    read_idx,
    write_attributes,
    write_idx,
)
from deepscm_pl.worlds import DIGIT_WORLDS

SIZES = {"train": 70, "t10k": 30}
WORLD = ThicknessIntensityWorld()
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte", "originals-idx3-ubyte")
FILES = [f"{p}-{k}" for p in SIZES for k in KINDS]


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A root folder as torchvision's, with a few strokes instead of MNIST."""
    raw = tmp_path / "source" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for prefix, size in SIZES.items():
        images = np.zeros((size, 28, 28), dtype=np.uint8)
        for image, (left, top) in zip(images, generator.integers(4, 12, (size, 2)), strict=True):
            image[top : top + 14, left : left + 3] = 255
            image[top : top + 3, left : left + 10] = 200
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        labels = generator.integers(0, 10, size, dtype=np.uint8)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return tmp_path / "source"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_belong_together(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "data"
    generate_morphomnist(mnist, out, workers=1, progress=False)
    assert sorted(contents(out)) == sorted(
        [f"{name}.gz" for name in FILES]
        + [f"{prefix}-morpho.csv" for prefix in SIZES]
        + ["world.json"]
    )
    for prefix in SIZES:
        original = read_idx(mnist / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte")
        labels = read_idx(mnist / "MNIST" / "raw" / f"{prefix}-labels-idx1-ubyte")
        attributes = read_attributes(out / f"{prefix}-morpho.csv", WORLD)
        drawn = WORLD.render(original, attributes)
        np.testing.assert_array_equal(read_idx(out / f"{prefix}-originals-idx3-ubyte.gz"), original)
        np.testing.assert_array_equal(read_idx(out / f"{prefix}-images-idx3-ubyte.gz"), drawn)
        np.testing.assert_array_equal(read_idx(out / f"{prefix}-labels-idx1-ubyte.gz"), labels)
    assert len(MorphoMNISTDataModule(out, validation_size=10).variables("train")["index"]) == 60


def test_bytes_do_not_depend_on_workers_or_run(mnist: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("one", "two", "again", "other")]
    for out, workers, seed in zip(outs, (1, 2, 1, 1), (3, 3, 3, 4), strict=True):
        generate_morphomnist(mnist, out, seed=seed, workers=workers, progress=False)
    one, two, again, other = map(contents, outs)
    assert one == two
    assert one == again
    assert one["train-morpho.csv"] != other["train-morpho.csv"]
    assert one["train-labels-idx1-ubyte.gz"] == other["train-labels-idx1-ubyte.gz"]


def test_splits_have_attributes_of_their_own(mnist: Path, tmp_path: Path) -> None:
    generate_morphomnist(mnist, tmp_path / "out", workers=1, progress=False)
    train, test = (read_attributes(tmp_path / "out" / f"{p}-morpho.csv", WORLD) for p in SIZES)
    assert not set(train["thickness"].tolist()) & set(test["thickness"].tolist())


def test_imposed_attributes(mnist: Path, tmp_path: Path) -> None:
    imposed = tmp_path / "attributes"
    imposed.mkdir()
    for prefix, size in SIZES.items():
        thickness = np.linspace(1.5, 4, size, dtype=np.float32)
        intensity = np.linspace(80, 240, size, dtype=np.float32)
        table = {"thickness": thickness, "intensity": intensity}
        write_attributes(imposed / f"{prefix}-morpho.csv", table)
    generate_morphomnist(mnist, tmp_path / "out", imposed, workers=1, progress=False)
    for prefix in SIZES:
        name = f"{prefix}-morpho.csv"
        assert (tmp_path / "out" / name).read_bytes() == (imposed / name).read_bytes()


def test_a_limited_data_set_is_the_beginning(mnist: Path, tmp_path: Path) -> None:
    generate_morphomnist(mnist, tmp_path / "all", workers=1, progress=False)
    generate_morphomnist(mnist, tmp_path / "few", workers=1, progress=False, limit=5)
    for prefix in SIZES:
        name = f"{prefix}-images-idx3-ubyte.gz"
        few, everything = (read_idx(tmp_path / folder / name) for folder in ("few", "all"))
        np.testing.assert_array_equal(few, everything[:5])


def test_the_folder_may_be_that_of_mnist_itself(mnist: Path, tmp_path: Path) -> None:
    generate_morphomnist(mnist / "MNIST", tmp_path / "out", workers=1, progress=False, limit=1)
    assert (tmp_path / "out").is_dir()


def test_an_empty_folder_may_exist(mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    generate_morphomnist(mnist, str(tmp_path / "out"), workers=1, progress=False, limit=1)
    assert len(contents(tmp_path / "out")) == 9


def terminate(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def fail(*_: object) -> None:
    raise RuntimeError("failed")


@pytest.mark.parametrize(
    ("happens", "raised"),
    [(interrupt, KeyboardInterrupt), (terminate, SystemExit), (fail, RuntimeError)],
)
def test_what_fails_leaves_nothing(
    mnist: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    happens: object,
    raised: type[BaseException],
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(type(WORLD.renderer), "shape", happens)
    with pytest.raises(raised):
        generate_morphomnist(mnist, tmp_path / "out", workers=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_failure_while_writing_leaves_nothing(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_write(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(generate, "write_attributes", fail_to_write)
    with pytest.raises(OSError, match="no space left"):
        generate_morphomnist(mnist, tmp_path / "out", workers=1, progress=False, limit=2)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Sorry</html>", "it is a web page; get the file again"),
        (b"", "is empty"),
        (gzip.compress(b"PK"), "is truncated"),
        (b"PK\3\4" + bytes(80), "it is a zip archive"),
    ],
    ids=["page", "empty", "compressed", "archive"],  # without the time that gzip writes
)
def test_a_broken_file_of_mnist_is_named(mnist, tmp_path, content, message) -> None:
    (mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=f"mnist: .*t10k-labels-idx1-ubyte.* {message}"):
        generate_morphomnist(mnist, tmp_path / "out", workers=1, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_files_of_mnist(mnist: Path, tmp_path: Path, suffix: str) -> None:
    generate_morphomnist(mnist, tmp_path / "a", workers=1, progress=False, limit=2)
    for path in (mnist / "MNIST" / "raw").iterdir():
        content = gzip.compress(path.read_bytes())
        path.unlink()
        path.with_name(path.name + suffix).write_bytes(content)
    generate_morphomnist(mnist, tmp_path / "b", workers=1, progress=False, limit=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_images_and_labels_of_mnist_belong_together(mnist: Path, tmp_path: Path) -> None:
    write_idx(mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.zeros(7, np.uint8))
    with pytest.raises(ValueError, match=r"one label for each t10k image .* 30 images and 7"):
        generate_morphomnist(mnist, tmp_path / "out", workers=1, progress=False)


def test_missing_mnist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no MNIST/raw folder.*nowhere"):
        generate_morphomnist(tmp_path / "nowhere", tmp_path / "out", progress=False)
    assert not list(tmp_path.iterdir())


def test_output_in_use(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_find_mnist", fail)
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("kept")
    for out in (full, full / "precious"):
        with pytest.raises(ValueError, match=f"{out} exists and is not an empty folder"):
            generate_morphomnist(mnist, out, progress=False)
    assert contents(full) == {"precious": b"kept"}


def test_output_that_cannot_be_written(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "_find_mnist", fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out cannot be written"):
        generate_morphomnist(mnist, tmp_path / "file" / "out", progress=False)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("workers", 0), ("limit", 0)])
def test_argument_out_of_range(mnist: Path, tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a whole number"):
        generate_morphomnist(mnist, tmp_path / "out", progress=False, **{name: value})


def test_imposed_attributes_of_another_data_set(mnist: Path, tmp_path: Path) -> None:
    few = np.ones(3, dtype=np.float32)
    write_attributes(tmp_path / "train-morpho.csv", {"thickness": few, "intensity": few})
    with pytest.raises(ValueError, match=r"train-morpho.csv should have a row .* 70 .* has 3"):
        generate_morphomnist(mnist, tmp_path / "out", tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match=r"train-morpho.csv is missing"):
        generate_morphomnist(mnist, tmp_path / "out", mnist, progress=False)
    assert not (tmp_path / "out").exists()


def test_imposed_attributes_of_another_world(mnist: Path, tmp_path: Path) -> None:
    (tmp_path / "train-morpho.csv").write_text("index,thickness,slant\n0,2,0.1\n")
    with pytest.raises(ValueError, match="columns index, thickness, intensity of the world"):
        generate_morphomnist(mnist, tmp_path / "out", tmp_path, progress=False)


@pytest.mark.parametrize("name", [each.name for each in DIGIT_WORLDS])
def test_the_program_makes_every_world(name: str, mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--mnist", str(mnist), "--out", str(out), "--world", name, "--workers", "1"]
    assert main(["data", "morphomnist", *words]) == 0
    data = MorphoMNISTDataModule(out, validation_size=10)
    assert data.world == known_world(name)
    for split in ("train", "test"):
        variables = data.variables(split)
        assert set(variables) == {*data.world.attributes, "digit", "image", "label", "index"}
        columns = {each: variables[each].squeeze(-1) for each in data.world.attributes}
        drawn = data.world.render(data.originals(split), columns)
        images = data.world.without_channels(variables["image"])
        np.testing.assert_array_equal(drawn, images)


def test_the_program_names_the_worlds_it_knows(
    mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--mnist", str(mnist), "--out", str(tmp_path / "out"), "--world", "moon"]
    with pytest.raises(SystemExit, match="2"):
        main(["data", "morphomnist", *words])
    assert "choose from 'thickness-intensity', " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_real_attributes_are_those_of_before(real_data: Path, tmp_path: Path) -> None:
    """The world that is drawn by default stays the same, byte for byte, from version to version."""
    generate_morphomnist(real_data, tmp_path / "out", workers=1, progress=False, limit=3)
    names = ("train-morpho.csv", "t10k-morpho.csv")
    rows = [(tmp_path / "out" / name).read_text().splitlines()[1] for name in names]
    assert rows == ["0,2.5125742,123.651184", "0,2.4980707,139.91489"]
    drawn = read_idx(tmp_path / "out" / "train-images-idx3-ubyte.gz")
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "73ffe8ed44596b87"
