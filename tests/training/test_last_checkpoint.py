"""A training resumes from the checkpoint that is furthest in training."""

from __future__ import annotations

import os
import random

import pytest
import torch
from killing import Run

from deepscm_pl.cli.runs import checkpoint_folders
from deepscm_pl.runs.checkpoint_files import furthest_checkpoint, read_last_checkpoint, steps_of


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of every step: bytes by name."""
    folder = tmp_path_factory.mktemp("trained")
    saving = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}
    Run(checkpoint=saving, epochs=2).fit(folder)
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").glob("*.ckpt")}


def write(folder, files):
    """Write files in a random order with random times."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(files)
    random.Random(len(names)).shuffle(names)
    for time, name in enumerate(names):
        (folder / name).write_bytes(files[name])
        os.utime(folder / name, (time, time))
    return folder


def test_the_number_of_steps_counts_and_not_the_time_of_the_file(tmp_path, trained):
    steps = {name: content for name, content in trained.items() if name != "last.ckpt"}
    folder = write(tmp_path, steps)
    for path in folder.iterdir():
        assert steps_of(path) == int(path.stem)
    os.utime(folder / "3.ckpt")
    assert read_last_checkpoint([folder])[0].name == "8.ckpt"
    assert furthest_checkpoint(folder) == (folder / "8.ckpt", 8)


def test_the_end_of_an_epoch_comes_after_its_last_step(tmp_path, trained):
    # Both have eight steps; the second was written before the validation of the epoch.
    folder = write(tmp_path, {"z.ckpt": trained["last.ckpt"], "a.ckpt": trained["8.ckpt"]})
    assert read_last_checkpoint([folder])[0].name == "z.ckpt"


def test_among_equals_last_comes_first_and_then_the_order_of_names(tmp_path, trained):
    same = trained["5.ckpt"]
    folder = write(tmp_path, {"a.ckpt": same, "b.ckpt": same, "last.ckpt": same})
    assert read_last_checkpoint([folder])[0].name == "last.ckpt"
    (folder / "last.ckpt").unlink()
    assert read_last_checkpoint([folder])[0].name == "a.ckpt"


def test_the_newest_run_is_resumed(tmp_path, trained):
    for number, name in {2: "8.ckpt", 10: "3.ckpt", 9: "5.ckpt"}.items():
        write(tmp_path / f"lightning_logs/version_{number}/checkpoints", {name: trained[name]})
    (tmp_path / "lightning_logs/version_11/checkpoints").mkdir(parents=True)
    assert read_last_checkpoint(checkpoint_folders(tmp_path))[0].name == "3.ckpt"


def test_broken_checkpoints_are_skipped_with_a_warning(tmp_path, trained):
    weights = torch.load(write(tmp_path / "w", trained) / "8.ckpt", weights_only=True)
    del weights["optimizer_states"]
    folder = write(tmp_path / "run", {"5.ckpt": trained["5.ckpt"], "half.ckpt": b"PK"})
    torch.save(weights, folder / "weights.ckpt")
    (folder / "cut.ckpt").write_bytes(trained["8.ckpt"][:-100])
    with pytest.warns(UserWarning, match="others, which may be newer, are broken"):
        assert read_last_checkpoint([folder])[0].name == "5.ckpt"
    (folder / "5.ckpt").unlink()
    with pytest.raises(ValueError, match="ckpt_path: no checkpoint can be read"):
        read_last_checkpoint([folder])


def test_weights_are_not_read_to_compare(tmp_path, trained, monkeypatch):
    folder = write(tmp_path, trained)
    load, whole = torch.load, []

    def watch(path, *arguments, **settings):
        if not settings.get("mmap"):
            whole.append(path)
        return load(path, *arguments, **settings)

    monkeypatch.setattr(torch, "load", watch)
    assert read_last_checkpoint([folder])[0].name == "last.ckpt"
    assert whole == [folder / "last.ckpt"], "only the one that is taken is checked"
