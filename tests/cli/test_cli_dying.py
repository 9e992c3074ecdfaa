"""A process that dies ends the run with an error: none waits for it for ever."""

from __future__ import annotations

import time

import pytest
from started import run_for_a_while
from test_cli_interruptions import words

TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.mark.parametrize(
    ("how", "options", "code", "message"),
    [
        ("kill_the_second", TWO, -9, "terminated with code -9"),
        ("kill_the_first", TWO, -9, ""),
        ("terminate", TWO, 143, "told to end: saved"),
        ("terminate_the_second", TWO, 143, "told to end: saved"),
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
