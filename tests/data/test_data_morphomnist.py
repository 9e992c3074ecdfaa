"""Morpho-MNIST is read as published, and every kind of broken data set is named."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from deepscm_pl.data import (
    MorphoMNISTDataModule,
    ThicknessIntensityWorld,
    read_attributes,
    read_idx,
    write_attributes,
    write_idx,
)
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.mechanisms import Categorical, SplineFlow
from deepscm_pl.scm import StructuralCausalModel

SIZES = {"train": 20, "t10k": 7}
WORLD = ThicknessIntensityWorld()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small data set in the published layout."""
    generator = np.random.default_rng(0)
    for prefix, size in SIZES.items():
        images = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        labels = generator.integers(0, 10, size, dtype=np.uint8)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
        attributes = {
            "thickness": generator.uniform(1, 5, size).astype(np.float32),
            "intensity": generator.uniform(64, 255, size).astype(np.float32),
        }
        write_attributes(tmp_path / f"{prefix}-morpho.csv", attributes)
    return tmp_path


def setup(root: Path) -> MorphoMNISTDataModule:
    module = MorphoMNISTDataModule(root, validation_size=5)
    module.setup("fit")
    return module


def test_variables_are_the_files(root: Path) -> None:
    test = setup(root).variables("test")
    attributes = read_attributes(root / "t10k-morpho.csv", WORLD)
    images = read_idx(root / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(root / "t10k-labels-idx1-ubyte.gz")
    assert set(test) == {"thickness", "intensity", "digit", "image", "label", "index"}
    assert torch.equal(test["image"], torch.from_numpy(images).unsqueeze(1))
    assert torch.equal(test["label"], torch.from_numpy(labels).long().unsqueeze(-1))
    assert torch.equal(test["digit"], test["label"].float())
    assert torch.equal(test["thickness"], torch.from_numpy(attributes["thickness"]).unsqueeze(-1))
    assert torch.equal(test["intensity"], torch.from_numpy(attributes["intensity"]).unsqueeze(-1))


def test_the_digit_is_a_variable_of_a_model_and_has_no_truth(root: Path) -> None:
    module = setup(root)
    scm = StructuralCausalModel(
        "digit; thickness", {"digit": partial(Categorical, categories=10), "thickness": SplineFlow}
    )
    scm.describe(module.descriptions)
    assert scm.variables["digit"].classes == tuple("0123456789")
    model = ModelOnData.of(scm, module)
    assert model.attributes == ("thickness",)
    with pytest.raises(ValueError, match="no attribute 'digit', so there is no truth"):
        Question("digit=3", scm.variables).check(model)


def test_rows_stay_together_when_split(root: Path) -> None:
    module = setup(root)
    images = torch.from_numpy(read_idx(root / "train-images-idx3-ubyte.gz")).unsqueeze(1)
    for split, size in (("train", 15), ("validation", 5)):
        variables = module.variables(split)  # type: ignore[arg-type]
        assert len(variables["index"]) == size
        assert torch.equal(variables["image"], images[variables["index"].squeeze(-1)])


def test_attributes_survive_writing(tmp_path: Path) -> None:
    values = np.float32([1e-7, 1 / 3, 2.2673757, 254.99998, 3])
    write_attributes(tmp_path / "a.csv", {"thickness": values, "intensity": values})
    found = read_attributes(tmp_path / "a.csv", WORLD)
    assert list(found) == ["thickness", "intensity"]
    np.testing.assert_array_equal(found["thickness"], values)
    np.testing.assert_array_equal(found["intensity"], values)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("intensity,slant,index,thickness\n100,0.1,0,2\n120,0.2,1,3\n")
    found = read_attributes(path, WORLD)
    assert {name: column.tolist() for name, column in found.items()} == {
        "thickness": [2, 3],
        "intensity": [100, 120],
    }


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is missing.*deepscm data morphomnist"):
        setup(tmp_path / "nowhere")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks train-images.*deepscm data morphomnist"):
        setup(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["t10k-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-morpho.csv"],
)
def test_missing_file(root: Path, name: str) -> None:
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}.*deepscm data morphomnist"):
        setup(root)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def replace_by_text(path: Path) -> None:
    path.write_bytes(b"not a file of bytes")


