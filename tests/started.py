"""Programs that tests start, in an environment in which processes find each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

LIMIT = 300
"""Seconds after which a run counts as hanging."""

TIME_TO_END = 60
"""Seconds that a hanging run is given; an agent of torchrun waits half of it for its workers."""

_OF_ANOTHER_RUN = {
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
}


def environment():
    """This one, with all that can be imported here, and without what another run has left."""
    kept = {name: value for name, value in os.environ.items() if not _is_of_another_run(name)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _is_of_another_run(name):
    return name in _OF_ANOTHER_RUN or name.startswith("SLURM_")


def start(*words, **variables):
    """Start Python with these words; what it prints is kept, and it leads its own group."""
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process):
    """Exit code and output; what hangs is ended, with all the processes that it has started."""
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        printed = f"no end after {LIMIT} seconds:\n{_end(process)}"
    return process.returncode, printed


def _end(process):
    """What it has printed; an agent of torchrun ends groups that are its workers' own, if told."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=TIME_TO_END)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def run_for_a_while(words):
    """Exit code and output of ``deepscm``."""
    return wait_for(start("-m", "deepscm_pl", *words))
