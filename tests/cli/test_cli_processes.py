"""Training and evaluation on two processes."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys

import yaml

from tiny import CONFIGURATION

_LIMIT = 120
"""Seconds after which a run counts as hanging."""


def test_two_processes_train_and_the_first_writes_the_reports(tmp_path):
    """The first process evaluates alone: whatever it computes must not wait for the other."""
    settings = copy.deepcopy(CONFIGURATION)
    data = {"class_path": "tiny.KnownTinyDataModule", "init_args": {"test_size": 13}}
    evaluation = {"interventions": ["thickness=2"], "num_particles": 2, "density_size": 100}
    settings |= {
        "data": data,
        "association": {"num_importance_samples": 2},
        "evaluation": {**evaluation, "workers": 1, "cache_dir": str(tmp_path / "cache")},
    }
    settings["trainer"] |= {
        "callbacks": [],
        "max_epochs": 1,
        "default_root_dir": str(tmp_path),
        "devices": 2,
        "strategy": "ddp",
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    code, printed = run_for_a_while(["fit", "--config", str(path)])
    assert code == 0, printed
    folder = tmp_path / "lightning_logs" / "version_0"
    quantities = json.loads((folder / "association.json").read_text())["quantities"]
    assert "importance_weighted_bound/image" in quantities
    document = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    found = document["counterfactual"]["thickness=2"]["quantities"]
    assert found["error/mean_absolute_error/particle"]["rows"] == 13
    assert found["effectiveness/thickness/intended/absolute_error"]["mean"] >= 0
    assert document["composition"]
    assert document["noise"]


def run_for_a_while(words):
    """Exit code and output of the program; a run that hangs is ended with its processes."""
    own = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "deepscm_pl", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed = f"no end after {_LIMIT} seconds:\n{process.communicate()[0]}"
        return process.returncode, printed
