"""One trained run for all tests of the program."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from deepscm_pl.cli import main

from tiny import write_configuration


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A trained run: its folder, and what ``fit`` printed."""
    root = tmp_path_factory.mktemp("run")
    printed = io.StringIO()
    words = ["fit", "--config", str(write_configuration(root))]
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--trainer.default_root_dir", str(root)]) == 0
    return root / "lightning_logs" / "version_0", printed.getvalue()


@pytest.fixture(scope="session")
def checkpoint(run) -> Path:
    return next(path for path in (run[0] / "checkpoints").glob("epoch=*.ckpt"))
