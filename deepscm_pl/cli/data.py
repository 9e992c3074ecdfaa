"""``deepscm data``: make data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.data import generate_brain, generate_morphomnist, known_world
from deepscm_pl.data.generate import ImageFormat
from deepscm_pl.escaping import for_terminal
from deepscm_pl.worlds import DIGIT_WORLDS

__all__ = ["run_data_command"]


def run_data_command(words: list[str]) -> None:
    """Make a data set.

    Raises:
        FileNotFoundError: If what it is made from does not exist.
        ValueError: If what it is made from is broken, or the output folder is not empty or cannot
            be written, or the world is unknown.
    """
    options = _parser().parse_args(words[1:])
    {"morphomnist": _make_morphomnist, "brain": _make_brain}[options.kind](options)
    print(f"written: {for_terminal(options.out)}")


def _make_morphomnist(options: argparse.Namespace) -> None:
    names = [each.name for each in DIGIT_WORLDS]
    if options.world not in names:
        raise ValueError(f"world must be one of {', '.join(names)}, got {options.world!r}.")
    generate_morphomnist(
        options.mnist,
        options.out,
        attributes=options.attributes,
        seed=options.seed,
        workers=options.workers,
        download=options.download,
        limit=options.limit,
        world=known_world(options.world),
    )


def _make_brain(options: argparse.Namespace) -> None:
    generate_brain(
        options.out,
        size=options.size,
        shape=options.shape,
        image_format=options.format,
        seed=options.seed,
        fractions=options.fractions,
        workers=options.workers,
    )


def _parser() -> FriendlyArgumentParser:
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
        choices=get_args(ImageFormat),
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
        help=f"one of {', '.join(each.name for each in DIGIT_WORLDS)} (default: %(default)s)",
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
