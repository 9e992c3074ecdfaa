"""Programs that begin with all imports done: forks of a process that did them once.

A fresh interpreter needs seconds to import torch and Lightning. Here one process, the template,
imports them, and forks for each program that it is asked to run. A program has its own arguments,
environment, folder and output, begins as ``__main__``, and ends as an interpreter does. It differs
from a fresh one in its seed of hashes, which all forks share: tests of what several processes have
to agree on start fresh ones.
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
"""Only on Linux."""

_LARGEST = 2**20
_REQUESTS = "DEEPSCM_TEST_REQUESTS"


@dataclass(frozen=True)
class Program:
    """What to run: the words after ``python``, either ``-m MODULE ...`` or ``SCRIPT ...``."""

    words: list[str]
    environment: dict[str, str]
    folder: str

    def run(self):
        """In place of the program that forked; its end is that of the process."""
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
        _forget_the_template()
        if self.words[0] == "-m":
            sys.argv = self.words[1:]
            runpy.run_module(self.words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(self.words)
            sys.path.insert(0, os.path.dirname(os.path.abspath(self.words[0])))
            runpy.run_path(self.words[0], run_name="__main__")


class Fork:
    """A program that runs.

    Args:
        requests: Where the template waits.
        program: What to run.
        output: Descriptors of its standard output and its standard error.
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
        """The exit code; the negative of a signal."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            # The template is ended together with what hangs.
            self.returncode = int(self._answers.readline() or -signal.SIGKILL)
            self._answers.close()
            self._ended.close()
        return self.returncode


class _Spare:
    """A child that waits to become a program that its parent starts; it ends with its parent.

    Made before the parent does anything, so that it knows nothing of what the parent has done.

    Attributes:
        program: What the child is to be, in the child; None in the parent.
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
        """Let it become this program, as ``subprocess.Popen`` does; one is enough for two ranks."""
        program = Program(list(words[1:]), dict(env), cwd or os.getcwd())
        with self._ours:
            self._ours.sendall(json.dumps(vars(program)).encode() + b"\n")
        return self

    def poll(self):
        """The exit code, the negative of a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number):
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _program_from(connection):
    with connection.makefile() as lines:
        message = lines.readline()
    if not message:
        os._exit(0)
    return Program(**json.loads(message))


class Template:
    """A process that forks when it is asked to; it leads a group of all that it has started."""

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
        """With all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._requests.close()


def main():
    """Import, then fork for each request; a fork returns from here to run its program."""
    requests = socket.socket(fileno=int(os.environ.pop(_REQUESTS)))
    _import_everything()
    gc.freeze()  # so that the end of a fork touches, and thereby copies, less
    parent, running = os.getppid(), {}
    while os.getppid() == parent:
        ready, _, _ = select.select([requests, *running], [], [], 1)
        for each in ready:
            if each in running:
                _tell_the_end(each, *running.pop(each))
            else:
                program = _fork(requests, running)
                if program is not None:
                    requests.close()
                    return program
    return None


def _fork(requests, running):
    """The program that is asked for, in a new process; None in this one."""
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


def _tell_the_end(descriptor, pid, answers):
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(answers)
    os.close(descriptor)


def _import_everything():
    """What programs of this package import, also late."""
    import importlib

    for name in (
        "matplotlib.backends.backend_agg",
        "matplotlib.pyplot",
        "pytorch_lightning.loggers.tensorboard",
        "torch.utils.tensorboard",
        "deepscm_pl.cli.main",
        "tiny",
    ):
        importlib.import_module(name)
    from deepscm_pl.cli.main import _COMMANDS, load_command

    for command in _COMMANDS:
        load_command(command)


def _forget_the_template():
    """Read again what imports have read from the environment."""
    from lightning_fabric.utilities import rank_zero

    rank_zero.rank_zero_only.rank = rank_zero._get_rank() or 0


def _replace_processes_of_lightning(spare):
    """Let the process that Lightning starts beside a program be a fork as well."""
    import lightning_fabric.strategies.launchers.subprocess_script as of_fabric
    import pytorch_lightning.strategies.launchers.subprocess_script as of_lightning

    for module in (of_fabric, of_lightning):
        module.subprocess = SimpleNamespace(Popen=spare.start)


if __name__ == "__main__":
    forked = main()
    if forked is not None:
        forked.run()
