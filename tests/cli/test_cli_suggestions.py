"""The commands that a run suggests work, for files and folders with any name."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from deepscm_pl.cli import main

SUGGESTED = re.compile(r"^(?:Ask|See|Check|Train)[^:]*: +(deepscm .*)$", re.MULTILINE)


def words_of(command: str) -> list[str]:
    """The words that a shell passes to the program."""
    script = f"set -- {command}; printf '%s\\0' \"$@\""
    printed = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return printed.stdout.decode().split("\0")[1:-1]


def suggested(printed: str) -> list[str]:
    return words_of(SUGGESTED.findall(printed)[-1])


@pytest.mark.parametrize("name", ["my model", "it's $HOME; `x`", "müll\n"])
def test_each_question_leads_to_the_next(checkpoint, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = shutil.copy(checkpoint, folder / f"{name}.ckpt")
    words = ["sample", "--ckpt_path", str(path), "--trust", "tiny", "--out", "a b"]
    asked = []
    for _ in range(6):
        assert main(words) == 0
        asked.append(words[0])
        words = suggested(capsys.readouterr().out)
        assert str(path) in words
    several = ["counterfactual", "counterfactual"]
    assert asked == ["sample", "intervene", *several, "effect", "check"]
    assert words[0] == "counterfactual"


def test_a_suggested_command_runs_in_a_shell(checkpoint, tmp_path, capsys):
    out = tmp_path / "my model.safetensors"
    assert (
        main(["export", "--ckpt_path", str(checkpoint), "--trust", "tiny", "--out", str(out)]) == 0
    )
    command = SUGGESTED.findall(capsys.readouterr().out)[-1]
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "answers" / "answers.csv").is_file()


def test_a_training_and_its_report_suggest_a_question(run, tmp_path, monkeypatch, capsys):
    folder, printed = run
    monkeypatch.chdir(tmp_path)
    page = (folder / "evaluation" / "evaluation.md").read_text(encoding="utf-8")
    of_page = re.search(r"^Ask: `(deepscm .*)`\.$", page, re.MULTILINE)
    assert of_page is not None
    for number, words in enumerate(
        (words_of(re.findall("Ask the model: +(.*)", printed)[0]), words_of(of_page[1]))
    ):
        assert words[0] == "counterfactual"
        words[-1] = f"answers {number}"
        assert main(words) == 0
    capsys.readouterr()


def test_generated_data_suggest_a_training(tmp_path, capsys):
    out = tmp_path / "my brains"
    assert main(["data", "brain", "--out", str(out), "--size", "20", "--workers", "1"]) == 0
    words = suggested(capsys.readouterr().out)
    assert words == ["fit", "--config", "brain/best_scans", "--data.root", str(out)]
    other = ["--shape", "16", "20", "16"]
    assert (
        main(
            ["data", "brain", "--out", str(tmp_path / "b"), "--size", "9", "--workers", "1", *other]
        )
        == 0
    )
    assert "deepscm fit" not in capsys.readouterr().out


def test_a_copied_experiment_suggests_a_training(tmp_path, capsys):
    path = tmp_path / "my digits.yaml"
    assert main(["experiments", "digits/full", "--out", str(path)]) == 0
    assert suggested(capsys.readouterr().out) == ["fit", "--config", str(path)]
