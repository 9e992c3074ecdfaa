"""A training on several machines, by torchrun or by SLURM; here all machines are this one."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytorch_lightning.cli import SaveConfigCallback
from started import Forked, start, wait_for
from test_cli_interruptions import last, words

from deepscm_pl.cli import main, runs
from deepscm_pl.cli.training import _SaveConfiguration


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def agent(node, port, arguments):
    """As ``torchrun`` starts it on each of two nodes, in fresh interpreters; how to wait for it."""
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
    torchrun += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return partial(wait_for, start(*torchrun, "-m", "deepscm_pl", *arguments))


def task(node, port, arguments):
    """As ``srun`` starts it on each of two nodes, with the variables that Lightning reads.

    A fork; how to wait for it.
    """
    of_the_job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "deepscm",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "MASTER_PORT": str(port),
    }
    own = {"SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "SLURM_LOCALID": "0"}
    return Forked("-m", "deepscm_pl", *arguments, variables={**of_the_job, **own}).wait


ON_TWO = ["--trainer.strategy", "ddp", "--trainer.num_nodes", "2", "--trainer.devices", "1"]


def on_two(launch, arguments):
    """Exit code and output of each of two machines."""
    port = free_port()
    launched = [launch(node, port, [*arguments, *ON_TWO]) for node in (0, 1)]
    return [wait() for wait in launched]


@pytest.mark.parametrize("launch", [agent, task], ids=["torchrun", "slurm"])
def test_two_machines_train_together(tmp_path, launch):
    ended = on_two(launch, [*words(tmp_path), "--trainer.max_epochs", "1"])
    printed = [each for _, each in ended]
    assert [code for code, _ in ended] == [0, 0], "\n".join(printed)
    assert os.listdir(tmp_path / "lightning_logs") == ["version_0"]
    assert last(tmp_path)["global_step"] == 2, "60 rows in batches of twice 16"
    assert "Ask the model" in printed[0]
    assert "Ask the model" not in printed[1]


def test_tasks_of_slurm_save_and_end_together_if_one_is_told(tmp_path):
    ended = on_two(task, words(tmp_path, "terminate_the_second", step=1))
    printed = "\n".join(each for _, each in ended)
    assert [code for code, _ in ended] == [143, 143], printed
    assert last(tmp_path)["global_step"] == 2, "after the step that was being done"


def test_a_killed_process_ends_the_agents_of_both_machines_within_a_minute(tmp_path):
    ended = on_two(agent, words(tmp_path, "kill_the_second_alone"))
    printed = "\n".join(each for _, each in ended)
    assert "no end after" not in printed, printed
    assert all(code > 0 for code, _ in ended), printed
    assert time.time() - (tmp_path / "died").stat().st_mtime < 60
    assert "another process of this run has died" in ended[0][1], printed


def test_machines_that_find_other_checkpoints_do_not_train_as_one(tmp_path):
    """The second one, on a file system of its own, sees no checkpoint to go on from."""
    assert main([*words(tmp_path / "0"), "--trainer.max_epochs", "1"]) == 0
    port = free_port()
    launched = []
    for node in (0, 1):
        arguments = [*words(tmp_path / str(node)), "--trainer.max_epochs", "2"]
        launched.append(task(node, port, [*arguments, *ON_TWO, "--ckpt_path", "last"]))
    printed = [wait() for wait in launched]
    assert all(code != 0 for code, _ in printed)
    for _, text in printed:
        assert "ckpt_path: expected one checkpoint for all processes" in text, text
        assert "epoch=0.ckpt" in text or "last.ckpt" in text
    assert last(tmp_path / "0")["epoch"] == 0


def test_what_is_gone_on_from_is_compared(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(runs, "_gather", lambda own: compared.append(own) or [own])
    arguments = [*words(tmp_path), "--trainer.max_epochs", "1", "--ckpt_path", "last"]
    assert main(arguments) == 0
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    saved = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert main(arguments) == 0
    (first, nothing), (digest, path) = compared
    assert (first, nothing) == ("", None)
    assert digest in saved
    assert Path(path).parent == folder


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_first_machine_says_whether_a_run_goes_on(tmp_path, monkeypatch, goes_on):
    """On a file system of its own another one may see what the first one does not."""
    asked = []
    monkeypatch.setattr(SaveConfigCallback, "setup", lambda *_: asked.append("all"))
    for node, sees in enumerate((goes_on, not goes_on)):
        folder = tmp_path / str(node)
        folder.mkdir()
        if sees:
            (folder / "config.yaml").touch()
        strategy = SimpleNamespace(broadcast=lambda own, node=node: own if node == 0 else goes_on)
        trainer = SimpleNamespace(log_dir=str(folder), strategy=strategy)
        _SaveConfiguration(None, None).setup(trainer, None, "fit")
    assert len(asked) == (0 if goes_on else 2), "both save, or none does: saving is done together"
