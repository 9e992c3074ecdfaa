"""How much memory there is, and what would not fit in it, before it is taken."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["memory_of_machine", "readable_bytes"]

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_of_machine() -> int | None:
    """The bytes that this process can have: of the machine, or of its container.

    Returns:
        None where the operating system does not tell.
    """
    found = [limit for limit in map(_limit_in, _LIMITS) if limit is not None]
    with suppress(AttributeError, ValueError, OSError):  # not on every operating system
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((each for each in found if each > 0), default=None)


def readable_bytes(size: float) -> str:
    """A number of bytes for a person to read.

    Example:
        >>> readable_bytes(64_000_000_000_000), readable_bytes(1500)
        ('64 TB', '1.5 kB')
    """
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(int(math.log10(max(size, 1)) / 3), len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"


def _limit_in(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None
