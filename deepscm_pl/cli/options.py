"""The options of the commands that are not trainings; nothing that takes time is imported here."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deepscm_pl.cli.parser import FriendlyArgumentParser

__all__ = ["DIGIT_WORLD_NAMES", "FORMATS", "parse_options"]

FORMATS = ("png", "nifti")
"""Of files of images."""

DIGIT_WORLD_NAMES = (
    "thickness-intensity",
    "thickness-intensity-falling",
    "thickness-slant",
    "thickness-width",
)

_DESCRIPTIONS = {
    "sample": "Association: draw observations from a trained model.",
    "intervene": "Intervention: draw observations under do(...), several if --do is repeated.",
    "counterfactual": "Counterfactual: what observations would have been, had do(...) been done.",
}


def parse_options(words: Sequence[str]) -> argparse.Namespace:
    """Parse the options of a command.

    Args:
        words: The command, then its options.

    Raises:
        SystemExit: After the help, or an error in one line.
    """
    return _PARSERS[words[0]](words[0]).parse_args(words[1:])


def _add_trust_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages whose classes the checkpoint may name in addition to those of deepscm_pl, "
        "torch.nn and torch.optim; they are imported, and their constructors run",
    )


def _question(question: str) -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(
        prog=f"deepscm {question}",
        description=_DESCRIPTIONS[question],
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a run")
    _add_trust_option(parser)
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make; new or empty")
    add("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    add(
        "--format",
        choices=FORMATS,
        help="files of the images: png to look at, the middle planes of volumes; nifti (.nii.gz) "
        "with the place and the header of the scan (default: nifti for volumes, png for others)",
    )
    add("--npz", action="store_true", help="write all values as answers.npz, too")
    if question != "sample":
        _add_interventions(parser)
    if question == "counterfactual":
        _add_counterfactual_options(parser)
    else:
        _add_drawing_options(parser)
    return parser


def _add_interventions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--do",
        nargs="+",
        action="extend",
        required=True,
        metavar="TEXT",
        help="intervention: variable=number, variable=class, variable+=number or "
        "variable*=number; commas join several variables into one intervention, further texts "
        "are further interventions",
    )


def _add_drawing_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--size",
        type=int,
        default=8,
        help="number of observations to draw (default: %(default)s)",
    )
    add(
        "--temperature",
        type=float,
        metavar="NUMBER",
        help="scale of the pixel noise that the image's likelihood draws, 0 for none "
        "(default: what the model was configured with, mostly 1)",
    )


def _add_counterfactual_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--index", type=int, nargs="+", metavar="ROW", help="rows of the run's test split, from 0"
    )
    which.add_argument(
        "--observations",
        type=Path,
        metavar="FILE.csv",
        help="table with a column per variable; images (PNG, JPEG, .npy, .nii, .nii.gz) by path, "
        "relative to the table",
    )
    add(
        "--prepare",
        action="store_true",
        help="the images of --observations are as the run's files were: cut, resize and normalise "
        "them as its data module did",
    )
    add(
        "--num_particles",
        type=int,
        default=1,
        help="draws of what observations leave open (default: %(default)s)",
    )
    add(
        "--resample",
        type=int,
        metavar="K",
        help="draw the latents of each observation again from K candidates of the encoder, by "
        "importance: exact in the limit, at K times the cost (default: from the encoder alone)",
    )
    add("--data.root", dest="root", type=Path, metavar="DIR", help="where the run's data lies now")


def _data(command: str) -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(prog="deepscm data", description="Make a data set.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="DATASET")
    morphomnist = kinds.add_parser(
        "morphomnist",
        help="synthetic Morpho-MNIST: digits of a known world, such as thickness and intensity",
        description="Render MNIST digits in a known world, by default one where thickness causes "
        "intensity.",
    )
    _add_morphomnist_options(morphomnist)
    brain = kinds.add_parser(
        "brain",
        help="heads of known brain and ventricle volumes, as slices or volumes",
        description="Draw heads in a world where age and sex cause the volume of the brain and, "
        "with it, that of the ventricles; as files that BrainMRIDataModule reads.",
    )
    _add_brain_options(brain)
    return parser


def _add_brain_options(parser: FriendlyArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make; new or empty")
    add("--size", type=int, default=1000, help="number of heads (default: %(default)s)")
    add(
        "--shape",
        type=int,
        nargs="+",
        default=[64, 64],
        metavar="SIZE",
        help="rows and columns of slices, or three sizes of volumes: left to right, back to "
        "front, bottom to top (default: 64 64)",
    )
    add(
        "--format",
        choices=FORMATS,
        help="png, for slices, or nifti (default: png for slices, nifti for volumes)",
    )
    add("--seed", type=int, default=0, help="seed of the heads (default: %(default)s)")
    add(
        "--fractions",
        type=float,
        nargs=3,
        default=[0.8, 0.1, 0.1],
        metavar="SHARE",
        help="shares of training, validation and test (default: 0.8 0.1 0.1)",
    )
    add("--workers", type=int, help="number of processes (default: one for each core)")


def _add_morphomnist_options(parser: FriendlyArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--mnist",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with MNIST, as torchvision keeps it (MNIST/raw inside)",
    )
    add(
        "--world",
        default="thickness-intensity",
        metavar="NAME",
        help=f"one of {', '.join(DIGIT_WORLD_NAMES)} (default: %(default)s)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make; new or empty")
    add(
        "--attributes",
        type=Path,
        metavar="DIR",
        help="folder with train-morpho.csv and t10k-morpho.csv, whose values are imposed "
        "(default: values are drawn)",
    )
    add("--seed", type=int, default=0, help="seed of the drawn values (default: %(default)s)")
    add("--workers", type=int, help="number of processes (default: one for each core)")
    add("--limit", type=int, help="render only the first images of each split")
    add("--download", action="store_true", help="download MNIST into --mnist if it is not there")


def _export(command: str) -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(
        prog="deepscm export",
        description="Write a trained model as one safetensors file, to ask it but not to train on.",
    )
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="checkpoint of a run")
    _add_trust_option(parser)
    add(
        "--out",
        type=Path,
        default=Path("model.safetensors"),
        metavar="FILE",
        help="file to write, new, ending in .safetensors (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def _graph(command: str) -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(prog="deepscm graph", description="Draw a causal graph.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-c",
        "--config",
        action="append",
        metavar="FILE",
        help="configuration of a model, a YAML file; several are merged, and later ones win",
    )
    source.add_argument(
        "--edges", help="the graph as text, such as 'age -> volume; volume -> image'"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("graph.svg"),
        help="file to write, ending in .svg, .png or .pdf (default: %(default)s)",
    )
    return parser


def _experiments(command: str) -> FriendlyArgumentParser:
    parser = FriendlyArgumentParser(
        prog="deepscm experiments",
        description="List the experiments of this package, or copy one to change it.",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="experiment, such as digits/full")
    add(
        "--out",
        type=Path,
        metavar="FILE.yaml",
        help="new file for its complete configuration (default: print it)",
    )
    return parser


_PARSERS: Mapping[str, Callable[[str], FriendlyArgumentParser]] = {
    **dict.fromkeys(_DESCRIPTIONS, _question),
    "data": _data,
    "experiments": _experiments,
    "export": _export,
    "graph": _graph,
}
