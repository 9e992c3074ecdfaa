"""Choose the command, and turn errors into one line for the user."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import deepscm_pl

__all__ = ["load_command", "main"]

_USAGE = """usage: deepscm COMMAND [OPTIONS]

Train deep structural causal models of images and ask them causal questions.

train and evaluate
  fit             train a model:           deepscm fit --config digits/full
  validate        evaluate on validation:  deepscm validate --ckpt_path FILE.ckpt
  test            is the model right?      deepscm test --ckpt_path FILE.ckpt
  predict         quantities per image:    deepscm predict --ckpt_path FILE.ckpt

ask a trained model
  sample          association:             deepscm sample --ckpt_path FILE.ckpt --out DIR
  intervene       intervention:            deepscm intervene --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  counterfactual  counterfactual:          deepscm counterfactual --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  export          as safetensors:          deepscm export --ckpt_path FILE.ckpt --out model.safetensors

configurations, data and graphs
  experiments     list those to train:     deepscm experiments
  data            make a data set:         deepscm data morphomnist --mnist DIR --out DIR
  graph           draw a causal graph:     deepscm graph --config FILE.yaml --out graph.svg

deepscm COMMAND --help describes the options of a command.
Set DEEPSCM_TRACEBACK=1 to see where in the program an error arose.
"""  # noqa: E501


_COMMANDS = {
    **dict.fromkeys(
        ("fit", "validate", "test", "predict"), "deepscm_pl.cli.training.run_training_command"
    ),
    **dict.fromkeys(
        ("sample", "intervene", "counterfactual"), "deepscm_pl.cli.questions.run_question"
    ),
    "data": "deepscm_pl.cli.data.run_data_command",
    "experiments": "deepscm_pl.cli.experiments.run_experiments_command",
    "export": "deepscm_pl.cli.export.run_export_command",
    "graph": "deepscm_pl.cli.graph.run_graph_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The words after the program's name; those of the command line by default.

    Returns:
        0 on success, 1 where the user has something to correct, 2 where the command line itself
        cannot be read.
    """
    # Threads that wait for each other would keep their processors busy, which makes a training
    # several times slower beside other work. It has no effect once torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if words[0] == "--version":
        print(f"deepscm_pl {deepscm_pl.__version__}")
        return 0
    if words[0] not in _COMMANDS:
        from deepscm_pl.cli.parser import nearest

        hint = nearest(words[0], _COMMANDS)
        print(f"deepscm: unknown command {words[0]!r}{hint}", file=sys.stderr)
        print(_USAGE, file=sys.stderr)
        return 2
    return _run(words)


def load_command(command: str) -> Callable[..., None]:
    """Import the function that runs a command."""
    module, _, function = _COMMANDS[command].rpartition(".")
    found: Callable[..., None] = getattr(importlib.import_module(module), function)
    return found


def _answer(words: list[str]) -> None:
    """Run a command; what takes long to import is imported once its options are known."""
    from deepscm_pl.cli.training_help import TRAINING_COMMANDS, check_training_words, training_help

    if words[0] not in TRAINING_COMMANDS:
        from deepscm_pl.cli.options import parse_options

        options = parse_options(words)
        load_command(words[0])(words[0], options)
    elif words[1:] in (["-h"], ["--help"]):
        print(training_help(words[0]))
        raise SystemExit(0)
    else:
        check_training_words(words)
        load_command(words[0])(words)


def _user_errors() -> tuple[type[Exception], ...]:
    """Exceptions whose message tells the user what to correct."""
    return ValueError, OSError, FloatingPointError, *_lightning_error("MisconfigurationException")


def _lightning_error(name: str) -> tuple[type[Exception], ...]:
    """An exception of Lightning, which can only have been raised if Lightning is imported."""
    for module in ("lightning_fabric", "pytorch_lightning"):
        found: Any = sys.modules.get(f"{module}.utilities.exceptions")
        if hasattr(found, name):
            return (getattr(found, name),)
    return ()


def _run(words: list[str]) -> int:
    from deepscm_pl.checks import reason_of
    from deepscm_pl.cli.parser import without_dumps
    from deepscm_pl.escaping import for_terminal

    try:
        _answer(words)
    except _lightning_error("SIGTERMException") as error:
        saved = str(error) or "--ckpt_path last goes on from what was saved"
        print(f"deepscm {words[0]}: ended by SIGTERM; {saved}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except _user_errors() as error:
        if isinstance(error, BrokenPipeError) and _is_output_closed():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + getattr(signal, "SIGPIPE", 13)
        if os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        died = _what_died(error)
        told = f"{died}." if died else for_terminal(without_dumps(_told(error)), lines=True)
        print(f"deepscm {words[0]}: {told}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        from deepscm_pl.cli.settings import out_of_memory

        died = _what_died(error) or out_of_memory(error)
        if died is None or os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        told = for_terminal(f"{died} ({reason_of(error)})")
        print(f"deepscm {words[0]}: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"deepscm {words[0]}: interrupted", file=sys.stderr)
        return 130
    return 0


def _is_output_closed() -> bool:
    """Whether the reader of the output, such as ``head``, has ended."""
    try:
        poll = select.poll()  # not on Windows
        poll.register(sys.stdout.fileno(), select.POLLERR)
    except (AttributeError, OSError, ValueError):  # not a file
        return False
    return bool(poll.poll(0))


def _told(error: Exception) -> str:
    """The message of an error, and where only the system has said that the disk is full, more."""
    from deepscm_pl.files import DiskFullError, is_disk_full

    if not isinstance(error, OSError) or isinstance(error, DiskFullError):
        return str(error)
    if not is_disk_full(error) or "could not be written" in str(error):
        return str(error)
    return f"the disk is full ({error}); files that were complete before are as they were."


def _what_died(error: BaseException) -> str | None:
    """Explain that a process on which this one depends has died, wherever the signal arrived."""
    message = ""
    cause: BaseException | None = error
    while cause is not None:
        message += str(cause)
        cause = cause.__cause__ or cause.__context__
    if "DataLoader worker" in message:
        return (
            "a process that loads data has died, often for want of memory: try a lower "
            "--data.num_workers; --ckpt_path last goes on from what was saved"
        )
    if "gloo" in message and "peer" in message:
        return (
            "another process of this run has died, see its message; --ckpt_path last goes on "
            "from what was saved"
        )
    return None
