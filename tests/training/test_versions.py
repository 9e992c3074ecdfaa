"""Checkpoints record the version that wrote them; newer formats are refused."""

from __future__ import annotations

import json
import math
import re
from importlib.metadata import version

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deepscm_pl.cli import main
from deepscm_pl.runs.reading import FORMAT, check_format
from deepscm_pl.training import DeepSCM, export_model, load_data, read_checkpoint

NEWER = {"version": "9.8.7", "format": FORMAT + 1}
ADVICE = "install at least version 9.8.7 of deepscm_pl"
MESSAGE = rf"written by deepscm_pl 9\.8\.7 in format {FORMAT + 1}.*{re.escape(ADVICE)}"


def test_a_checkpoint_records_its_version(checkpoint):
    expected = {"version": version("deepscm_pl"), "format": FORMAT}
    assert read_checkpoint(checkpoint)["deepscm_pl"] == expected


def test_older_checkpoints_open(altered):
    path = altered(deepscm_pl=None)
    assert "deepscm_pl" not in read_checkpoint(path)
    assert DeepSCM.load_from_checkpoint(path).scm.sample(2)["image"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("read", [read_checkpoint, DeepSCM.load_from_checkpoint, load_data])
def test_newer_checkpoints_are_refused(altered, read):
    with pytest.raises(ValueError, match=MESSAGE):
        read(altered(deepscm_pl=NEWER))


def test_newer_exported_models_are_refused(checkpoint, tmp_path):
    path = export_model(checkpoint, tmp_path / "model.safetensors")
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["deepscm_pl"])
    about["deepscm_pl"] = NEWER
    save_file(load_file(path), path, metadata={"deepscm_pl": json.dumps(about)})
    with pytest.raises(ValueError, match=MESSAGE):
        DeepSCM.load_from_checkpoint(path)


@pytest.mark.parametrize(
    "stamp",
    [
        "1",
        {"version": "1"},
        {"version": "1", "format": "new"},
        {"version": "1", "format": True},
        {"version": "1", "format": 0},
        {"version": "1", "format": 1.0},
        {"version": "1", "format": math.nan},
        {"version": "1", "format": ["1"] * 1000},
    ],
)
def test_bad_formats_are_refused(altered, stamp):
    with pytest.raises(ValueError, match="has no valid format: expected a whole number"):
        read_checkpoint(altered(deepscm_pl=stamp))


@pytest.mark.parametrize("command", ["fit", "test", "sample"])
def test_the_program_refuses_newer_checkpoints(altered, tmp_path, capsys, command):
    words = [command, "--ckpt_path", str(altered(deepscm_pl=NEWER))]
    assert main([*words, "--out", str(tmp_path / "out")] if command == "sample" else words) == 1
    error = capsys.readouterr().err
    assert ADVICE in error
    assert error.count("\n") == 1


def test_a_missing_stamp_is_not_an_empty_stamp():
    check_format("old.ckpt", {})
    with pytest.raises(ValueError, match="but got None"):
        check_format("odd.ckpt", {"deepscm_pl": None})


@pytest.mark.parametrize("text", ["9\nsecond line", "\x1b[2J", "9" * 10_000, ["9"] * 10_000])
def test_a_hostile_version_is_shown_in_one_short_line(text):
    with pytest.raises(ValueError, match="reads formats up to") as error:
        check_format("hostile.ckpt", {"deepscm_pl": {"version": text, "format": FORMAT + 1}})
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 300


@pytest.mark.parametrize("found", ["unknown", None, "\x1b[2J"])
def test_an_unknown_version_is_not_advised(found):
    with pytest.raises(ValueError, match="install a newer version of deepscm_pl"):
        check_format("new.ckpt", {"deepscm_pl": {"version": found, "format": FORMAT + 1}})
