"""Programs that start with all imports done, as forks of a process that has imported them.

A fresh interpreter needs seconds to import torch and Lightning. Here one process, the template,
imports them, and forks for each requested program. A program has its own arguments, environment,
folder and output, runs as ``__main__``, and exits like an interpreter. All forks share one hash
seed, unlike fresh interpreters, which tests of agreement between processes use.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

CAN_FORK = hasattr(os, "pidfd_open")
"""Whether the platform supports forked programs (Linux only)."""

_LARGEST = 2**20
_REQUESTS = "DEEPSCM_TEST_REQUESTS"


@dataclass(frozen=True)
class Program:
    """A command: the words after ``python``, either ``-m MODULE ...`` or ``SCRIPT ...``."""

    words: list[str]
    environment: dict[str, str]
    folder: str

    def run(self):
        """Run in the current process, in place of the program that forked."""
        spare = _Spare()
        if spare.program is None:
            _replace_processes_of_lightning(spare)
            self._run()
        else:
            spare.program._run()

    def _run(self):
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        wanted = self.environment.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in wanted if path and path not in sys.path]
        _reset_rank()
        if self.words[0] == "-m":
            sys.argv = self.words[1:]
            runpy.run_module(self.words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(self.words)
            sys.path.insert(0, os.path.dirname(os.path.abspath(self.words[0])))
            runpy.run_path(self.words[0], run_name="__main__")


class Fork:
    """A running program.

    Args:
        requests: Socket of the template.
        program: Program to run.
        output: File descriptors of its standard output and standard error.
    """

    def __init__(self, requests, program, output):
        self._ended, sender = socket.socketpair()
        with sender:
            message = json.dumps(vars(program)).encode()
            socket.send_fds(requests, [message], [*output, sender.fileno()])
        self.returncode = None
        self._answers = self._ended.makefile("r")
        self.pid = int(self._answers.readline())

    def wait(self, timeout=None):
        """Wait for the exit code; a negative signal number if a signal ended the program."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            # No answer: the template was killed together with a hanging program.
            self.returncode = int(self._answers.readline() or -signal.SIGKILL)
            self._answers.close()
            self._ended.close()
        return self.returncode


class _Spare:
    """A child process that waits to run a program for its parent; it ends with its parent.

    It is forked before the parent runs its own program, and therefore has a fresh state.

    Attributes:
        program: Program to run, in the child; None in the parent.
    """

    def __init__(self):
        self._ours, theirs = socket.socketpair()
        self.returncode, self.program = None, None
        self.pid = os.fork()
        with theirs:
            if self.pid == 0:
                self._ours.close()
                self.program = _program_from(theirs)

    def start(self, words, env, cwd):
        """Start the program with the interface of ``subprocess.Popen``; supports two ranks."""
        program = Program(list(words[1:]), dict(env), cwd or os.getcwd())
        with self._ours:
            self._ours.sendall(json.dumps(vars(program)).encode() + b"\n")
        return self

    def poll(self):
        """Exit code or negative signal number; None while the program runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        """Send a signal unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _program_from(connection):
    with connection.makefile() as lines:
        message = lines.readline()
    if not message:
        os._exit(0)
    return Program(**json.loads(message))


class Template:
    """A process that forks on request, and leads the process group of its forks."""

    def __init__(self, environment):
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                env=environment | {_REQUESTS: str(number)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
            )

    def start(self, program, output):
        return Fork(self._requests, program, output)

    def is_running(self):
        return self._process.poll() is None

    def end(self):
        """Kill the template and all its forks."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._requests.close()


def main():
    """Import everything and fork for each request; returns a program in a fork, None otherwise."""
    requests = socket.socket(fileno=int(os.environ.pop(_REQUESTS)))
    _import_everything()
    gc.freeze()  # so that fewer memory pages are copied when a fork ends
    parent, running = os.getppid(), {}
    while os.getppid() == parent:
        ready, _, _ = select.select([requests, *running], [], [], 1)
        for each in ready:
            if each in running:
                _send_exit_code(each, *running.pop(each))
            else:
                program = _fork(requests, running)
                if program is not None:
                    requests.close()
                    return program
    return None


def _fork(requests, running):
    """Fork; the requested program in the new process, None in this one."""
    message, descriptors, _, _ = socket.recv_fds(requests, _LARGEST, 3)
    if not message:
        sys.exit()
    output, errors, answers = descriptors
    pid = os.fork()
    if pid == 0:
        os.dup2(output, 1)
        os.dup2(errors, 2)
    os.close(output)
    os.close(errors)
    if pid == 0:
        os.close(answers)
        return Program(**json.loads(message))
    os.write(answers, f"{pid}\n".encode())
    running[os.pidfd_open(pid)] = (pid, answers)
    return None


def _send_exit_code(descriptor, pid, answers):
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(answers)
    os.close(descriptor)


def _import_everything():
    """Import everything that programs of this package import, including late imports."""
    import importlib

    for name in (
        "matplotlib.backends.backend_agg",
        "matplotlib.pyplot",
        "pytorch_lightning.loggers.tensorboard",
        "torch.utils.tensorboard",
        "deepscm_pl.checkpoints.export",
        "deepscm_pl.cli.questions",
        "deepscm_pl.cli.training",
        "tiny",
    ):
        importlib.import_module(name)


def _reset_rank():
    """Reset state that imports have read from the environment of the template."""
    from lightning_fabric.utilities import rank_zero

    rank_zero.rank_zero_only.rank = rank_zero._get_rank() or 0


def _replace_processes_of_lightning(spare):
    """Make Lightning fork its second process instead of starting an interpreter."""
    import lightning_fabric.strategies.launchers.subprocess_script as of_fabric
    import pytorch_lightning.strategies.launchers.subprocess_script as of_lightning

    for module in (of_fabric, of_lightning):
        module.subprocess = SimpleNamespace(Popen=spare.start)


if __name__ == "__main__":
    forked = main()
    if forked is not None:
        forked.run()
