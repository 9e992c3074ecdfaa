"""Shared fixtures: seeds, real data if available, and tiny runs."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pyro
import pytest
import torch

from deepscm_pl.cli import main

from tiny import write_configuration

# Programs that tests start import classes of tests.
_PATHS = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))

if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest already runs one process per processor.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    pyro.clear_param_store()
    yield
    assert not dict(pyro.get_param_store()), "nothing may be left in Pyro's parameter store"


@pytest.fixture
def double():
    """Use float64, because the laws hold without rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST and the published attributes."""
    folder = os.environ.get("DEEPSCM_DATA")
    if not folder:
        pytest.skip("needs real MNIST: set DEEPSCM_DATA to the folder that holds it")
    return Path(folder)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of ``deepscm fit`` on the tiny world: its folder and its output."""
    root = tmp_path_factory.mktemp("run")
    printed = io.StringIO()
    words = ["fit", "--config", str(write_configuration(root))]
    with contextlib.redirect_stdout(printed):
        assert main([*words, "--trainer.default_root_dir", str(root)]) == 0
    return root / "lightning_logs" / "version_0", printed.getvalue()


@pytest.fixture(scope="session")
def checkpoint(run) -> Path:
    """The best checkpoint of that run."""
    return next(path for path in (run[0] / "checkpoints").glob("epoch=*.ckpt"))


@pytest.fixture
def altered(checkpoint, tmp_path):
    """Write the checkpoint with changed entries; None removes an entry."""

    def write(**entries):
        saved = torch.load(checkpoint, weights_only=True)
        for name, value in entries.items():
            saved[name] = value
            if value is None:
                del saved[name]
        torch.save(saved, tmp_path / "altered.ckpt")
        return tmp_path / "altered.ckpt"

    return write
