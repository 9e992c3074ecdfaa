"""Trainings on two processes that talk to each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from on_processes import BATCH, train_attributes

LIMIT = 120
"""Seconds after which a run counts as hanging."""

ROWS = 64
EPOCHS = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the two processes of one run saw."""
    folder = tmp_path_factory.mktemp("processes")
    own = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    script = str(Path(__file__).with_name("on_processes.py"))
    with subprocess.Popen(
        [sys.executable, script, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed = process.communicate()[0]
    assert process.returncode == 0, printed
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def of_all_kinds(found, name):
    return [process["all kinds"][name] for process in found]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_both_find_the_same_statistics_of_the_training_data(found):
    assert_equal(*of_all_kinds(found, "after_fit"))


def test_both_end_with_the_same_parameters(found):
    assert_equal(*of_all_kinds(found, "parameters"))


def test_every_parameter_has_a_gradient(found):
    """So that ``find_unused_parameters`` is not needed."""
    assert of_all_kinds(found, "missing") == [[], []]


def test_each_has_rows_of_its_own(found):
    first, second = of_all_kinds(found, "rows")
    steps = ROWS // BATCH
    assert len(first) == len(second) == EPOCHS * steps
    for epoch in range(EPOCHS):
        part = slice(epoch * steps, (epoch + 1) * steps)
        rows = [row for batch in first[part] + second[part] for row in batch]
        assert len(rows) == len(set(rows)) == ROWS


def test_each_has_noise_of_its_own(found):
    seeds = [seed for process in of_all_kinds(found, "seeds") for seed in process]
    assert len(seeds) == len(set(seeds)) == 2 * EPOCHS * ROWS // BATCH


def test_only_the_first_writes_files(found):
    first, second = (process["written"] for process in found)
    for name in (".ckpt", "association", ".png"):
        assert any(name in each for each in first), (name, first)
    assert second == []


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same training without noise in one process, of batches that are twice as large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "3")
        return train_attributes(tmp_path_factory.mktemp("alone"), BATCH)


def test_two_halves_of_a_batch_train_as_the_whole(found, alone):
    for process in found:
        together = process["attributes"]
        assert together["steps"] == alone["steps"] == EPOCHS * ROWS // BATCH
        for name, value in alone["parameters"].items():
            torch.testing.assert_close(
                together["parameters"][name], value, rtol=0, atol=1e-5, msg=name
            )


def test_thirteen_rows_on_two_processes_are_measured_as_on_one(found, alone):
    for process in found:
        for together, expected in zip(
            process["attributes"]["measured"], alone["measured"], strict=True
        ):
            assert expected
            assert together == pytest.approx(expected, rel=0, abs=1e-6)
