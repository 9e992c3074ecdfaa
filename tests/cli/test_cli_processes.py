"""Training and evaluation on two processes."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import yaml
from started import run_for_a_while

from tiny import CONFIGURATION


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


@pytest.mark.parametrize("batch_size", [3, 64])
def test_two_processes_predict_what_one_does(checkpoint, tmp_path, batch_size):
    """20 rows: in seven batches, the last one smaller, or in a single one for the first process."""
    written = []
    for devices in ("1", "2"):
        folder = tmp_path / devices
        folder.mkdir()
        words = ["predict", "--ckpt_path", str(shutil.copy(checkpoint, folder))]
        words += ["--data.init_args.batch_size", str(batch_size), "--trainer.devices", devices]
        words += ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
        code, printed = run_for_a_while([*words, "--trainer.enable_progress_bar", "false"])
        assert code == 0, printed
        assert printed.count("written: ") == 1
        written.append((folder / "quantities.csv").read_text())
    rows = [line.split(",")[0] for line in written[0].splitlines()]
    assert rows == ["row", *map(str, range(20))]
    assert written[1] == written[0]
