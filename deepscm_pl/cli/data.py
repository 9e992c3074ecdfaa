"""``deepscm data``: make data sets."""

from __future__ import annotations

import argparse

from deepscm_pl.data import generate_brain, generate_morphomnist, known_world
from deepscm_pl.escaping import for_terminal
from deepscm_pl.worlds import DIGIT_WORLDS

__all__ = ["run_data_command"]


def run_data_command(command: str, options: argparse.Namespace) -> None:
    """Make a data set.

    Raises:
        FileNotFoundError: If what it is made from does not exist.
        ValueError: If what it is made from is broken, or the output folder is not empty or cannot
            be written, or the world is unknown.
    """
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