def shorten(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


@pytest.mark.parametrize("prefix", SIZES)
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "truncated or corrupt gzip"),
        (replace_by_text, "neither gzip nor an IDX file"),
        (shorten, "is truncated"),
    ],
)
def test_broken_file(
    root: Path, prefix: str, kind: str, damage: Callable[[Path], None], message: str
) -> None:
    name = f"{prefix}-{kind}-ubyte.gz"
    damage(root / name)
    with pytest.raises(ValueError, match=f"{name} .*{message}"):
        setup(root)


def test_images_in_the_place_of_labels(root: Path) -> None:
    shutil.copy(root / "train-images-idx3-ubyte.gz", root / "train-labels-idx1-ubyte.gz")
    with pytest.raises(ValueError, match=r"train-labels.* should have 1 dimensions"):
        setup(root)


@pytest.mark.parametrize("kind", ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz", "morpho.csv"])
def test_counts_differ(root: Path, kind: str) -> None:
    shutil.copy(root / f"t10k-{kind}", root / f"train-{kind}")
    with pytest.raises(ValueError, match=f"equally many rows.*7 in train-{kind}"):
        setup(root)


@pytest.mark.parametrize("column", ["index", "thickness", "intensity"])
def test_missing_column(root: Path, column: str) -> None:
    path = root / "train-morpho.csv"
    path.write_text(path.read_text().replace(column, "other", 1))
    with pytest.raises(ValueError, match=f"train-morpho.csv should have .*without {column}"):
        setup(root)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3,nan,100", r"line 5: thickness: expected values in \(0, inf\), but got nan"),
        ("3,inf,100", r"line 5: thickness: expected values in \(0, inf\), but got inf"),
        ("3,0,100", r"line 5: thickness: expected values in \(0, inf\), but got 0"),
        ("3,-2,100", r"line 5: thickness: expected values in \(0, inf\), but got -2"),
        ("3,2,nan", r"line 5: intensity: expected values in \[0, 255\], but got nan"),
        ("3,2,inf", r"line 5: intensity: expected values in \[0, 255\], but got inf"),
        ("3,2,256", r"line 5: intensity: expected values in \[0, 255\], but got 256"),
        ("3,2,-1", r"line 5: intensity: expected values in \[0, 255\], but got -1"),
        ("3.5,2,100", r"line 5: index: expected 0, 1, 2.*but got 3.5"),
        ("4,2,100", r"line 5: index: expected 0, 1, 2.*but got 4"),
        ("nan,2,100", r"line 5: index: expected 0, 1, 2.*but got nan"),
        ("3,thick,100", r"line 5: thickness: expected values in \(0, inf\), but got thick"),
        ("3,,100", r"line 5: thickness: expected values in \(0, inf\), but got an empty cell"),
        ("3,2", "line 5: expected 3 cells, one for each name in the header, but got 2"),
    ],
)
def test_broken_row(root: Path, row: str, message: str) -> None:
    path = root / "t10k-morpho.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], row, *lines[5:]]) + "\n")
    with pytest.raises(ValueError, match=f"t10k-morpho.csv.*{message}"):
        setup(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"index,thickness,intensity\n", "has none"),
        (b"\x1f\x8b\xff", "complete gzip file"),
        (b"1,2,3\n0,1,2\n", "looks like a row of data"),
    ],
)
def test_no_table(root: Path, content: bytes, message: str) -> None:
    (root / "train-morpho.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"train-morpho.csv.* {message}"):
        setup(root)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a.csv is missing"):
        read_attributes(tmp_path / "a.csv", WORLD)
