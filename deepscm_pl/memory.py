"""Memory and disk space: what is available, compared with what an operation needs."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = [
    "available_memory",
    "format_bytes",
    "require_disk",
    "require_memory",
    "total_memory",
]


def total_memory() -> int | None:
    """Total memory of the machine or the limit of its container, in bytes, or None if unknown."""
    return min(_totals(), default=None)


def available_memory() -> int | None:
    """Memory that can be allocated without swapping, in bytes, or None if unknown."""
    return min((*_totals(), *_free()), default=None)


def require_memory(setting: str, needed: int, advice: str) -> None:
    """Raise ValueError if a setting needs more bytes of memory than are available."""
    available = available_memory()
    if available is not None and needed > available:
        raise ValueError(
            f"{setting}: this needs at least {format_bytes(needed)} of memory, but the machine has "
            f"{format_bytes(available)} left; {advice}."
        )


def require_disk(setting: str, folder: Path, needed: int, files: int, advice: str) -> None:
    """Raise ValueError if files do not fit on the disk.

    Args:
        setting: The setting that needs them, for the message.
        folder: Destination; it need not exist.
        needed: A lower bound of the total size in bytes.
        files: Number of files; each takes at least one block of the disk.
        advice: Change that the user can make, for the message.
    """
    folder = folder.absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    available, block, free_files = _disk(existing)
    needed = max(needed, files * block)
    if needed > available:
        raise ValueError(
            f"{setting}: this needs at least {format_bytes(needed)} on the disk of {existing}, but "
            f"{format_bytes(available)} are free; {advice}."
        )
    if free_files is not None and files > free_files:
        raise ValueError(
            f"{setting}: this needs {files:,} files on the disk of {existing}, which has room for "
            f"{free_files:,}; {advice}."
        )


def format_bytes(size: float) -> str:
    """Format a number of bytes with a decimal unit."""
    if not math.isfinite(size):
        return "more bytes than can be counted"
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(int(math.log10(max(size, 1)) / 3), len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"


def _disk(folder: Path) -> tuple[int, int, int | None]:
    """Free bytes, block size in bytes, and the number of free inodes if that is limited."""
    if not hasattr(os, "statvfs"):
        return shutil.disk_usage(folder).free, 1, None
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_frsize, found.f_favail or None


def _free() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next((line for line in lines if line.startswith("MemAvailable:")), "")
        yield int(line.split()[1]) * 1024


def _totals() -> Iterator[int]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # both versions of control groups
        with suppress(OSError, ValueError):  # "max" where there is no limit
            yield int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii"))
    if hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
