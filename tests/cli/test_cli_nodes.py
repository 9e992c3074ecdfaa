"""A training on several machines, each with an agent of torchrun; here all are this one."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.cli import SaveConfigCallback
from started import start, wait_for
from test_cli_interruptions import words

from deepscm_pl.cli import main, runs
from deepscm_pl.cli.training import _SaveConfiguration


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def agent(node, port, arguments):
    torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
    torchrun += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return start(*torchrun, "-m", "deepscm_pl", *arguments)


def test_two_machines_train_together(tmp_path):
    arguments = [*words(tmp_path), "--trainer.max_epochs", "1", "--trainer.strategy", "ddp"]
    arguments += ["--trainer.num_nodes", "2", "--trainer.devices", "1"]
    port = free_port()
    agents = [agent(node, port, arguments) for node in (0, 1)]
    ended = [wait_for(each) for each in agents]
    printed = [each for _, each in ended]
    assert [code for code, _ in ended] == [0, 0], "\n".join(printed)
    assert os.listdir(tmp_path / "lightning_logs") == ["version_0"]
    checkpoints = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2, "60 rows in batches of twice 16"
    assert "Ask the model" in printed[0]
    assert "Ask the model" not in printed[1]


def test_machines_that_find_other_checkpoints_do_not_train_as_one(tmp_path):
    """The second one, on a file system of its own, sees no checkpoint to go on from."""
    assert main([*words(tmp_path / "0"), "--trainer.max_epochs", "1"]) == 0
    port = free_port()
    agents = []
    for node in (0, 1):
        arguments = [*words(tmp_path / str(node)), "--trainer.max_epochs", "2"]
        arguments += ["--trainer.strategy", "ddp", "--trainer.num_nodes", "2"]
        arguments += ["--trainer.devices", "1", "--ckpt_path", "last"]
        agents.append(agent(node, port, arguments))
    printed = [wait_for(each) for each in agents]
    assert all(code != 0 for code, _ in printed)
    for _, text in printed:
        assert "ckpt_path: expected one checkpoint for all processes" in text, text
        assert "epoch=0.ckpt" in text or "last.ckpt" in text
    last = tmp_path / "0" / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0


def test_what_is_gone_on_from_is_compared(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(runs, "_of_every_process", lambda own: compared.append(own) or [own])
    for _ in range(2):
        assert main([*words(tmp_path), "--trainer.max_epochs", "1", "--ckpt_path", "last"]) == 0
    assert compared[0] == ("", None)
    digest, path = compared[1]
    assert digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
