"""Checkpoints say which program wrote them; those of newer formats are refused."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deepscm_pl.cli import main
from deepscm_pl.training import DeepSCM, export_model, load_data, read_checkpoint
from deepscm_pl.training.versions import FORMAT

NEWER = {"version": "9.8.7", "format": FORMAT + 1}
MESSAGE = rf"by deepscm_pl 9\.8\.7 in format {FORMAT + 1}.*pip install --upgrade deepscm_pl"


@pytest.fixture
def stamped(checkpoint, tmp_path):
    """The checkpoint with another stamp; None for none."""

    def write(stamp):
        saved = torch.load(checkpoint, weights_only=True)
        del saved["deepscm_pl"]
        if stamp is not None:
            saved["deepscm_pl"] = stamp
        torch.save(saved, tmp_path / "stamped.ckpt")
        return tmp_path / "stamped.ckpt"

    return write


def test_a_checkpoint_says_who_wrote_it(checkpoint):
    expected = {"version": version("deepscm_pl"), "format": FORMAT}
    assert read_checkpoint(checkpoint)["deepscm_pl"] == expected


def test_older_checkpoints_open(stamped):
    path = stamped(None)
    assert "deepscm_pl" not in read_checkpoint(path)
    assert DeepSCM.load_from_checkpoint(path).scm.sample(2)["image"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("read", [read_checkpoint, DeepSCM.load_from_checkpoint, load_data])
def test_newer_checkpoints_are_refused(stamped, read):
    with pytest.raises(ValueError, match=MESSAGE):
        read(stamped(NEWER))


def test_newer_exported_models_are_refused(checkpoint, tmp_path):
    path = export_model(checkpoint, tmp_path / "model.safetensors")
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["deepscm_pl"])
    about["deepscm_pl"] = NEWER
    save_file(load_file(path), path, metadata={"deepscm_pl": json.dumps(about)})
    with pytest.raises(ValueError, match=MESSAGE):
        DeepSCM.load_from_checkpoint(path)


@pytest.mark.parametrize("stamp", ["1", {"version": "1"}, {"version": "1", "format": "new"}])
def test_bad_formats_are_refused(stamped, stamp):
    with pytest.raises(ValueError, match="does not say its format: expected a whole number"):
        read_checkpoint(stamped(stamp))


@pytest.mark.parametrize("command", ["fit", "test", "sample"])
def test_the_program_refuses_newer_checkpoints(stamped, tmp_path, capsys, command):
    words = [command, "--ckpt_path", str(stamped(NEWER))]
    assert main([*words, "--out", str(tmp_path / "out")] if command == "sample" else words) == 1
    error = capsys.readouterr().err
    assert "pip install --upgrade deepscm_pl" in error
    assert error.count("\n") == 1
