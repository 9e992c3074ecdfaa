"""Folders of training runs: one for each, claimed, locked, and found again."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from deepscm_pl.escaping import TableWriter
from deepscm_pl.files import clear_leftovers, is_disk_full, names_full_disk, new_file

__all__ = [
    "OneCheckpoint",
    "Predictions",
    "RunLock",
    "RunLogger",
    "checkpoint_folders",
    "end_with_parent",
    "quiet_log_threads",
    "write_quantities",
]

_T = TypeVar("_T")

_LOGS = "lightning_logs"
_LOCK = ".lock"

_BLOCK = 2**20
"""Bytes of a file that are read at a time."""


class RunLogger(TensorBoardLogger):
    """TensorBoard in a folder of its own, ``version_0``, ``version_1`` and so on.

    The folder is made when its number is first asked for. Of several runs that start at once in
    one place each gets another number, where Lightning's own logger may give them the same.

    Args:
        save_dir: Where the folder ``lightning_logs`` is.
        name: Of the folder of runs.
        version: Of a run that goes on; None for a new one.
        purge_step: The first step of what is logged now. Points of later steps that a killed
            process has logged are not shown.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = _LOGS,
        version: str | None = None,
        purge_step: int | None = None,
    ) -> None:
        settings: dict[str, Any] = {} if purge_step is None else {"purge_step": purge_step}
        super().__init__(save_dir, name, version, default_hp_metric=False, **settings)
        self._claimed: Path | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write numbers.

        Raises:
            DiskFullError: If the disk is full.
        """
        with self._names_full_disk():
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Write what is not written yet.

        Raises:
            DiskFullError: If the disk is full.
        """
        with self._names_full_disk():
            super().save()

    def finalize(self, status: str) -> None:
        """End the file of numbers.

        Raises:
            DiskFullError: If the disk is full.
        """
        with self._names_full_disk():
            super().finalize(status)

    def _names_full_disk(self) -> AbstractContextManager[None]:
        kept = "the checkpoints are as they were, and --ckpt_path last goes on from them"
        return names_full_disk(Path(self.root_dir) / f"version_{self._version}", kept)

    def discard(self) -> None:
        """Remove the folder if this run has made it: a training that was refused leaves none."""
        if self._claimed is not None:
            self.finalize("failed")
            shutil.rmtree(self._claimed, ignore_errors=True)
            with suppress(OSError):  # others have runs there
                self._claimed.parent.rmdir()

    @property
    def version(self) -> int | str:
        """The number of the run, or its name."""
        if self._version is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._version = _claim(Path(self.root_dir), super()._get_next_version())
            self._claimed = Path(self.root_dir) / f"version_{self._version}"
        return super().version


def _claim(folder: Path, first: int) -> int:
    """Make the folder of the first number that no one else has taken."""
    with _that_can_be_written(folder):
        return _first_free(folder, first)


@contextmanager
def _that_can_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"trainer.default_root_dir: {folder} cannot be written ({error.strerror}); name a "
            "folder that you may write and that has space."
        ) from None


