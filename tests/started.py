"""Programs started by tests, in an environment for one or several processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from forked import CAN_FORK, Program, Template

LIMIT = 300
"""Seconds after which a run is considered hanging."""

TIME_TO_END = 60
"""Seconds for a hanging run to end; a torchrun agent waits half of it for its workers."""

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
    """The current environment with the import path, and without variables of earlier runs."""
    kept = {name: value for name, value in os.environ.items() if not _is_of_another_run(name)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def _is_of_another_run(name):
    return name in _OF_ANOTHER_RUN or name.startswith("SLURM_")


def start(*words, **variables):
    """Start a fresh interpreter in its own process group, with its output captured."""
    return subprocess.Popen(
        [sys.executable, *words],
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process):
    """Exit code and output; a hanging program is killed with all its child processes."""
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        printed = f"no end after {LIMIT} seconds:\n{_end(process)}"
    return process.returncode, printed


def _end(process):
    """Output so far, after ending the program; a torchrun agent ends its workers' groups."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=TIME_TO_END)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


class Forked:
    """A program that starts with all imports done and captures its output.

    Args:
        words: Command line after ``python``.
        folder: Working folder; the current folder by default.
        apart: Whether standard error is captured separately.
        variables: Further environment variables.
        output: The two ends of a terminal, for reading and for writing; a pipe by default.
    """

    def __init__(self, *words, folder=None, apart=False, variables=None, output=None):
        program = Program(list(words), environment() | (variables or {}), str(folder or Path.cwd()))
        pipes = [output] if output else [os.pipe() for _ in range(1 + apart)]
        self._reading = [reading for reading, _ in pipes]
        writing = [writing for _, writing in pipes]
        self._process = _begin(program, (writing[0], writing[-1]))
        for each in writing:
            os.close(each)

    def wait(self):
        """Exit code, output and, if separate, errors, after all writing processes have ended."""
        printed = dict.fromkeys(self._reading, b"")
        has_ended = _read_all(printed, LIMIT)
        if not has_ended:
            _end_all(self._process)
            _read_all(printed, TIME_TO_END)
        for number in printed:
            os.close(number)
        hung = "" if has_ended else f"no end after {LIMIT} seconds:\n"
        return self._process.wait(), *(hung + each.decode() for each in printed.values())


def _read_all(printed, limit):
    """Read until all ends are closed; False if this takes more than ``limit`` seconds."""
    end, missing = time.monotonic() + limit, set(printed)
    while missing:
        ready, _, _ = select.select(list(missing), [], [], max(0, end - time.monotonic()))
        if not ready:
            return False
        for number in ready:
            part = _part(number)
            printed[number] += part
            if not part:
                missing.remove(number)
    return True


def _part(number):
    try:
        return os.read(number, 2**16)
    except OSError:  # the end of a terminal is an error on Linux
        return b""


_templates = []
"""Template of this process, started on first use."""


def _begin(program, output):
    if CAN_FORK:
        if not _templates:
            _templates.append(Template(environment()))
        return _templates[0].start(program, output)
    return subprocess.Popen(
        [sys.executable, *program.words],
        env=program.environment,
        cwd=program.folder,
        stdout=output[0],
        stderr=output[1],
        start_new_session=True,
    )


def _end_all(process):
    """Kill a program and all its child processes."""
    if _templates:
        _templates.pop().end()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def run_for_a_while(words):
    """Run ``deepscm``; its exit code and output."""
    return Forked("-m", "deepscm_pl", *words).wait()
