"""Questions far from the training data are called extrapolations."""

from __future__ import annotations

import torch

from deepscm_pl.cli import main


def ask(checkpoint, tmp_path, capsys, *do, command="counterfactual"):
    out = tmp_path / "answers"
    which = ["--index", "0", "1", "2"] if command == "counterfactual" else ["--size", "3"]
    words = [command, "--ckpt_path", str(checkpoint), "--out", str(out), *which]
    assert main([*words, *(["--do", *do] if do else [])]) == 0
    return capsys.readouterr().out


def test_values_beyond_the_training_data_extrapolate(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, "thickness=400", "thickness+=0.01")
    assert "do(thickness = 400): 3 of 3 answers extrapolate; thickness is from " in printed
    assert "in the training data." in printed
    assert "do(thickness + 0.01): 3 of 3 answers extrapolate" not in printed


def test_interventions_on_a_population_have_verdicts(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, "thickness=400", command="intervene")
    assert "3 of 3 answers extrapolate" in printed


def test_samples_have_no_verdict(checkpoint, tmp_path, capsys):
    printed = ask(checkpoint, tmp_path, capsys, command="sample")
    assert "extrapolate" not in printed
    assert "overlap" not in printed


def test_a_model_without_training_distribution_says_so(checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint, weights_only=False)
    kept = {k: v for k, v in content["state_dict"].items() if "training_distribution" not in k}
    assert len(kept) < len(content["state_dict"])
    older = tmp_path / "older.ckpt"
    torch.save({**content, "state_dict": kept}, older)
    printed = ask(older, tmp_path, capsys, "thickness=400")
    assert "overlap: unknown, because this model of an earlier version contains no" in printed
