"""The data module of scans: splits, random crops, the truth of drawn heads, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deepscm_pl.configuration import describe, restore
from deepscm_pl.data import BrainMRIDataModule, BrainWorld, generate_brain
from deepscm_pl.data.scans.slices import RandomCrop

from scan_folders import make, picture, scans, write_folder

NAME = "{eid}_T1_unbiased_brain_rigid_to_mni"


def heads(root: Path, drawn=(32, 40), image_format="png", **more) -> BrainMRIDataModule:
    """Heads that are drawn and read again."""
    if not (root / "heads").exists():
        generate_brain(root / "heads", 20, drawn, image_format, workers=1, progress=False)
    suffix = {"png": ".png", "nifti": ".nii.gz"}[image_format]
    settings = {"images": NAME + suffix, "split_column": "split", "cache_dir": root / "cache"}
    return scans(root / "heads", workers=1, progress=False, **{**settings, **more})


@pytest.mark.parametrize(
    ("shape", "image_format"), [((32, 40), "png"), ((32, 40), "nifti"), ((16, 20, 16), "nifti")]
)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_heads_that_are_read_have_a_truth(tmp_path, shape, image_format, split):
    data = heads(tmp_path, shape, image_format)
    assert data.world == BrainWorld(*shape)
    variables = data.variables(split)
    columns = {n: variables[n][:, 0].double().numpy() for n in data.world.attributes}
    drawn = data.world.render(data.originals(split), columns)
    assert np.array_equal(drawn[:, None], variables["image"].numpy())
    placement = data.placement(split, 0)
    if image_format == "nifti":
        np.testing.assert_allclose(placement.affine, data.world.grid.affine)
        assert placement.header is not None
    else:
        assert placement is None


def test_units_are_those_of_the_world_unless_they_are_given(tmp_path):
    assert heads(tmp_path).units["brain_volume"] == "mm³"
    given = heads(tmp_path, units={"age": "months"})
    assert given.units == {"age": "months"}
    again = restore(given.configuration(), Callable[[], BrainMRIDataModule])()
    assert again.units == {"age": "months"}


def test_originals_follow_their_subjects(tmp_path):
    data = heads(tmp_path)
    whole = dict(zip(data.identifiers("train"), data.originals("train"), strict=True))
    table = tmp_path / "heads" / "subjects.csv"
    frame = pd.read_csv(table, dtype=str)
    frame.sample(frac=1, random_state=0).iloc[:15].to_csv(table, index=False)
    fewer = heads(tmp_path)
    assert len(fewer.identifiers("train")) < len(whole)
    for name, original in zip(fewer.identifiers("train"), fewer.originals("train"), strict=True):
        assert np.array_equal(original, whole[name])


@pytest.mark.parametrize(
    "settings",
    [
        {"shape": [16, 16]},
        {"normalisation": "percentiles"},
        {"crop_foreground": True},
        {"random_crop": [16, 16]},
        {"columns": ["age", "sex", "brain_volume"]},
        {"columns": {"years": "age", "sex": "sex"}},
    ],
)
def test_images_that_are_changed_have_no_truth(tmp_path, settings):
    data = heads(tmp_path, **settings)
    assert data.world is None
    with pytest.raises(ValueError, match="has no originals"):
        data.originals("test")


def test_broken_truths(tmp_path):
    data = heads(tmp_path)
    path = tmp_path / "heads" / "originals.npz"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"originals.npz, from which .* cannot be read"):
        data.originals("test")
    path.write_bytes(content)
    world = tmp_path / "heads" / "world.json"
    world.write_text(world.read_text().replace("40", "48"))
    with pytest.raises(
        ValueError, match=r"shape \(32, 48\), but those of the data set .* \(32, 40"
    ):
        heads(tmp_path).originals("test")
    world.write_text("{}")
    with pytest.raises(ValueError, match=r"world.json should describe a world"):
        _ = heads(tmp_path).world


def test_training_sees_random_parts_and_the_rest_the_middle(tmp_path):
    write_folder(tmp_path)
    data = make(tmp_path, random_crop=[12, 13], drop_last=True)
    middle = {n: picture(n)[2:14, 2:15] for n in range(10)}
    for split, seeds in (("train", range(6)), ("validation", (6, 7)), ("test", (8, 9))):
        expected = np.stack([middle[seed][None] for seed in seeds])
        assert np.array_equal(data.variables(split)["image"], expected)
    (batch,) = data.test_dataloader()
    assert np.array_equal(batch["image"][:, 0], np.stack([middle[8], middle[9]]))
    found = set()
    loader = data.train_dataloader()
    for _ in range(100):
        for batch in loader:
            assert batch["image"].dtype == torch.float32
            for image, row in zip(batch["image"], batch["index"].flatten().tolist(), strict=True):
                found.add(corner(image[0].numpy(), picture(row)))
    assert found == {(r, c) for r in range(5) for c in range(6)}


def corner(part, whole):
    """Where a part begins in the whole."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, part.shape)
    ((row, column),) = np.argwhere((windows == part).all((-1, -2)))
    return int(row), int(column)


