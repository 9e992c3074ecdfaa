"""The generator of synthetic Morpho-MNIST, from MNIST."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from deepscm_pl.data.base import require_count
from deepscm_pl.data.idx import write_idx
from deepscm_pl.data.morphomnist import Attributes, read_attributes, write_attributes
from deepscm_pl.data.worlds import ThicknessIntensityWorld
from deepscm_pl.files import new_folder

__all__ = ["generate_morphomnist"]

_CHUNK = 64
"""Images that a worker renders at a time."""

_PREFIXES = ("train", "t10k")


@dataclass(frozen=True)
class _Split:
    """Digits to draw: images ``(N, 28, 28)``, labels ``(N,)`` and attributes."""

    prefix: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    attributes: Attributes


def generate_morphomnist(
    mnist: str | Path,
    out: str | Path,
    attributes: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    download: bool = False,
    progress: bool = True,
    limit: int | None = None,
) -> None:
    """Draws MNIST with the attributes of a :class:`ThicknessIntensityWorld`.

    ``out`` receives, for ``train`` and ``t10k`` each, ``*-images-idx3-ubyte.gz``,
    ``*-labels-idx1-ubyte.gz`` and ``*-morpho.csv`` with columns index, thickness (pixels) and
    intensity (grey levels): row k is the k-th digit of MNIST. It appears when it is complete; a
    run that fails or is interrupted leaves nothing. Equal arguments give equal bytes, whatever the
    number of workers.

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

    Raises:
        FileNotFoundError: If MNIST or a table of attributes is missing.
        ValueError: If ``out`` cannot be made, a number is out of range, or the imposed attributes
            are broken or not as many as the digits.
    """
    require_count("seed", seed, minimum=0)
    workers = _processors() if workers is None else require_count("workers", workers, minimum=1)
    limit = sys.maxsize if limit is None else require_count("limit", limit, minimum=1)
    with _exit_on_termination(), new_folder(Path(out).expanduser()) as folder:
        root = _find_mnist(Path(mnist).expanduser(), download)
        splits = [_load_split(root, prefix, attributes, seed, limit) for prefix in _PREFIXES]
        chunks = [chunk for split in splits for chunk in _chunks(split)]
        drawn = _render_all(chunks, workers, progress)
        for split in splits:
            _write_split(folder, split, drawn[: len(split.labels)])
            drawn = drawn[len(split.labels) :]


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _exit_on_termination() -> Iterator[None]:
    """Turns a request to terminate into SystemExit, so that what is half done is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


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
    root: Path, prefix: str, attributes: str | Path | None, seed: int, limit: int
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
        table = _sample_attributes(len(labels), [seed, _PREFIXES.index(prefix)])
    else:
        table = _imposed_attributes(Path(attributes).expanduser(), prefix, len(labels))
    return _Split(
        prefix=prefix,
        images=mnist.data.numpy()[:limit],
        labels=labels[:limit],
        attributes=Attributes(table.thickness[:limit], table.intensity[:limit]),
    )


def _sample_attributes(size: int, seed: list[int]) -> Attributes:
    sample = ThicknessIntensityWorld().sample(size, np.random.default_rng(seed))
    return Attributes(
        sample["thickness"].astype(np.float32), sample["intensity"].astype(np.float32)
    )


def _imposed_attributes(folder: Path, prefix: str, size: int) -> Attributes:
    path = folder / f"{prefix}-morpho.csv"
    attributes = read_attributes(path)
    if len(attributes) != size:
        raise ValueError(
            f"{path} should have a row for each of the {size} digits of MNIST, but it has "
            f"{len(attributes)}; name a folder with attributes of the whole data set."
        )
    return attributes


def _chunks(split: _Split) -> Iterator[_Split]:
    """The split in pieces of equal size, but for the last."""
    for start in range(0, len(split.labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield _Split(
            split.prefix,
            split.images[part],
            split.labels[part],
            Attributes(split.attributes.thickness[part], split.attributes.intensity[part]),
        )


def _render_all(chunks: list[_Split], workers: int, progress: bool) -> NDArray[np.uint8]:
    """The drawn images of all chunks, ``(N, 28, 28)``."""
    total = sum(len(chunk.labels) for chunk in chunks)
    parts = []
    with (
        tqdm(total=total, unit="image", disable=not progress) as bar,
        closing(_rendered(chunks, min(workers, len(chunks)))) as results,
    ):
        for images in results:
            parts.append(images)
            bar.update(len(images))
    return np.concatenate(parts)


def _rendered(chunks: list[_Split], workers: int) -> Generator[NDArray[np.uint8], None, None]:
    """The drawn images chunk by chunk, in order."""
    if workers == 1:
        yield from map(_render, chunks)
        return
    # Threads of numerical libraries do not survive a fork, hence spawn. Rendering needs none.
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts)
    try:
        yield from executor.map(_render, chunks)
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C to the parent, which stops its workers in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _render(chunk: _Split) -> NDArray[np.uint8]:
    """The drawn images of a chunk."""
    attributes = chunk.attributes
    return ThicknessIntensityWorld().render(
        chunk.images, attributes.thickness, attributes.intensity
    )


def _write_split(folder: Path, split: _Split, drawn: NDArray[np.uint8]) -> None:
    write_idx(folder / f"{split.prefix}-images-idx3-ubyte.gz", drawn)
    write_idx(folder / f"{split.prefix}-labels-idx1-ubyte.gz", split.labels)
    write_attributes(folder / f"{split.prefix}-morpho.csv", split.attributes)
