"""Work on many images by several processes, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from tqdm import tqdm

from deepscm_pl.checks import process_count
from deepscm_pl.memory import require_memory

__all__ = ["map_rows", "stream_rows"]

_ROWS_AT_A_TIME = 64
"""Rows that a worker takes at a time."""

_WORKER = 2**27
"""Bytes of memory of a worker, at least."""

Scalar = TypeVar("Scalar", bound=np.generic)
Rows = TypeVar("Rows", bound=Sized)
Arrays = tuple[NDArray[Any], ...]


def map_rows(
    function: Callable[..., NDArray[Scalar]],
    columns: Sequence[NDArray[Any]],
    workers: int | None = None,
    progress: bool = True,
    description: str | None = None,
) -> NDArray[Scalar]:
    """Apply a function to rows of arrays, in parallel.

    Args:
        function: From arrays ``(M, ...)``, one for each of ``columns``, to an array of M rows. Each
            row of the result must depend only on the same row of the arguments. With several
            workers, it must be importable by name, as pickle requires.
        columns: Arrays of one length N.
        workers: Processes; None for one per processor.
        progress: Whether to show a progress bar.
        description: Text of the bar.

    Returns:
        N rows, independent of the number of workers.

    Raises:
        ValueError: If ``workers`` is below 1 or there is no row.

    Example:
        >>> map_rows(np.add, [np.arange(3), np.ones(3)], workers=1, progress=False)
        array([1., 2., 3.])
    """
    return np.concatenate(list(stream_rows(function, columns, workers, progress, description)))


def stream_rows(
    function: Callable[..., Rows],
    columns: Sequence[NDArray[Any]],
    workers: int | None = None,
    progress: bool = True,
    description: str | None = None,
    chunk: int = _ROWS_AT_A_TIME,
) -> Generator[Rows, None, None]:
    """Apply a function to rows of arrays and yield its results in order.

    The arguments are those of :func:`map_rows`; the function may return any sized object, and takes
    ``chunk`` rows at a time, fewer if they are large.

    Raises:
        ValueError: As :func:`map_rows`, or if so many workers do not fit into memory.
    """
    workers = _processors() if workers is None else process_count("workers", workers)
    total = len(columns[0])
    if not total:
        raise ValueError("expected at least one row, got none.")
    chunks = [
        tuple(column[start : start + chunk] for column in columns)
        for start in range(0, total, chunk)
    ]
    workers = min(workers, len(chunks))
    if workers > 1:
        require_memory("workers", _WORKER * workers, "start fewer")
    with (
        tqdm(
            total=total, unit="image", desc=description, disable=None if progress else True
        ) as bar,
        closing(_results(function, chunks, workers)) as results,
    ):
        for rows in results:
            bar.update(len(rows))
            yield rows


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _results(
    function: Callable[..., Rows], chunks: list[Arrays], workers: int
) -> Generator[Rows, None, None]:
    if workers == 1:
        yield from (function(*chunk) for chunk in chunks)
        return
    # Workers of loky do not import the user's script again, which would start further workers.
    parallel = Parallel(workers, backend="loky", return_as="generator", max_nbytes=None)
    yield from parallel(delayed(function)(*chunk) for chunk in chunks)
