"""What the other processes do while the first works alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch import distributed

__all__ = ["others_wait"]

_LONGEST = timedelta(days=30)


@contextmanager
def others_wait() -> Iterator[None]:
    """At the end of the block, processes wait for each other, however long one of them works.

    The processes of a training give up after minutes, ten on GPUs, without a word from one; an
    evaluation may take longer. Call it on every process. Where the block raises, it does not wait.

    Example:
        >>> with others_wait():
        ...     pass  # the first process works, the others have nothing to do
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    group: Any = distributed.new_group(timeout=_LONGEST, backend="gloo")
    yield
    distributed.barrier(group)
    distributed.destroy_process_group(group)
