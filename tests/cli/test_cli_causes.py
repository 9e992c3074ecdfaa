"""An error that hides the death of another process is explained by that death."""

from __future__ import annotations

import sys

import pytest

from deepscm_pl.cli import main as program


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("DataLoader worker (pid 3) is killed by signal: Killed", "a process that loads data has"),
        ("[gloo] Connection closed by peer", "another process of this run has died"),
        ("something else", "a logger could not write"),
    ],
)
def test_a_death_is_named_whatever_was_interrupted(monkeypatch, capsys, cause, expected):
    def interrupted(words):
        try:
            raise RuntimeError(cause)
        except RuntimeError as error:
            raise ValueError("a logger could not write") from error

    monkeypatch.setattr(sys.modules["deepscm_pl.cli.main"], "_run_command", interrupted)
    assert program(["fit", "--config", "x.yaml"]) == 1
    printed = capsys.readouterr().err
    assert expected in printed
    assert "Traceback" not in printed
