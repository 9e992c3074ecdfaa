"""Interruptions tell how to resume, and a resumption tidies up."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli_interruptions import last, run_of, words

from deepscm_pl.cli import main
from deepscm_pl.cli.described import describe_resumption, report_interruption

PARTIAL = [".samples-epoch=0.png.1234.partial", ".epoch=0.ckpt.77.partial"]


@pytest.fixture
def signals():
    """Lightning leaves Ctrl-C without effect."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_ctrl_c_tells_what_was_saved_and_how_to_resume(tmp_path, capsys, signals):
    folder = tmp_path / "with spaces"
    typed = words(folder, "press_ctrl_c", step=5)
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    saved = run_of(folder) / "checkpoints" / "last.ckpt"
    assert f"deepscm fit: interrupted; saved up to step 4 in {saved}; resume with: " in error
    command = shlex.split(error.rpartition("resume with: ")[2].splitlines()[0])
    assert command == ["deepscm", *typed, "--ckpt_path", "last"]
    for name in PARTIAL:
        (saved.parent / name).write_text("half")
    left = run_of(folder) / f".report.{'0' * 16}.partial"
    left.mkdir()
    (run_of(folder) / ".lock").touch()
    assert main([*words(folder), *command[-2:]]) == 0
    assert last(folder)["global_step"] == 12
    assert not (run_of(folder) / ".lock").exists()
    assert not list(folder.rglob(".*.partial"))
    assert not left.exists()


def test_the_command_names_the_checkpoint_where_there_is_no_configuration(tmp_path, checkpoint):
    (tmp_path / "last.ckpt").write_bytes(Path(checkpoint).read_bytes())
    found = describe_resumption(tmp_path, ["fit", "--ckpt_path", "old run.ckpt", "--data.x", "1"])
    command = f"deepscm fit --data.x 1 --ckpt_path {shlex.quote(str(tmp_path / 'last.ckpt'))}"
    assert found.endswith(f"resume with: {command}")
    found = describe_resumption(tmp_path, ["fit", "--ckpt_path=a.ckpt", "-c", "c.yaml"])
    assert found.endswith("resume with: deepscm fit -c c.yaml --ckpt_path last")


def test_nothing_saved_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "missing", None):
        found = describe_resumption(folder, ["fit", "--config", "a b.yaml"])
        assert found == "nothing was saved yet; begin anew with: deepscm fit --config 'a b.yaml'"


def test_names_of_folders_are_escaped_where_a_training_is_interrupted(capsys):
    trainer = SimpleNamespace(interrupted=True, is_global_zero=True)
    with pytest.raises(KeyboardInterrupt), report_interruption(trainer, lambda: "\x1b[31m"):
        raise KeyboardInterrupt
    assert "interrupted; \\x1b[31m" in capsys.readouterr().err
