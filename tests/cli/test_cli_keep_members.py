"""``deepscm members``: an ensemble from one trained model."""

from __future__ import annotations

import shutil

import pytest

from deepscm_pl import Ensemble, load
from deepscm_pl.cli import main


def test_members_of_a_trained_model(checkpoint, tmp_path, capsys):
    path, out = shutil.copy(checkpoint, tmp_path), tmp_path / "members"
    words = ["members", "--ckpt_path", str(path), "--count", "2", "--trust", "tiny"]
    assert main([*words, "--out", str(out), "--steps", "4", "--gradient_clip_val", "100"]) == 0
    printed = capsys.readouterr().out
    assert f"written: {out}" in printed
    asked = printed.rpartition("Ask all members:")[2].split()
    assert asked == [
        *["deepscm", "sample", "--ckpt_path"],
        f"{out}/*.safetensors",
        *["--trust", "tiny", "--out", "samples"],
    ]
    files = sorted(out.glob("*.safetensors"))
    assert [each.name for each in files] == ["member_1.safetensors", "member_2.safetensors"]
    ensemble = Ensemble([load(each).scm for each in files])
    assert len(ensemble.sample(4)["image"]) == 4
    assert main([*words, "--out", str(out)]) == 1
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "1"], "count: expected a whole number of at least 2"),
        (["--rate", "2"], "rate: expected"),
        (["--data.root", "x"], "has no root; leave it out"),
    ],
)
def test_refused(checkpoint, tmp_path, capsys, options, message):
    words = ["members", "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "members")]
    assert main([*words, "--trust", "tiny", *options]) == 1
    assert message in capsys.readouterr().err
