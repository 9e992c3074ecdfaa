"""``deepscm export``: a trained model as one safetensors file."""

from __future__ import annotations

from pathlib import Path

from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.training import export_model

__all__ = ["run_export_command"]


def run_export_command(words: list[str]) -> None:
    """Write the weights and the configuration in a checkpoint as a safetensors file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is not valid, or the file cannot be written.
    """
    parser = FriendlyArgumentParser(
        prog="deepscm export",
        description="Write a trained model as one safetensors file, to ask it but not to train on.",
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a run")
    add(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="FILE",
        help="file to write, ending in .safetensors (default: %(default)s)",
    )
    options = parser.parse_args(words[1:])
    print(f"written: {export_model(options.ckpt_path, options.out)}")
