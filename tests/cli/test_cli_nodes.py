"""A training on several machines, each with an agent of torchrun; here all are this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import torch
from test_cli_interruptions import words

LIMIT = 120
"""Seconds after which a run counts as hanging."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def agent(node, port, arguments):
    own = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--node-rank", str(node), "--nproc-per-node", "1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "deepscm_pl"]
    return subprocess.Popen(
        [*command, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_two_machines_train_together(tmp_path):
    arguments = [*words(tmp_path), "--trainer.max_epochs", "1", "--trainer.strategy", "ddp"]
    arguments += ["--trainer.num_nodes", "2", "--trainer.devices", "1"]
    port = free_port()
    agents = [agent(node, port, arguments) for node in (0, 1)]
    try:
        printed = [each.communicate(timeout=LIMIT)[0] for each in agents]
    finally:
        for each in agents:
            if each.poll() is None:
                os.killpg(each.pid, signal.SIGKILL)
    assert [each.returncode for each in agents] == [0, 0], "\n".join(printed)
    assert os.listdir(tmp_path / "lightning_logs") == ["version_0"]
    checkpoints = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2, "60 rows in batches of twice 16"
    assert "Ask the model" in printed[0]
    assert "Ask the model" not in printed[1]
