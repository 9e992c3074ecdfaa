"""The cache of preprocessed images."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.checks import process_count, real_number
from deepscm_pl.data.cohort import Source
from deepscm_pl.data.images import HEADER_BYTES, is_in_colour
from deepscm_pl.data.parallel import stream_rows
from deepscm_pl.data.scans.preprocessing import Colour, PreparedScan, Preprocessing, Slicing
from deepscm_pl.files import flush_to_disk, new_folder

__all__ = ["Cache", "PreparedImages", "cached_images", "holds_caches"]

_PATTERNS = ("scans-*", "shapes-*-ubyte.gz", "digits-*.pt")


def holds_caches(folder: Path) -> bool:
    """Whether a folder, which need not exist, contains caches of this program.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "digits-1.pt").touch()
        >>> holds_caches(folder)
        True
    """
    try:
        return any(any(folder.expanduser().glob(pattern)) for pattern in _PATTERNS)
    except (OSError, RuntimeError, ValueError):  # unreadable, no home folder, or not a path
        return False


_CACHE_VERSION = 4
"""Version of the preprocessing; cached images of other versions are not reused."""

_IMAGES, _AFFINES, _HEADERS = "images.npy", "affines.npy", "headers.npy"
_NOTES, _LOCK = "notes.json", "lock"

_PARALLEL_BYTES = 64 * 2**20
"""Total bytes of files above which several processes are faster, their start included."""

_SMALL_FILE = 128 * 2**10
"""Mean bytes of a file below which a worker processes several at a time."""

_LOOKED_AT = 256
"""Files that are looked at to find out whether images are in colour, at most."""

_NAMED = 3
"""Files that a summary of notes names."""

_MOST_INVALID = 10
"""Number of invalid files after which preprocessing stops."""


@dataclass(frozen=True)
class PreparedImages:
    """Preprocessed images, K for each source.

    Attributes:
        images: ``(N K, C, *sizes)`` uint8, C of 1 or 3.
        affines: ``(N K, 4, 4)``; NaN if unknown, in the last column if only the place is.
        headers: ``(N K, 348)`` uint8, NIfTI headers; zero if there is none.
        per_source: K.
        notes: What had to be decided about files, with their names.
    """

    images: Tensor
    affines: NDArray[np.float64]
    headers: NDArray[np.uint8]
    per_source: int
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def summary(self) -> list[str]:
        """A line for each kind of decision, with the number of files and the first of them.

        Example:
            >>> notes = {"its qform is broken; its sform is used": ["a.nii", "b.nii"]}
            >>> PreparedImages(torch.zeros(5), np.eye(4), np.zeros(1), 1, notes).summary()
            ['2 of 5 images (a.nii, b.nii): its qform is broken; its sform is used']
        """
        total = len(self.images) // self.per_source
        lines = []
        for note, names in self.notes.items():
            more = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more"
            shown = ", ".join(names[:_NAMED])
            lines.append(f"{len(names)} of {total} images ({shown}{more}): {note}")
        return lines


@dataclass(frozen=True)
class Cache:
    """The cache of preprocessed images.

    Args:
        folder: Folder, created if necessary; None for ``~/.cache/deepscm_pl``.
        workers: Processes for preprocessing; None for one per processor if there is much to read.
        memory: Total size up to which images are held in memory, in GiB per training process; if
            they are larger, they are mapped from the file, and only the rows of a batch are read.
        progress: Whether preprocessing shows a progress bar.

    Raises:
        ValueError: If a number is out of range.
    """

    folder: str | Path | None = None
    workers: int | None = None
    memory: float = 4.0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.workers is not None:
            process_count("workers", self.workers)
        real_number("memory", self.memory, least=0, hint="give GiB")
        folder = Path(self.folder or "~/.cache/deepscm_pl").expanduser().absolute()
        object.__setattr__(self, "folder", folder)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder or "")


def cached_images(
    sources: Sequence[Source], preprocessing: Preprocessing, slicing: Slicing, cache: Cache
) -> PreparedImages:
    """Preprocess images unless the cache contains them.

    A cache is named by a hash of the settings and of the names, sizes and modification times of the
    files, and appears when it is complete. If several processes prepare it, all use the first
    complete one.
    Incomplete caches of killed processes are removed.

    Args:
        sources: The N files.
        preprocessing: The steps from a file to an image.
        slicing: The division of volumes into slices.
        cache: The cache.

    Raises:
        ValueError: If a file cannot be preprocessed, images have different shapes, or the folder
            cannot be written.
    """
    folder = cache.path / _name(sources, preprocessing, slicing)
    stale = folder.exists()  # checked first, because another process may complete it meanwhile
    found = _open_cache(folder, len(sources), cache.memory)
    if found is not None:
        return found
    if stale:
        shutil.rmtree(folder, ignore_errors=True)
    _make_room(cache.path)
    try:
        with new_folder(folder) as temporary, _locked(temporary):
            decided = replace(preprocessing, colour=_colour(preprocessing.colour, sources))
            _write_all(temporary, sources, partial(decided, slicing=slicing), cache)
    except (OSError, ValueError) as error:
        # Another process may have completed the cache first.
        found = _open_cache(folder, len(sources), cache.memory)
        if found is None and isinstance(error, OSError):
            raise _not_writable(cache.path, error) from error
        if found is None:
            raise
        return found
    found = _open_cache(folder, len(sources), cache.memory)
    if found is None:
        raise ValueError(f"cache.folder: {folder} was changed while it was written; try again.")
    return found


_Prepare = Callable[[Path], PreparedScan]


def _colour(asked: Colour, sources: Sequence[Source]) -> Colour:
    """The channels of images whose files decide them: three if one of the files is in colour."""
    if asked != "auto":
        return asked
    some = sources[:: -(-len(sources) // _LOOKED_AT)]
    return "rgb" if any(is_in_colour(source.path) for source in some) else "grey"


def _name(sources: Sequence[Source], preprocessing: Preprocessing, slicing: Slicing) -> str:
    stamps = [[source.name, source.size, source.modified] for source in sources]
    described = json.dumps(
        [_CACHE_VERSION, {**asdict(preprocessing), **asdict(slicing)}, stamps], sort_keys=True
    )
    return f"scans-{hashlib.sha256(described.encode()).hexdigest()[:32]}"


def _open_cache(folder: Path, sources: int, memory: float) -> PreparedImages | None:
    """The content of a cache; None if it is missing or broken."""
    # The images are preprocessed again if the cache is broken.
    with suppress(OSError, ValueError, EOFError):
        images = np.load(folder / _IMAGES, mmap_mode="r")
        affines, headers = np.load(folder / _AFFINES), np.load(folder / _HEADERS)
        notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
        if images.nbytes <= memory * 2**30:
            images = np.array(images)
        if len(images) == len(affines) == len(headers):
            return PreparedImages(_tensor(images), affines, headers, len(images) // sources, notes)
    return None


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    # The map is read-only, because a writable private one counts as used memory, and fails if it
    # exceeds the memory of the machine.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


def _make_room(cache_dir: Path) -> None:
    """Create the folder, and remove incomplete caches of killed processes."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(cache_dir, error) from error
    for leftover in cache_dir.glob(".scans-*.partial"):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder until it is complete, or the process ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    unlocked = folder / f".{_LOCK}"
    with unlocked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock = unlocked.rename(folder / _LOCK)  # so that the lock file is never unlocked
        yield
        lock.unlink()


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that wrote a folder has ended."""
    if sys.platform == "win32":
        return False
    import fcntl

    with suppress(OSError), (folder / _LOCK).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _write_all(folder: Path, sources: Sequence[Source], prepare: _Prepare, cache: Cache) -> None:
    first = _first_valid_images(sources, prepare)
    shape = (len(sources) * len(first), *first.shape[1:])
    path = folder / _IMAGES
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    writer = _ImageWriter(prepare, path, table.offset, first.shape, sources[0].path)
    del table
    total = sum(source.size for source in sources)
    several = cache.workers if cache.workers is not None else None if total > _PARALLEL_BYTES else 1
    chunk = 32 if total / len(sources) < _SMALL_FILE else 1
    paths = np.array([str(source.path) for source in sources])
    columns = [np.arange(len(sources)), paths]
    parts = stream_rows(writer, columns, several, cache.progress, "preparing", chunk)
    placed, wrong = [], []
    with closing(parts):
        for row in chain.from_iterable(parts):
            if isinstance(row, _InvalidFile):
                wrong.append(row)
            else:
                placed.append(row)
            if len(wrong) == _MOST_INVALID:
                break
    _refuse(wrong)
    np.save(folder / _AFFINES, np.concatenate([each.affines for each in placed]))
    headers = np.stack([_header_row(each.header) for each in placed])
    np.save(folder / _HEADERS, np.repeat(headers, len(first), axis=0))
    notes: dict[str, list[str]] = {}
    for source, each in zip(sources, placed, strict=True):
        for note in each.notes:
            notes.setdefault(note, []).append(source.name)
    (folder / _NOTES).write_text(json.dumps(notes, indent=2), encoding="utf-8")
    for name in (_IMAGES, _AFFINES, _HEADERS, _NOTES):
        flush_to_disk(folder / name)


@dataclass(frozen=True)
class _InvalidFile:
    """A file that cannot be preprocessed, and the reason."""

    path: str
    message: str


def _refuse(wrong: Sequence[_InvalidFile]) -> None:
    """Raise if files cannot be preprocessed: the reason of the first, and how many others."""
    if not wrong:
        return
    first, *others = wrong
    more = ""
    if others:
        least = "At least " if len(wrong) == _MOST_INVALID else ""
        names = ", ".join(Path(each.path).name for each in others)
        plural = "file has" if len(others) == 1 else "files have"
        more = f" {least}{len(others)} more {plural} problems: {names}."
    raise ValueError(first.message + more)


def _first_valid_images(sources: Sequence[Source], prepare: _Prepare) -> NDArray[np.uint8]:
    """The images of the first valid file, whose shape the others must have."""
    wrong = []
    for source in sources[:_MOST_INVALID]:
        try:
            return prepare(source.path).images
        except ValueError as error:
            wrong.append(_InvalidFile(str(source.path), str(error)))
    _refuse(wrong)
    raise AssertionError("there are sources")


@dataclass(frozen=True)
class _Written:
    """A file whose images are written."""

    affines: NDArray[np.float64]
    header: bytes | None
    notes: tuple[str, ...]


class _ImageWriter:
    """A function that preprocesses files and writes their images into the common file."""

    def __init__(
        self,
        prepare: _Prepare,
        images: Path,
        offset: int,
        shape: tuple[int, ...],
        example: Path,
    ) -> None:
        self.prepare = prepare
        self.images = images
        self.offset = offset
        self.shape = shape
        self.example = example

    def __call__(
        self, rows: NDArray[np.int64], paths: NDArray[np.str_]
    ) -> list[_Written | _InvalidFile]:
        """What is known about the images of each file beside their pixels, or its error."""
        placed: list[_Written | _InvalidFile] = []
        # Ordinary writes raise an error if the disk is full; a memory map crashes.
        with self.images.open("r+b") as file:
            for row, path in zip(rows.tolist(), paths.tolist(), strict=True):
                try:
                    prepared = self._prepare(Path(path))
                except ValueError as error:
                    placed.append(_InvalidFile(path, str(error)))
                    continue
                file.seek(self.offset + row * prepared.images.nbytes)
                file.write(prepared.images.tobytes())
                placed.append(_Written(prepared.affines, prepared.header, prepared.notes))
        return placed

    def _prepare(self, path: Path) -> PreparedScan:
        prepared = self.prepare(path)
        if prepared.images.shape != self.shape:
            raise ValueError(
                f"shape: expected images of one shape, but got {prepared.images.shape[2:]} from "
                f"{path} and {self.shape[2:]} from {self.example}; set shape to "
                "resample all of them."
            )
        return prepared


def _header_row(header: bytes | None) -> NDArray[np.uint8]:
    return np.frombuffer(header or bytes(HEADER_BYTES), dtype=np.uint8)


def _not_writable(folder: Path, error: OSError) -> ValueError:
    return ValueError(
        f"cache.folder: {folder} cannot be written ({error}); name a folder with free space to "
        "which you can write."
    )
