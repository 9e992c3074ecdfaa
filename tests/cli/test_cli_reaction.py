"""An image model that has learned nothing is named in the last lines of a run and of answers."""

from __future__ import annotations

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl.cli import main

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def test_answers_of_an_untrained_image_model_are_called_that(checkpoint, tmp_path, capsys):
    out = str(tmp_path / "answers")
    words = ["--ckpt_path", str(checkpoint), "--out", out, "--index", "0", "1"]
    assert main(["counterfactual", *words, "--do", "thickness=2"]) == 0
    printed = capsys.readouterr().out
    assert "of the variation of the images is pixel noise; the image model is untrained" in printed


def test_a_test_trains_a_predictor_once_and_ends_with_verdicts(run, checkpoint, capsys):
    folder = checkpoint.parent.parent
    predictor = folder / "cause_predictor.safetensors"
    assert predictor.is_file()  # by the test at the end of the training
    before = predictor.stat().st_mtime_ns
    assert main(["test", "--ckpt_path", str(checkpoint), *QUIET]) == 0
    assert predictor.stat().st_mtime_ns == before
    lines = capsys.readouterr().out.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("Verdict: "))
    assert lines[first].startswith("Verdict: bad – do not rely on this model: ")
    assert lines[first - 1] == ""
    # The verdict is the last paragraph; a line begins with a subject or continues another.
    assert all(line.startswith("  ") for line in lines[first + 1 :])
    verdict = " ".join(" ".join(lines[first:]).split())
    assert "image bad " in verdict
    assert "does not react to thickness: " in verdict
    assert "the image model is untrained" in verdict
    assert not any("Reaction: whether the image shows" in line for line in lines)
    document = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert document["reaction"]["verdicts"]
    assert document["verdict"]["grade"] == "bad"
    events = EventAccumulator(str(folder))
    events.Reload()
    numbers = events.Tensors("evaluation/2 numbers/text_summary")[-1].tensor_proto.string_val[0]
    assert b"reaction/cause/thickness/change" in numbers
    text = events.Tensors("evaluation/1 verdict/text_summary")[-1].tensor_proto.string_val[0]
    assert b"untrained" in text


def test_the_predictor_is_trained_only_if_it_is_wanted(run, checkpoint, capsys, tmp_path):
    copied = tmp_path / "model.ckpt"
    copied.write_bytes(checkpoint.read_bytes())
    words = ["test", "--ckpt_path", str(copied), *QUIET]
    assert main([*words, "--evaluation.predict_causes", "false"]) == 0
    assert not (tmp_path / "cause_predictor.safetensors").exists()
    written = (tmp_path / "evaluation" / "evaluation.md").read_text()
    assert "asked changes shown" not in written
    assert main([*words, "--evaluation.predictor_steps", "2"]) == 0
    assert (tmp_path / "cause_predictor.safetensors").is_file()
