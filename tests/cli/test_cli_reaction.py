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
    printed = capsys.readouterr().out
    last = printed.splitlines()[-1]
    assert last.startswith("Warning: image: ")
    assert "Reaction: whether the image shows the values of other test rows" in printed
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text())["reaction"]
    assert found["verdicts"]
    events = EventAccumulator(str(folder))
    events.Reload()
    numbers = events.Tensors("evaluation/numbers/text_summary")[-1].tensor_proto.string_val[0]
    assert b"reaction/cause/thickness/change" in numbers
    text = events.Tensors("evaluation/verdicts/text_summary")[-1].tensor_proto.string_val[0]
    assert b"untrained" in text


def test_the_predictor_is_trained_only_if_it_is_wanted(run, checkpoint, capsys, tmp_path):
    copied = tmp_path / "model.ckpt"
    copied.write_bytes(checkpoint.read_bytes())
    words = ["test", "--ckpt_path", str(copied), *QUIET]
    assert main([*words, "--evaluation.predict_causes", "false"]) == 0
    assert not (tmp_path / "cause_predictor.safetensors").exists()
    assert "asked changes shown" not in capsys.readouterr().out
    assert main([*words, "--evaluation.predictor_steps", "2"]) == 0
    assert (tmp_path / "cause_predictor.safetensors").is_file()
