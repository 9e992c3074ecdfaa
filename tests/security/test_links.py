"""Links in the folder of a run do not lead the program to other files."""

from __future__ import annotations

import shutil

import pytest
import torch

from deepscm_pl.cli import main
from deepscm_pl.runs.checkpoint_files import AtomicCheckpointIO

from tiny import write_configuration


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(run, tmp_path, capsys):
    target = tmp_path / "precious"
    target.write_text("to be kept")
    copied = tmp_path / "lightning_logs" / "version_0"
    shutil.copytree(run[0], copied)
    (copied / ".lock").unlink(missing_ok=True)
    (copied / ".lock").symlink_to(target)
    words = ["fit", "--config", str(write_configuration(tmp_path)), "--ckpt_path", "last"]
    assert main([*words, "--trainer.default_root_dir", str(tmp_path)]) == 1
    assert ".lock is a link" in capsys.readouterr().err
    assert target.read_text() == "to be kept"


@pytest.mark.parametrize(
    "name", ["letter.txt", "letter.ckpt", "folder", "link.ckpt", "../letter.ckpt"]
)
def test_only_checkpoints_in_the_folder_of_the_run_are_removed(tmp_path, name):
    checkpoints, files = tmp_path / "checkpoints", AtomicCheckpointIO()
    (checkpoints / "folder").mkdir(parents=True)
    (tmp_path / "letter.ckpt").write_text("to be kept")
    (checkpoints / "letter.txt").write_text("to be kept")
    (checkpoints / "link.ckpt").symlink_to(tmp_path / "letter.ckpt")
    for saved in ("letter.ckpt", "last.ckpt"):
        files.save_checkpoint({"x": torch.zeros(1)}, checkpoints / saved)
    before = {each.relative_to(tmp_path) for each in tmp_path.rglob("*")}
    if name == "letter.ckpt":
        files.remove_checkpoint(checkpoints / name)
        assert not (checkpoints / name).exists()
    else:
        with pytest.warns(UserWarning, match="is no checkpoint of this run and was not removed"):
            files.remove_checkpoint(checkpoints / name)
        assert {each.relative_to(tmp_path) for each in tmp_path.rglob("*")} == before
