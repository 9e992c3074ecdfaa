"""Threads that wait for each other leave the processors to others."""

from __future__ import annotations

import os

import pytest

from deepscm_pl.cli import main


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", "restored at the end of the test")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == after
