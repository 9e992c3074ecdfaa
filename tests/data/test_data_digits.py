"""Small digits: legible, in three splits, drawn once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from deepscm_pl.data import DigitsDataModule, digits
from deepscm_pl.worlds.strokes import measure, measure_intensity


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn digits."""
    folder = tmp_path_factory.mktemp("cache") / "deepscm_pl"
    DigitsDataModule(cache_dir=folder).prepare_data()
    return folder


def test_splits(cache: Path) -> None:
    module = DigitsDataModule(cache_dir=cache)
    splits = [module.variables(split) for split in ("train", "validation", "test")]
    assert [len(split["index"]) for split in splits] == [1257, 180, 360]
    assert torch.equal(splits[2]["index"].squeeze(-1), torch.arange(360))
    # Thickness is drawn from a continuous density, and so tells the digits apart.
    thickness = torch.cat([split["thickness"] for split in splits])
    assert len(thickness.unique()) == 1797
    labels = torch.cat([split["label"] for split in splits]).flatten()
    assert torch.equal(labels.bincount(), torch.from_numpy(load_digits().target).bincount())
    other = DigitsDataModule(cache_dir=cache, split_seed=1)
    assert torch.equal(other.variables("test")["thickness"], splits[2]["thickness"])
    assert not torch.equal(other.variables("validation")["thickness"], splits[1]["thickness"])


def test_a_batch_is_like_those_of_morphomnist(cache: Path) -> None:
    batch = next(iter(DigitsDataModule(batch_size=32, cache_dir=cache).train_dataloader()))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "thickness": ((32, 1), torch.float32),
        "intensity": ((32, 1), torch.float32),
        "digit": ((32, 1), torch.float32),
        "image": ((32, 1, 28, 28), torch.float32),
        "label": ((32, 1), torch.int64),
        "index": ((32, 1), torch.int64),
    }


def test_images_have_their_attributes(cache: Path) -> None:
    test = DigitsDataModule(cache_dir=cache).variables("test")
    images = test["image"].squeeze(1)
    thickness, intensity = (test[n].squeeze(-1).numpy() for n in ("thickness", "intensity"))
    assert np.abs(measure(images).thickness - thickness).mean() < 0.2
    assert np.abs(measure_intensity(images) - intensity).mean() < 1


def test_digits_can_be_told_apart(cache: Path) -> None:
    module = DigitsDataModule(cache_dir=cache)
    train, test = module.variables("train"), module.variables("test")
    images = [(v["image"].flatten(1) / v["intensity"]).numpy() for v in (train, test)]
    labels = [v["label"].squeeze(-1).numpy() for v in (train, test)]
    assert SVC().fit(images[0], labels[0]).score(images[1], labels[1]) > 0.9


def test_digits_are_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(digits, "_draw_digits", fail)
    DigitsDataModule(cache_dir=cache).setup()
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = DigitsDataModule(cache_dir=cache)._drawn_digits()
    monkeypatch.setattr(digits, "_draw_digits", lambda: drawn)
    (tmp_path / "file").write_text("")
    module = DigitsDataModule(cache_dir=tmp_path / "file" / "cache")
    module.prepare_data()
    assert len(module.variables("train")["index"]) == 1257


def test_arguments_out_of_range(cache: Path) -> None:
    with pytest.raises(ValueError, match="test_size: expected a whole number"):
        DigitsDataModule(test_size=0)
    with pytest.raises(ValueError, match="test_size and validation_size must be below 1797"):
        DigitsDataModule(test_size=1700, validation_size=97, cache_dir=cache).setup()


def test_a_broken_cache_is_drawn_again(cache: Path, tmp_path: Path) -> None:
    good = next(cache.glob("*.pt"))
    (tmp_path / good.name).write_bytes(good.read_bytes()[:1000])
    found = DigitsDataModule(cache_dir=tmp_path).variables("test")["thickness"]
    assert torch.equal(found, DigitsDataModule(cache_dir=cache).variables("test")["thickness"])
    torch.load(tmp_path / good.name, weights_only=True)
