"""Atomic writing: a file or folder appears under its name when it is complete, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "DiskFullError",
    "clear_leftovers",
    "exit_on_termination",
    "flush_to_disk",
    "is_disk_full",
    "names_full_disk",
    "new_file",
    "new_folder",
    "replaced_folder",
]

_FILE = re.compile(r"\..+\.\d+\.partial")
_FOLDER = re.compile(r"\..+\.[0-9a-f]{16}\.partial")
_PREVIOUS = re.compile(r"\.(.+)\.previous")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers: no space left, quota exceeded, and file too large."""


class DiskFullError(OSError):
    """The disk is full; the message names the file or folder and what is still intact."""

    def __str__(self) -> str:
        return str(self.strerror)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, means that the disk or a quota is full."""
    return _full_number(error) is not None


def _full_number(error: BaseException | None) -> int | None:
    """The errno of a full disk among an error and its causes; None if there is none."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.errno
    # NumPy reports only the number of written bytes, and torch wraps the error of the disk.
    if isinstance(error, OSError) and error.errno is None and "requested and" in str(error):
        return errno.ENOSPC
    return _full_number(error.__cause__ or error.__context__)


@contextmanager
def names_full_disk(path: Path, kept: str) -> Iterator[None]:
    """Turn the error of a full disk into one line that names the file.

    Args:
        path: The file or folder that the block writes.
        kept: A clause about the data that are still intact, for the message.

    Raises:
        DiskFullError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = _full_number(error)
        if number is None:
            raise
        raise DiskFullError(
            number,
            f"{path} could not be written ({os.strerror(number)}); {kept}. Make room, or write to "
            "another disk.",
        ) from error


@contextmanager
def exit_on_termination() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that incomplete files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk, and so survives a power failure."""
    with path.open("r+b") as file:  # some systems flush only writable files
        os.fsync(file.fileno())


def clear_leftovers(folder: Path) -> None:
    """Remove the incomplete files of killed processes from a folder.

    Only temporary files and folders of this module are removed. An interrupted replacement of a
    folder is undone. Symbolic links are neither removed nor followed, and subfolders are not
    searched.

    Args:
        folder: A folder to which no other process writes. A missing folder or a symbolic link is
            ignored.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in [each for each in folder.iterdir() if not each.is_symlink()]:
        moved = _PREVIOUS.fullmatch(path.name)
        if path.is_file() and _FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
        elif path.is_dir() and _FOLDER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and moved is not None:
            _restore(folder / moved[1], path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, which is renamed to ``path`` if the block succeeds.

    Readers of ``path`` get the previous content or the new one, never a part, even after a power
    failure. If the block raises, ``path`` is unchanged and the temporary file is removed. The
    permissions are 0666 less the umask, even if the block changes them. The folder must exist.

    Raises:
        DiskFullError: If the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with names_full_disk(path, "the previous content is intact"):
            temporary.unlink(missing_ok=True)  # left by a killed process with the same ID
            temporary.touch(exist_ok=False)
            permissions = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != permissions:
                temporary.chmod(permissions)
            flush_to_disk(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, which is renamed to ``path`` if the block succeeds.

    If the block raises anything, :class:`KeyboardInterrupt` included, the temporary folder is
    removed and ``path`` is unchanged.

    Args:
        path: The folder to make. It may exist if it is empty, and its parents need not exist.

    Raises:
        ValueError: If ``path`` is a file, a folder that is not empty, or cannot be written.
        DiskFullError: If the disk is full.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"{path} exists and is not an empty folder; remove it or name another folder."
            )
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = _make_temporary_folder(path)
    try:
        with names_full_disk(path, "nothing was written there"):
            yield temporary
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``, which replaces ``path`` if the block succeeds.

    The previous folder is moved aside when the new one is complete, and then removed. If the block
    raises anything, :class:`KeyboardInterrupt` included, ``path`` is unchanged. Incomplete folders
    of killed processes are removed first.

    Args:
        path: The folder to make or to replace; its parents need not exist.

    Raises:
        ValueError: If ``path`` is a file or cannot be written.
        DiskFullError: If the disk is full.
    """
    previous = path.with_name(f".{path.name}.previous")
    _restore(path, previous)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is not a folder; remove it or name another.")
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = _make_temporary_folder(path)
    try:
        with names_full_disk(path, "the previous content is intact"):
            yield temporary
            if path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
    finally:
        _restore(path, previous)
        shutil.rmtree(temporary, ignore_errors=True)


def _restore(path: Path, previous: Path) -> None:
    """Undo an interrupted replacement: move the previous folder back if the new one is missing."""
    if previous.exists() and not path.exists():
        os.replace(previous, path)
    shutil.rmtree(previous, ignore_errors=True)


def _make_temporary_folder(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not os.access(path, os.W_OK):
            raise PermissionError(f"no permission to write {path}")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
        temporary.mkdir()  # with the permissions of any new folder
        return temporary
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(f"{path} cannot be written ({error}); name a folder to which you can write.")
