"""``deepscm data``: make data sets."""

from __future__ import annotations

from pathlib import Path

from deepscm_pl.cli.parser import FriendlyArgumentParser
from deepscm_pl.data import generate_morphomnist, known_world
from deepscm_pl.data.worlds import WORLDS

__all__ = ["run_data_command"]


def run_data_command(words: list[str]) -> None:
    """Make a data set.

    Raises:
        FileNotFoundError: If what it is made from does not exist.
        ValueError: If what it is made from is broken, or the output folder is not empty or cannot
            be written, or the world is unknown.
    """
    options = _parser().parse_args(words[1:])
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
    print(f"written: {options.out}")


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
    return parser


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
        help=f"one of {', '.join(each.name for each in WORLDS)} (default: %(default)s)",
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
