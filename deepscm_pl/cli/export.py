"""``deepscm export``: a trained model as one safetensors file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepscm_pl.checkpoints.export import write_model
from deepscm_pl.cli.parser import FriendlyArgumentParser, add_trust_option
from deepscm_pl.escaping import for_terminal
from deepscm_pl.numerals import format_number

__all__ = ["run_export_command"]


def run_export_command(words: list[str]) -> None:
    """Write the weights and the configuration in a checkpoint as a safetensors file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint is not valid, or the file exists or cannot be written.
    """
    options = _parser().parse_args(words[1:])
    about = write_model(options.ckpt_path, options.out, options.overwrite, options.trust)
    for line in _summary(about, options.out):
        print(for_terminal(line))
    print(f"written: {for_terminal(options.out)}")


def _parser() -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(
        prog="deepscm export",
        description="Write a trained model as one safetensors file, to ask it but not to train on.",
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a run")
    add_trust_option(parser)
    add(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="FILE",
        help="file to write, new, ending in .safetensors (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


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