def test_random_parts_follow_the_seed_and_the_rows_and_differ_within_a_batch():
    image = torch.arange(400.0).reshape(1, 1, 20, 20).expand(16, 1, 20, 20)
    rows = torch.arange(16)[:, None]
    found = []
    for seed, index in ((1, rows), (1, rows), (2, rows), (1, rows.flip(0)), (1, rows + 1)):
        found.append(RandomCrop([8, 9], seed)({"image": image, "index": index})["image"])
        torch.rand(())  # what others draw has no effect
    assert torch.equal(found[0], found[1])
    for other in found[2:]:
        assert not torch.equal(found[0], other)
    assert len(found[0][:, 0, 0, 0].unique()) > 5
    assert type(found[0]) is torch.Tensor


@pytest.mark.parametrize("sizes", [[17, 10], [10], [10, 10, 10], [-3, 10], [0, 10]])
def test_parts_that_do_not_fit(tmp_path, sizes):
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=r"random_crop: expected 2 sizes of at most \[16, 18\]"):
        make(tmp_path, random_crop=sizes).setup()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_rows_of_variables(tmp_path, workers):
    write_folder(tmp_path, size=20)
    data = make(tmp_path, num_workers=workers, memory=0)
    batches = list(data.train_dataloader())
    rows = torch.cat([batch["index"] for batch in batches]).flatten()
    assert rows.sort().values.tolist() == list(range(16))
    for name, values in data.variables("train").items():
        found = torch.cat([batch[name] for batch in batches])
        assert torch.equal(found, values[rows].to(found))


def test_a_module_is_made_again_from_its_description(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    relative = {"cache_dir": f"{tmp_path.name}/cache", "columns": {"years": "age"}}
    data = make(Path(tmp_path.name), random_crop=(8, 8), kinds={"years": "positive"}, **relative)
    arguments = data.configuration()["init_args"]
    assert describe(arguments) == arguments
    monkeypatch.chdir("/")
    again = restore(data.configuration(), Callable[[], BrainMRIDataModule])()
    assert again.configuration() == data.configuration()
    for name, values in data.variables("train").items():
        assert torch.equal(again.variables("train")[name], values)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("workers", 0), ("split_seed", -1)])
def test_numbers_out_of_range(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name.removeprefix('split_')}: expected a whole number"):
        make(tmp_path, **{name: value})


@pytest.mark.parametrize("memory", [-1.0, float("nan")])
def test_memory_out_of_range(tmp_path, memory):
    with pytest.raises(ValueError, match="memory: expected a number of at least 0"):
        make(tmp_path, memory=memory)


def test_who_is_in_which_split_is_said_once(tmp_path):
    with pytest.raises(ValueError, match=r"stratify: expected none where splits\.column"):
        make(tmp_path, stratify=["sex"])


def test_unknown_splits(tmp_path):
    write_folder(tmp_path)
    for ask in (make(tmp_path).identifiers, make(tmp_path).variables):
        with pytest.raises(ValueError, match="split: expected one of train, validation, test"):
            ask("val")
