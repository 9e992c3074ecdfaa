"""The message where a training is interrupted: what was saved, and how to resume it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from deepscm_pl.training.checkpoint_files import furthest_checkpoint

__all__ = ["describe_resumption", "shell_command", "tell_if_interrupted"]

_OPTION = "--ckpt_path"


@contextmanager
def tell_if_interrupted(
    trainer: pl.Trainer, command: str, advice: Callable[[], str]
) -> Iterator[None]:
    """Print advice where Ctrl-C or SIGTERM interrupts the trainer in the block.

    Args:
        trainer: The trainer that is at work.
        command: The subcommand of the program.
        advice: Makes the text; called on the first process only.

    Raises:
        SIGTERMException: Where SIGTERM ended a training, with the text, which is not printed.
    """
    try:
        yield
    except SIGTERMException:
        raise SIGTERMException(advice() if trainer.is_global_zero else "") from None
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        if trainer.interrupted and trainer.is_global_zero:
            print(f"deepscm {command}: interrupted; {advice()}", file=sys.stderr)
        raise


def describe_resumption(folder: str | Path | None, words: Sequence[str]) -> str:
    """Describe what a folder of checkpoints holds, and the command that resumes the training.

    Args:
        folder: Where the training saves; None if it does not.
        words: What the user typed after the name of the program.
    """
    found = None if folder is None else furthest_checkpoint(Path(folder))
    if found is None:
        return f"nothing was saved yet; begin anew with: {shell_command(*words)}"
    path, steps = found
    # A command without a configuration takes it from a checkpoint, which has to be named.
    is_configured = any(word.split("=")[0] in ("--config", "-c") for word in words)
    last = "last" if is_configured else str(path)
    resume = shell_command(*_without_checkpoint(words), _OPTION, last)
    return f"saved up to step {steps} in {path}; resume with: {resume}"


def shell_command(*words: str) -> str:
    """A command of this program, quoted for a shell."""
    return shlex.join(["deepscm", *words])


def _without_checkpoint(words: Sequence[str]) -> list[str]:
    pairs = zip(["", *words[:-1]], words, strict=True)
    kept = [word for before, word in pairs if _OPTION not in (before, word)]
    return [word for word in kept if not word.startswith(f"{_OPTION}=")]
