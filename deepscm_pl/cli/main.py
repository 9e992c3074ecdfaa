"""Entry point of the program ``deepscm``, which turns errors into one line for the user."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Any

import deepscm_pl
from deepscm_pl.checks import nearest, reason_of
from deepscm_pl.cli.commands import COMMANDS
from deepscm_pl.cli.options import parse_command
from deepscm_pl.cli.parser import without_dumps
from deepscm_pl.cli.protocols import is_protocol, protocol_command
from deepscm_pl.cli.training_help import TRAINING_COMMANDS, check_training_words, training_help
from deepscm_pl.escaping import for_terminal
from deepscm_pl.files import DiskFullError, is_disk_full

__all__ = ["main"]

_USAGE = """usage: deepscm COMMAND [OPTIONS]

Train deep structural causal models of images and ask them causal questions.

see it
  demo            picture in seconds:      deepscm demo --open

train and evaluate
  fit             train a model:           deepscm fit --config digits/full
  validate        evaluate on validation:  deepscm validate --ckpt_path FILE.ckpt
  test            evaluate all rungs:      deepscm test --ckpt_path FILE.ckpt
  predict         quantities per image:    deepscm predict --ckpt_path FILE.ckpt

ask a trained model
  sample          association:             deepscm sample --ckpt_path FILE.ckpt --out DIR
  intervene       intervention:            deepscm intervene --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  counterfactual  counterfactual:          deepscm counterfactual --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  check           graph and data:          deepscm check --config FILE.yaml --out DIR
  effect          effects and causes:      deepscm effect --ckpt_path FILE.ckpt --do age=80 --outcome volume --out DIR
  explore         page in the browser:     deepscm explore digits --open
  members         ensemble of one model:   deepscm members --ckpt_path FILE.ckpt --out DIR
  export          as safetensors:          deepscm export --ckpt_path FILE.ckpt --out model.safetensors
  push            to the Hugging Face Hub: deepscm push DIR owner/name

configurations, data and graphs
  init            plan an experiment:      deepscm init TABLE.csv --graph "age -> volume"
  experiments     list experiments:        deepscm experiments
  data            make a data set:         deepscm data morphomnist --mnist DIR --out DIR
  graph           draw a causal graph:     deepscm graph --config FILE.yaml --out graph.svg

deepscm COMMAND --help describes the options of a command.
deepscm --print_shtab SHELL prints completion for bash, zsh or tcsh.
Set DEEPSCM_TRACEBACK=1 to print the traceback of an error.
"""  # noqa: E501


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The words after the program's name; those of the command line by default.

    Returns:
        0 on success, 1 after an error that the user can correct, 2 if the command line is not
        valid, and 128 plus the number of the signal after a signal.
    """
    # Threads that wait actively make a training several times slower if other programs run.
    # The setting has no effect once torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if words[0] == "--version":
        print(f"deepscm_pl {deepscm_pl.__version__}")
        return 0
    if words[0] == "--print_shtab":
        return _run(words)
    if words[0] not in {*COMMANDS, *TRAINING_COMMANDS}:
        hint = nearest(words[0], [*COMMANDS, *TRAINING_COMMANDS])
        print(f"deepscm: unknown command {words[0]!r}{hint}\n{_USAGE}", file=sys.stderr)
        return 2
    return _run(words)


def _run_command(words: list[str]) -> None:
    """Run a command; slow modules are imported only after its options have been parsed."""
    if words[0] == "--print_shtab":
        from deepscm_pl.cli.completion import print_completion

        print_completion(words[1:])
    elif words[0] in COMMANDS:
        parse_command(words, COMMANDS)()
    elif is_protocol(words):
        parse_command(words, {"test": protocol_command(words)})()
    elif words[1:] in (["-h"], ["--help"]):
        print(training_help(words[0]))
        raise SystemExit(0)
    else:
        check_training_words(words)
        from deepscm_pl.cli.training import run_training_command

        run_training_command(words)


def _user_errors() -> tuple[type[Exception], ...]:
    """Exceptions whose message names an error that the user can correct."""
    return ValueError, OSError, FloatingPointError, *_lightning_error("MisconfigurationException")


def _lightning_error(name: str) -> tuple[type[Exception], ...]:
    """Find an exception of Lightning; it cannot have been raised before Lightning is imported."""
    for module in ("lightning_fabric", "pytorch_lightning"):
        found: Any = sys.modules.get(f"{module}.utilities.exceptions")
        if hasattr(found, name):
            return (getattr(found, name),)
    return ()


def _run(words: list[str]) -> int:
    status = 1
    try:
        _run_command(words)
        return 0
    except _lightning_error("SIGTERMException") as error:
        resumption = str(error) or "--ckpt_path last resumes from the last checkpoint"
        message, status = for_terminal(f"ended by SIGTERM; {resumption}"), 128 + signal.SIGTERM
    except _user_errors() as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + getattr(signal, "SIGPIPE", 13)
        if os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        cause = _dead_process(error)
        message = (
            f"{cause}." if cause else for_terminal(without_dumps(_message_of(error)), lines=True)
        )
    except Exception as error:  # of any class: a death is raised wherever Python then is
        cause = _dead_process(error) or _lack_of_memory(error)
        if cause is None or os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        message = for_terminal(f"{cause} ({reason_of(error)})")
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    print(f"deepscm {words[0]}: {message}", file=sys.stderr)
    return status


def _is_output_closed() -> bool:
    """Whether the reader of the output, such as ``head``, has ended."""
    try:
        poll = select.poll()  # not on Windows
        poll.register(sys.stdout.fileno(), select.POLLERR)
    except (AttributeError, OSError, ValueError):  # not a file
        return False
    return bool(poll.poll(0))


def _message_of(error: Exception) -> str:
    """The message of an error, with advice if it is a bare system error of a full disk."""
    is_bare = isinstance(error, OSError) and not isinstance(error, DiskFullError)
    if is_bare and is_disk_full(error) and "could not be written" not in str(error):
        return f"the disk is full ({error}); files that were complete before are unchanged."
    return str(error)


def _lack_of_memory(error: Exception) -> str | None:
    """Advice if an error reports a lack of memory; other errors are not delayed by an import."""
    if not isinstance(error, RuntimeError | MemoryError):
        return None
    from deepscm_pl.cli.settings import out_of_memory

    return out_of_memory(error)


def _dead_process(error: BaseException) -> str | None:
    """Advice if an error, or a cause of it, reports the death of a process that this one needs."""
    message = ""
    cause: BaseException | None = error
    while cause is not None:
        message += str(cause)
        cause = cause.__cause__ or cause.__context__
    if "DataLoader worker" in message:
        return (
            "a process that loads data has died, often for lack of memory: try a lower "
            "--data.num_workers; --ckpt_path last resumes from the last checkpoint"
        )
    if "gloo" in message and "peer" in message:
        return (
            "another process of this run has died, see its message; --ckpt_path last resumes "
            "from the last checkpoint"
        )
    return None
