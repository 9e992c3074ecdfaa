"""The generator of synthetic Morpho-MNIST, from MNIST."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.checks import process_count, seed_number, whole_number
from deepscm_pl.data.idx import write_idx
from deepscm_pl.data.morphomnist import (
    WORLD_FILE,
    SplitFiles,
    read_attributes,
    write_attributes,
)
from deepscm_pl.data.truth import render_truth
from deepscm_pl.data.worlds import KnownWorld, ThicknessIntensityWorld, write_world
from deepscm_pl.files import exit_on_termination, new_folder

__all__ = ["generate_morphomnist"]

_PREFIXES = ("train", "t10k")


@dataclass(frozen=True)
class _Split:
    """Digits to draw: originals ``(N, 28, 28)``, labels ``(N,)`` and attributes ``(N,)``."""

    prefix: str
    originals: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    attributes: dict[str, NDArray[np.float32]]


def generate_morphomnist(
    mnist: str | Path,
    out: str | Path,
    attributes: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    download: bool = False,
    progress: bool = True,
    limit: int | None = None,
    world: KnownWorld | None = None,
) -> None:
    """Draws MNIST with the attributes of a world.

    ``out`` receives, for ``train`` and ``t10k`` each, ``*-images-idx3-ubyte.gz``,
    ``*-labels-idx1-ubyte.gz``, ``*-morpho.csv`` with the column index and one for each attribute,
    and ``*-originals-idx3-ubyte.gz``, from which the images were drawn: row k is the k-th digit of
    MNIST. ``world.json`` describes the world. The folder appears when it is complete; a run that
    fails or is interrupted leaves nothing. Equal arguments give equal bytes, whatever the number of
    workers.

    Args:
        mnist: A folder with MNIST as torchvision stores it (in its subfolder ``MNIST/raw``), that
            subfolder ``MNIST``, or with ``download`` where to store it.
        out: The folder to make; it may exist if it is empty.
        attributes: A folder with ``train-morpho.csv`` and ``t10k-morpho.csv`` to impose; None
            samples attributes from the world.
        seed: Of the sampled attributes.
        workers: Processes; None takes one for each processor.
        download: Whether to download MNIST if it is not there.
        progress: Whether to show a progress bar.
        limit: Draw only so many digits of each split, the first; None draws all.
        world: How attributes cause each other and the image; None takes
            :class:`ThicknessIntensityWorld`.

    Raises:
        FileNotFoundError: If MNIST or a table of attributes is missing.
        ValueError: If ``out`` cannot be made, a number is out of range, or the imposed attributes
            are broken or not as many as the digits.
    """
    seed_number("seed", seed)
    if workers is not None:
        process_count("workers", workers)
    limit = sys.maxsize if limit is None else whole_number("limit", limit, least=1)
    world = world or ThicknessIntensityWorld()
    with exit_on_termination(), new_folder(Path(out).expanduser()) as folder:
        root = _find_mnist(Path(mnist).expanduser(), download)
        splits = [_load_split(root, prefix, world, attributes, seed, limit) for prefix in _PREFIXES]
        drawn = render_truth(
            world,
            np.concatenate([split.originals for split in splits]),
            {
                name: np.concatenate([split.attributes[name] for split in splits])
                for name in world.attributes
            },
            workers,
            progress,
        )
        write_world(folder / WORLD_FILE, world)
        for split in splits:
            _write_split(folder, split, drawn[: len(split.labels)])
            drawn = drawn[len(split.labels) :]


def _find_mnist(folder: Path, download: bool) -> Path:
    """The root folder of MNIST, as torchvision takes it."""
    # Imported here, because a torchvision that does not match torch fails on import, and only
    # the generator needs it.
    from torchvision.datasets import MNIST

    if download:
        try:
            MNIST(str(folder), download=True)
        except RuntimeError as error:
            raise ValueError(
                f"mnist: MNIST could not be downloaded into {folder} ({error}); put its files into "
                f"{folder / 'MNIST' / 'raw'} yourself."
            ) from None
    for root in (folder, folder.parent):
        try:
            MNIST(str(root), download=False)
            return root
        except RuntimeError:
            continue
    raise FileNotFoundError(
        f"mnist: there is no MNIST/raw folder with the files of MNIST in {folder} or "
        f"{folder.parent}; name the folder that holds it, or allow the download."
    )


def _load_split(
    root: Path,
    prefix: str,
    world: KnownWorld,
    attributes: str | Path | None,
    seed: int,
    limit: int,
) -> _Split:
    """The first digits of a split of MNIST, with their attributes."""
    from torchvision.datasets import MNIST

    try:
        mnist = MNIST(str(root), train=prefix == "train", download=False)
    except (RuntimeError, ValueError, EOFError) as error:
        raise ValueError(
            f"mnist: the {prefix} files in {root / 'MNIST' / 'raw'} cannot be read ({error}); "
            "get them again."
        ) from None
    labels = mnist.targets.numpy().astype(np.uint8)
    if attributes is None:
        table = _sample_attributes(world, len(labels), [seed, _PREFIXES.index(prefix)])
    else:
        table = _imposed_attributes(world, Path(attributes).expanduser(), prefix, len(labels))
    return _Split(
        prefix=prefix,
        originals=mnist.data.numpy()[:limit],
        labels=labels[:limit],
        attributes={name: column[:limit] for name, column in table.items()},
    )


def _sample_attributes(
    world: KnownWorld, size: int, seed: list[int]
) -> dict[str, NDArray[np.float32]]:
    sample = world.sample(size, np.random.default_rng(seed))
    return {name: column.astype(np.float32) for name, column in sample.items()}


def _imposed_attributes(
    world: KnownWorld, folder: Path, prefix: str, size: int
) -> dict[str, NDArray[np.float32]]:
    path = folder / f"{prefix}-morpho.csv"
    attributes = read_attributes(path, world)
    rows = len(attributes[world.attributes[0]])
    if rows != size:
        raise ValueError(
            f"{path} should have a row for each of the {size} digits of MNIST, but it has {rows}; "
            "name a folder with attributes of the whole data set."
        )
    return attributes


def _write_split(folder: Path, split: _Split, drawn: NDArray[np.uint8]) -> None:
    files = SplitFiles(folder, split.prefix)
    write_idx(files.images, drawn)
    write_idx(files.labels, split.labels)
    write_idx(files.originals, split.originals)
    write_attributes(files.attributes, split.attributes)