def _first_free(folder: Path, first: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    number = first
    while True:
        try:
            (folder / f"version_{number}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return number


@contextmanager
def quiet_log_threads() -> Iterator[None]:
    """Prints nothing where a thread that writes logs fails: the logger raises the same error."""
    previous = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not is_disk_full(arguments.exc_value):
            previous(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


class RunLock(pl.Callback):
    """Keeps two trainings from writing to the folder of one run.

    The lock is the process's own: it is gone when the process is, however it ended. Its file, and
    whatever else a killed process left half-written, is removed by the training that resumes.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._path: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the lock.

        Raises:
            ValueError: If another process has it.
        """
        folder = trainer.log_dir  # asks every process
        if stage != "fit" or folder is None or not trainer.is_global_zero or self._file is not None:
            return
        path = Path(folder)
        with _that_can_be_written(path):
            path.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path / _LOCK)
        if not _lock(self._file) or os.fstat(self._file.fileno()).st_nlink == 0:
            self._file.close()
            self._file = None
            raise ValueError(
                f"another training is writing to {path}; wait for its end, or start one of your "
                "own without --ckpt_path last or in another --trainer.default_root_dir."
            )
        self._path = path / _LOCK
        clear_leftovers(path / "checkpoints")
        if isinstance(trainer.logger, RunLogger):  # others may share the folder with anything
            clear_leftovers(path)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the lock back after a training."""
        if stage == "fit":
            self.release()

    def release(self) -> None:
        """Give the lock back, if it is held, and remove its file."""
        if self._path is not None:  # first: whoever finds it afterwards would lock another
            self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
        self._file = self._path = None

    def __getstate__(self) -> dict[str, object]:
        """Without the lock, which is no one else's."""
        return {"_file": None, "_path": None}


def _opened(path: Path) -> IO[str]:
    """Open a lock file without following a link: the folder may be a stranger's.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it is a link.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which no lock of this program is; remove it.")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+")


def _lock(file: IO[str]) -> bool:
    if os.name != "posix":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class OneCheckpoint(pl.Callback):
    """Stops processes that would go on from different checkpoints.

    Each looks for the last one itself: on file systems of their own they would find others, or
    none, and train what starts from different weights as if it were one model.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the contents of the files, when the processes can talk to one another.

        Raises:
            ValueError: On every process, naming the first one whose file differs.
        """
        path = trainer.ckpt_path
        own = (_digest(path), None if path is None else str(path))
        found = _of_every_process(own)
        for process, (digest, other) in enumerate(found):
            if digest != found[0][0]:
                raise ValueError(
                    f"ckpt_path: expected one checkpoint for all processes, but process 0 goes on "
                    f"from {found[0][1]} and process {process} from {other}, which is another; "
                    "keep --trainer.default_root_dir where every machine sees the same files."
                )


def _digest(path: str | Path | None) -> str:
    """The SHA-256 of a file; nothing of none."""
    if path is None or not Path(path).is_file():
        return ""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _of_every_process(value: _T) -> list[_T]:
    """What each process has, the first one's first."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def checkpoint_folders(root: Path, given: str | None = None) -> Iterator[Path]:
    """Where trainings with the root folder ``root`` keep checkpoints, the newest run last.

    Args:
        root: ``trainer.default_root_dir``.
        given: ``checkpoint.dirpath``, instead.
    """
    if given is not None:
        yield Path(given)
        return
    yield root
    yield root / "checkpoints"
    yield from sorted((root / _LOGS).glob("version_*/checkpoints"), key=_run_number)


def _run_number(folder: Path) -> tuple[int, str]:
    """Sorts runs in the order in which they were begun."""
    name = folder.parent.name
    number = name.removeprefix("version_")
    return (int(number) if number.isdecimal() else -1, name)


def end_with_parent(seconds: float = 5.0) -> None:
    """End this process soon after the one that has started it, even in mid-communication.

    Processes on graphics cards wait for one another for half an hour: where the first one is
    killed, those that it has started would keep their cards that long.

    Args:
        seconds: Between looks at whether the parent is there.
    """
    if os.name == "posix":
        arguments = (os.getppid(), seconds)
        threading.Thread(target=_watch_parent, args=arguments, daemon=True).start()


def _watch_parent(parent: int, seconds: float) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


class Predictions(BasePredictionWriter):
    """Keeps what is predicted, by the number of its row in the data set."""

    def __init__(self) -> None:
        super().__init__("epoch")
        self._of_rows: dict[int, dict[str, Any]] = {}

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Keep the predictions of this process.

        Raises:
            ValueError: If there are several processes and rows have no numbers.
        """
        values = [row for batch in predictions for row in _rows_of(batch)]
        rows = [row for batches in batch_indices for batch in batches for row in batch]
        if len(rows) < len(values) and trainer.world_size > 1:
            raise ValueError(
                "data: rows of several processes are put in order by their numbers, but the loader "
                "of predict_dataloader gives none, as those of iterable data sets; predict with "
                "--trainer.devices 1."
            )
        self._of_rows = dict(zip(rows or range(len(values)), values, strict=True))

    def of_all_processes(self, trainer: pl.Trainer) -> dict[int, dict[str, Any]]:
        """For each row the quantities by name, in the order of the data set, on the first process.

        Call it on every process; the others get nothing.
        """
        found = self._of_rows
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            distributed.gather_object(found, shares if trainer.is_global_zero else None)
            found = {row: values for share in shares if share for row, values in share.items()}
        return {row: found[row] for row in sorted(found)}


def _rows_of(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The quantities of each row of a batch."""
    columns = [values.tolist() for values in batch.values()]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch, values, strict=True))


def write_quantities(path: Path, rows: dict[int, dict[str, Any]]) -> None:
    """Write a table with a line per row, and make its folder.

    Args:
        path: The ``.csv`` file.
        rows: For each row the quantities by name.
    """
    names = list(next(iter(rows.values()), {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = TableWriter(file)
        writer.writerow(["row", *names])
        writer.writerows([row, *(found[name] for name in names)] for row, found in rows.items())
