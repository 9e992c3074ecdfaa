"""``deepscm export``: a trained model as one safetensors file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepscm_pl.checkpoints.export import write_model
from deepscm_pl.escaping import for_terminal
from deepscm_pl.numerals import format_number

__all__ = ["run_export_command"]


def run_export_command(command: str, options: argparse.Namespace) -> None:
    """Write the weights and the configuration in a checkpoint as a safetensors file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is not valid, or the file exists or cannot be written.
    """
    about = write_model(options.ckpt_path, options.out, options.overwrite, options.trust)
    for line in _summary(about, options.out):
        print(for_terminal(line))
    print(f"written: {for_terminal(options.out)}")


def _summary(about: Mapping[str, Any], path: Path) -> Iterator[str]:
    """A line for each variable, and one for the sizes of the model and of the file."""
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
