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
    """Applies a function of rows to many rows, some at a time.

    Args:
        function: Takes arrays ``(M, ...)``, one for each of ``columns``, and returns one of M
            rows. Each row of its result must depend on the same row of its arguments alone. With
            several workers it must be importable by its name, as pickle demands.
        columns: Arrays of one length N, at least one of them.
        workers: Processes; None takes one for each processor.
        progress: Whether to show a progress bar.
        description: What the bar says.

    Returns:
        N rows. They do not depend on the number of workers.

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
    """Applies a function of rows to many rows and yields what it returns, some rows at a time.

    Args:
        function: As for :func:`map_rows`; it may return anything with the length of its rows.
        columns: As for :func:`map_rows`.
        workers: As for :func:`map_rows`.
        progress: As for :func:`map_rows`.
        description: As for :func:`map_rows`.
        chunk: How many rows the function takes at a time, fewer for large ones.

    Yields:
        What the function returns, in order.

    Raises:
        ValueError: As for :func:`map_rows`, or if so many workers do not fit the memory.
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
        tqdm(total=total, unit="image", desc=description, disable=not progress) as bar,
        closing(_results(function, chunks, workers)) as results,
    ):
        for rows in results:
            bar.update(len(rows))
            yield rows


def _processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _results(
    function: Callable[..., Rows], chunks: list[Arrays], workers: int
) -> Generator[Rows, None, None]:
    """The results chunk by chunk, in order."""
    if workers == 1:
        yield from (function(*chunk) for chunk in chunks)
        return
    # Workers that do not import the user's script again, which would start workers in its turn.
    parallel = Parallel(workers, backend="loky", return_as="generator", max_nbytes=None)
    yield from parallel(delayed(function)(*chunk) for chunk in chunks)
