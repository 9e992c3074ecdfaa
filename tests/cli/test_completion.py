"""Completion of commands and options in a shell."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from deepscm_pl.cli import main
from deepscm_pl.cli.commands import COMMANDS
from deepscm_pl.cli.training_help import TRAINING_COMMANDS

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_deepscm
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script of bash, in a file."""
    from contextlib import redirect_stdout

    path = tmp_path_factory.mktemp("completion") / "deepscm.bash"
    with path.open("w") as file, redirect_stdout(file):
        assert main(["--print_shtab", "bash"]) == 0
    return path


def completed(script, folder, *words):
    """What bash offers for the last word."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    command = [bash, "-c", COMPLETE, "bash", str(script), "deepscm", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_command_is_completed(script, tmp_path):
    assert set(completed(script, tmp_path, "")) >= {*COMMANDS, *TRAINING_COMMANDS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["counterfactual", "--num"], ["--num_particles"]),
        (["counterfactual", "--format", ""], ["png", "nifti"]),
        (["effect", "av"], ["average"]),
        (["fit", "--trainer.max_ep"], ["--trainer.max_epochs"]),
        (["fit", "--memb"], ["--members"]),
        (["validate", "--memb"], []),
    ],
)
def test_options_are_completed(script, tmp_path, words, expected):
    assert completed(script, tmp_path, *words) == expected


@pytest.mark.parametrize("words", [["fit", "--config"], ["counterfactual", "--ckpt_path"]])
def test_names_of_files_are_completed(script, tmp_path, words):
    (tmp_path / "model.ckpt").touch()
    assert completed(script, tmp_path, *words, "mod") == ["model.ckpt"]


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"], ["zhs"]])
def test_another_shell_is_refused_in_one_line(words, capsys):
    assert main(["--print_shtab", *words]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "expected bash, zsh, tcsh, but got" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert ("did you mean 'zsh'?" in printed.err) == (words == ["zhs"])


def test_without_shtab_an_error_states_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print_shtab", "bash"]) == 1
    assert "pip install 'deepscm_pl[completion]'" in capsys.readouterr().err
