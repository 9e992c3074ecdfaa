"""``deepscm export``: a trained model as one safetensors file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepscm_pl.escaping import for_terminal
from deepscm_pl.numerals import format_number
from deepscm_pl.training import export_model, read_checkpoint

__all__ = ["run_export_command"]


def run_export_command(command: str, options: argparse.Namespace) -> None:
    """Write the weights and the configuration in a checkpoint as a safetensors file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is not valid, or the file exists or cannot be written.
    """
    written = export_model(options.ckpt_path, options.out, options.overwrite, options.trust)
    for line in _summary(written):
        print(for_terminal(line))
    print(f"written: {for_terminal(written)}")


def _summary(path: Path) -> Iterator[str]:
    """What the file says of itself: its variables, and how much there is of it."""
    about = read_checkpoint(path)
    for name, variable in about["variables"].items():
        yield f"{name}: {_in_words(variable)}"
    megabytes = format_number(path.stat().st_size / 1e6)
    yield f"{about['parameters']:,} parameters, {about['weights']} weights, {megabytes} MB"


def _in_words(variable: Mapping[str, Any]) -> str:
    """Values, shape unless it is one number, names of classes, and unit."""
    words = [variable["values"]]
    if variable["shape"] != [1]:
        words.append(" × ".join(map(str, variable["shape"])))
    if variable["classes"]:
        words.append(", ".join(variable["classes"]))
    if variable["unit"]:
        words.append(variable["unit"])
    return ", ".join(words)
