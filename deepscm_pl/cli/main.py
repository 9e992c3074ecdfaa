"""Choose the command, and turn errors into one line for the user."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

_USAGE = """usage: deepscm COMMAND [OPTIONS]

Train deep structural causal models of images and ask them causal questions.

train and evaluate
  fit             train a model:           deepscm fit --config experiments/digits/full.yaml
  validate        evaluate on validation:  deepscm validate --ckpt_path FILE.ckpt
  test            is the model right?      deepscm test --ckpt_path FILE.ckpt
  predict         quantities per image:    deepscm predict --ckpt_path FILE.ckpt

ask a trained model
  sample          association:             deepscm sample --ckpt_path FILE.ckpt --out DIR
  intervene       intervention:            deepscm intervene --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  counterfactual  counterfactual:          deepscm counterfactual --ckpt_path FILE.ckpt --do thickness=3 --out DIR
  export          as safetensors:          deepscm export --ckpt_path FILE.ckpt --out model.safetensors

data and graphs
  data            make a data set:         deepscm data morphomnist --mnist DIR --out DIR
  graph           draw a causal graph:     deepscm graph --config FILE.yaml --out graph.svg

deepscm COMMAND --help describes the options of a command.
Set DEEPSCM_TRACEBACK=1 to see where in the program an error arose.
"""  # noqa: E501


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
    commands = _commands()
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"deepscm_pl {version('deepscm_pl')}")
        return 0
    if words[0] not in commands:
        from deepscm_pl.cli.parser import nearest

        print(
            f"deepscm: unknown command {words[0]!r}{nearest(words[0], commands)}", file=sys.stderr
        )
        print(_USAGE, file=sys.stderr)
        return 2
    return _run(commands[words[0]], words)


def _commands() -> dict[str, Callable[[list[str]], None]]:
    # Imported late, so that help and wrong words are answered at once.
    from deepscm_pl.cli.data import run_data_command
    from deepscm_pl.cli.export import run_export_command
    from deepscm_pl.cli.graph import run_graph_command
    from deepscm_pl.cli.questions import run_question
    from deepscm_pl.cli.training import run_training_command

    return {
        **dict.fromkeys(("fit", "validate", "test", "predict"), run_training_command),
        **dict.fromkeys(("sample", "intervene", "counterfactual"), run_question),
        "data": run_data_command,
        "export": run_export_command,
        "graph": run_graph_command,
    }


def _run(command: Callable[[list[str]], None], words: list[str]) -> int:
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from deepscm_pl.checks import reason_of
    from deepscm_pl.cli.parser import without_dumps
    from deepscm_pl.cli.settings import out_of_memory
    from deepscm_pl.escaping import for_terminal

    try:
        command(words)
    except SIGTERMException as error:
        saved = str(error) or "--ckpt_path last goes on from what was saved"
        print(f"deepscm {words[0]}: ended by SIGTERM; {saved}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except (ValueError, OSError, FloatingPointError, MisconfigurationException) as error:
        if os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        told = for_terminal(without_dumps(_told(error)), lines=True)
        print(f"deepscm {words[0]}: {told}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        died = _what_died(str(error)) or out_of_memory(error)
        if died is None or os.environ.get("DEEPSCM_TRACEBACK"):
            raise
        told = for_terminal(f"{died} ({reason_of(error)})")
        print(f"deepscm {words[0]}: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"deepscm {words[0]}: interrupted", file=sys.stderr)
        return 130
    return 0


def _told(error: Exception) -> str:
    """The message of an error, and where only the system has said that the disk is full, more."""
    from deepscm_pl.files import DiskFullError, is_disk_full

    if not isinstance(error, OSError) or isinstance(error, DiskFullError):
        return str(error)
    if not is_disk_full(error) or "could not be written" in str(error):
        return str(error)
    return f"the disk is full ({error}); files that were complete before are as they were."


def _what_died(message: str) -> str | None:
    """What to tell where a process on which this one depends has gone."""
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
