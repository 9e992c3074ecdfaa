"""Calibrated intervals of answers on the command line."""

from __future__ import annotations

import json

import pytest
import torch

from deepscm_pl.checkpoints import load
from deepscm_pl.cli import main
from deepscm_pl.evaluation.intervals import Calibration, IntervalFactor
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.mechanisms.vae import couple_pixel_noise
from deepscm_pl.scm import StructuralCausalModel


def calibration(members=1, coupling="kept", particles=5, is_complete=True):
    factors = [
        IntervalFactor("do(thickness = 3)", ("thickness",), group, factor, 20)
        for group, factor in (("equal", 1.0), ("kept", 2.0), ("changed", 3.0))
    ]
    return Calibration(0.9, particles, members, factors, "the truth", coupling, is_complete)


def ask(path, out, *words, do="thickness=3", particles=5):
    options = ["--num_particles", str(particles), "--out", str(out), *words]
    question = ["--ckpt_path", str(path), "--do", do, "--index", "0", "1"]
    return main(["counterfactual", *question, *options])


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "calibration.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_calibration_of_the_checkpoint_is_used(altered, tmp_path, capsys):
    path = altered(calibration=calibration().as_plain_data())
    assert ask(path, tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "intervals of 90 %: calibrated on the truth." in output
    assert "Not calibrated" not in output
    assert (tmp_path / "out" / "image-interval.png").is_file()


def test_what_the_calibration_does_not_cover_is_said(altered, tmp_path, capsys):
    found = calibration(coupling="renewed", is_complete=False)
    path = altered(calibration=found.as_plain_data())
    assert ask(path, tmp_path / "out", do="thickness=4", particles=3) == 0
    output = capsys.readouterr().out
    assert "Not calibrated themselves: do(thickness = 4" in output
    assert "They are lower bounds" in output
    assert "ask with --coupling renewed" in output
    assert "ask with --num_particles 5" in output


def test_without_a_calibration_the_spread_is_called_a_lower_bound(altered, tmp_path, capsys):
    path = altered(calibration=None)
    assert ask(path, tmp_path / "several") == 0
    assert "a lower bound of the uncertainty" in capsys.readouterr().out
    assert not (tmp_path / "several" / "image-interval.png").exists()
    assert ask(path, tmp_path / "one", particles=1) == 0
    assert "intervals" not in capsys.readouterr().out


def test_a_file_replaces_the_calibration_of_the_checkpoint(altered, file, tmp_path, capsys):
    path = altered(calibration=None)
    words = ["--calibration", str(file(calibration().as_plain_data()))]
    assert ask(path, tmp_path / "out", *words) == 0
    assert "calibrated on the truth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (calibration(members=3).as_plain_data(), "is of 3 models that answer together"),
        ("{}", "expected the content of a calibration.json"),
        ("no json", "expected the content of a calibration.json"),
        ({**calibration().as_plain_data(), "level": 2}, "expected the content"),
    ],
)
def test_other_calibrations_are_refused(checkpoint, file, tmp_path, capsys, content, message):
    assert ask(checkpoint, tmp_path / "out", "--calibration", str(file(content))) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_broken_entry_are_refused(checkpoint, altered, tmp_path, capsys):
    assert ask(checkpoint, tmp_path / "out", "--calibration", str(tmp_path / "none")) == 1
    assert "calibration: there is no file" in capsys.readouterr().err
    path = altered(calibration={"factors": [{"variables": ["a"], "group": "no"}]})
    assert ask(path, tmp_path / "out") == 1
    assert "calibration: expected the content" in capsys.readouterr().err


def test_renewed_noise_changes_answers_and_keeps_the_factual(checkpoint, tmp_path):
    scm = load(checkpoint).scm
    data = load(checkpoint).data().variables("test")
    factual = {name: data[name][:4].float() for name in scm.graph.nodes}
    answers = []
    for coupling in ("kept", "renewed"):
        couple_pixel_noise(scm, coupling)
        torch.manual_seed(0)
        with torch.no_grad():
            answers.append(scm.counterfactual(factual, [{"thickness": 2.0}, {}], 3)["image"])
    assert not torch.equal(answers[0][:, 0], answers[1][:, 0])
    assert torch.equal(answers[0][:, 1], answers[1][:, 1])
    with pytest.raises(ValueError, match="coupling: expected a model with a ConditionalVAE"):
        couple_pixel_noise(StructuralCausalModel("a", {"a": AffineFlow}), "renewed")
