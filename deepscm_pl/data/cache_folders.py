"""Folders in which this program keeps what takes long to make."""

from __future__ import annotations

from pathlib import Path

__all__ = ["holds_caches"]

_PATTERNS = ("scans-*", "shapes-*-ubyte.gz", "digits-*.pt")


def holds_caches(folder: Path) -> bool:
    """Whether this program has kept something in a folder.

    Args:
        folder: A folder, which need not exist.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> holds_caches(folder)
        False
        >>> (folder / "digits-1.pt").touch()
        >>> holds_caches(folder)
        True
    """
    try:
        return any(any(folder.expanduser().glob(pattern)) for pattern in _PATTERNS)
    except (OSError, RuntimeError, ValueError):  # unreadable, no home folder, or no path at all
        return False
