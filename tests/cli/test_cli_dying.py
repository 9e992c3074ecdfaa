"""A process that dies ends the run with an error: none waits for it for ever."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from started import run_for_a_while
from test_cli_interruptions import assert_equal, last, run_of, words

from deepscm_pl.cli.main import main

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
IN_TEST = [*TWO, "--trainer.max_epochs", "1"]


@pytest.mark.parametrize(
    ("how", "options", "code", "message"),
    [
        ("kill_the_second", TWO, -9, "terminated with code -9"),
        ("kill_the_first", TWO, -9, ""),
        ("terminate", TWO, 143, "received SIGTERM: saved"),
        ("terminate_the_second", TWO, 143, "received SIGTERM: saved"),
        ("terminate_the_first_in_test", IN_TEST, 143, "the training is done; test it"),
        ("terminate_the_second_in_test", IN_TEST, 1, "another process of this run has died"),
        ("fail_in_the_second", TWO, 1, "deepscm fit: the second process is out of luck."),
        (
            "kill_a_worker",
            ["--data.init_args.num_workers", "2"],
            1,
            "deepscm fit: a process that loads data has died",
        ),
    ],
)
def test_a_process_that_dies_ends_the_run(tmp_path, how, options, code, message):
    began = time.monotonic()
    found, printed = run_for_a_while([*words(tmp_path, how), *options])
    assert "no end after" not in printed, printed
    assert found == code, printed
    assert time.monotonic() - began < 100, "a minute, and the time to get to the death"
    assert message in printed, printed
    if how in ("fail_in_the_second", "kill_a_worker"):
        assert "Traceback" not in printed, printed


def test_the_death_of_a_worker_inside_another_call_is_named(monkeypatch, capsys):
    """PyTorch raises it from a signal, wherever Python is, so that a call may change its class."""

    def die(words):
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error

    monkeypatch.setattr(sys.modules[main.__module__], "_run_command", die)
    assert main(["fit"]) == 1
    assert capsys.readouterr().err.startswith("deepscm fit: a process that loads data has died")


def test_an_error_of_the_program_itself_is_raised(monkeypatch):
    def fail(words):
        raise TypeError("unsupported callable")

    monkeypatch.setattr(sys.modules[main.__module__], "_run_command", fail)
    with pytest.raises(TypeError, match="unsupported callable"):
        main(["fit"])


@pytest.mark.parametrize(
    ("how", "batch_size", "step"),
    [
        ("terminate_the_validation", 3, 11),
        ("terminate_the_validation_of_the_second", 3, 11),
        ("terminate", 9, 3),  # in the last step of the epoch: validation is begun, and left
    ],
)
def test_processes_end_together_in_validation(tmp_path, how, batch_size, step):
    """Of 19 rows the first has one more than the second, and a batch more of them."""
    settings = {"validation_size": 19, "batch_size": batch_size}
    sizes = [word for k, v in settings.items() for word in (f"--data.init_args.{k}", str(v))]
    code, printed = run_for_a_while([*words(tmp_path, how, step, every=1), *sizes, *TWO])
    assert code == 143, printed
    assert "received SIGTERM: saved" in printed
    saved = last(tmp_path)
    trained = sorted((run_of(tmp_path) / "checkpoints").glob("epoch=*"))[-1]
    expected = torch.load(trained, weights_only=True)
    for part in ("global_step", "state_dict", "current_model_state", "optimizer_states"):
        assert_equal(saved[part], expected[part], part)
    batches = saved["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]
    assert (batches["started"], batches["completed"]) == (1, 0), "all of it is done again"
    going_on = [*words(tmp_path), "--ckpt_path", "last", "--trainer.max_epochs", "1"]
    code, printed = run_for_a_while([*going_on, *sizes, *TWO])
    assert code == 0, printed
    assert last(tmp_path)["global_step"] == saved["global_step"], "nothing was left but validation"


def test_who_is_told_in_the_sanity_check_ends_after_a_step(tmp_path):
    how = "terminate_the_validation_of_the_second"
    code, printed = run_for_a_while([*words(tmp_path, how, step=0), *TWO])
    assert code == 143, printed
    assert last(tmp_path)["global_step"] == 1


def test_who_is_told_after_validation_ends_with_the_epoch(tmp_path):
    how = "terminate_the_second_after_validation"
    code, printed = run_for_a_while([*words(tmp_path, how, step=2), *TWO])
    assert code == 143, printed
    assert last(tmp_path)["global_step"] == 2
    going_on = [*words(tmp_path), "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    code, printed = run_for_a_while([*going_on, *TWO])
    assert code == 0, printed
    assert last(tmp_path)["global_step"] == 4
