"""Folders and processes of training runs, and the tables that they write."""

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
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from deepscm_pl.escaping import TableWriter, for_terminal
from deepscm_pl.files import clear_leftovers, is_disk_full, names_full_disk, new_file
from deepscm_pl.runs.tags import GroupedLogger

__all__ = [
    "OneCheckpoint",
    "Predictions",
    "RunLock",
    "RunLogger",
    "checkpoint_folders",
    "end_with_parent",
    "quiet_log_threads",
]

_T = TypeVar("_T")

_LOGS = "lightning_logs"


class RunLogger(GroupedLogger):
    """TensorBoard with curves in groups, in folders ``version_0``, ``version_1`` and so on.

    The folder is made when its number is first asked for. Runs that start at once in one place get
    different numbers, whereas Lightning's own logger may give them the same one.

    Args:
        save_dir: The folder of ``lightning_logs``.
        name: The name of the folder of runs.
        version: The name of a run that is resumed; None for a new one.
        purge_step: The first step that is logged now. Points of later steps that a killed process
            has logged are not shown.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = _LOGS,
        version: str | None = None,
        purge_step: int | None = None,
    ) -> None:
        super().__init__(save_dir, name, version, purge_step)
        self._claimed: Path | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write numbers; a full disk raises :class:`~deepscm_pl.files.DiskFullError`."""
        with self._naming_full_disk():
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Write what is not written yet; raise errors as :meth:`log_metrics` does."""
        with self._naming_full_disk():
            super().save()

    def finalize(self, status: str) -> None:
        """End the file of numbers; raise errors as :meth:`log_metrics` does."""
        with self._naming_full_disk():
            super().finalize(status)

    def _naming_full_disk(self) -> AbstractContextManager[None]:
        saved = "the checkpoints are unchanged, and --ckpt_path last resumes from them"
        return names_full_disk(Path(self.root_dir) / f"version_{self._version}", saved)

    def discard(self) -> None:
        """Remove the folder of a training that was refused, if this run has made it."""
        if self._claimed is not None:
            self.finalize("failed")
            shutil.rmtree(self._claimed, ignore_errors=True)
            with suppress(OSError):  # the folder has other runs
                self._claimed.parent.rmdir()

    @property
    def version(self) -> int | str:
        """The number of the run, or its name."""
        if self._version is None and getattr(rank_zero_only, "rank", 0) == 0:
            root = Path(self.root_dir)
            with _naming_unwritable(root):
                root.mkdir(parents=True, exist_ok=True)
                number = super()._get_next_version()
                while self._claimed is None:
                    with suppress(FileExistsError):
                        (root / f"version_{number}").mkdir()
                        self._claimed = root / f"version_{number}"
                        self._version = number
                    number += 1
        return super().version


@contextmanager
def _naming_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"trainer.default_root_dir: {folder} cannot be written ({error.strerror}); name a "
            "folder that you may write and that has space."
        ) from None


@contextmanager
def quiet_log_threads() -> Iterator[None]:
    """Print nothing if a thread that writes logs fails: the logger raises the same error."""
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

    The lock ends with its process, however that ends. A training that resumes the run removes the
    file of the lock, and other files that a killed process left incomplete.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._path: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the lock, or raise ValueError if another process has it."""
        folder = trainer.log_dir  # a collective operation
        if stage != "fit" or folder is None or not trainer.is_global_zero or self._file is not None:
            return
        path = Path(folder) / ".lock"
        with _naming_unwritable(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _open_lock(path)
        if not _take_lock(file) or os.fstat(file.fileno()).st_nlink == 0:
            file.close()
            raise ValueError(
                f"another training is writing to {folder}; wait for its end, or start one of your "
                "own without --ckpt_path last or in another --trainer.default_root_dir."
            )
        self._file, self._path = file, path
        clear_leftovers(path.parent / "checkpoints")
        if isinstance(trainer.logger, RunLogger):  # other loggers may share their folder
            clear_leftovers(path.parent)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Release the lock after a training."""
        if stage == "fit":
            self.release()

    def release(self) -> None:
        """Release the lock, if it is held, and remove its file."""
        if self._path is not None:  # first, so that nobody locks a file that is removed later
            self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
        self._file = self._path = None

    def __getstate__(self) -> dict[str, object]:
        """Return the state without the lock, which belongs to this process."""
        return {"_file": None, "_path": None}


def _open_lock(path: Path) -> IO[str]:
    """Open a lock file without following a link, because others may write to the folder."""
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which no lock of this program is; remove it.")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+")


def _take_lock(file: IO[str]) -> bool:
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return True


class OneCheckpoint(pl.Callback):
    """Stops processes that would resume from different checkpoints.

    Each looks for the last one itself: on file systems of their own they would find others, or
    none, and train different weights as one model.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise ValueError on every process if the contents of their files differ."""
        path = trainer.ckpt_path
        found = _gather((_digest(path), None if path is None else str(path)))
        for process, (digest, other) in enumerate(found):
            if digest != found[0][0]:
                raise ValueError(
                    f"ckpt_path: expected one checkpoint for all processes, but process 0 resumes "
                    f"from {found[0][1]} and process {process} from {other}, which is another; "
                    "keep --trainer.default_root_dir where every machine sees the same files."
                )


def _digest(path: str | Path | None) -> str:
    """The SHA-256 of a file; an empty text if there is none."""
    if path is None or not Path(path).is_file():
        return ""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _gather(value: _T) -> list[_T]:
    """The values of all processes in the order of their ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def checkpoint_folders(root: Path, given: str | None = None) -> Iterator[Path]:
    """Yield the folders in which trainings keep checkpoints, that of the newest run last.

    Args:
        root: ``trainer.default_root_dir``.
        given: ``checkpoint.dirpath``, which replaces all of them.
    """
    if given is not None:
        yield Path(given)
        return
    yield from (root, root / "checkpoints")
    yield from sorted((root / _LOGS).glob("version_*/checkpoints"), key=_run_number)


def _run_number(folder: Path) -> tuple[int, str]:
    name = folder.parent.name
    number = name.removeprefix("version_")
    return (int(number) if number.isdecimal() else -1, name)


def end_with_parent(seconds: float = 5.0) -> None:
    """End this process soon after its parent, even during communication.

    Processes on graphics cards wait for one another for half an hour: if the first one is killed,
    those that it has started would keep their cards that long.

    Args:
        seconds: Time between checks whether the parent exists.
    """
    if os.name == "posix":
        arguments = (os.getppid(), seconds)
        threading.Thread(target=_watch_parent, args=arguments, daemon=True).start()


def _watch_parent(parent: int, seconds: float) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


class Predictions(BasePredictionWriter):
    """Gathers predictions by the number of their row in the data set."""

    def __init__(self) -> None:
        super().__init__("epoch")
        self._rows: dict[int, dict[str, Any]] = {}

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Keep the predictions of this process; raise ValueError if rows cannot be ordered."""
        values = [
            dict(zip(batch, row, strict=True))
            for batch in predictions
            for row in zip(*(column.tolist() for column in batch.values()), strict=True)
        ]
        rows = [row for batches in batch_indices for batch in batches for row in batch]
        if len(rows) < len(values) and trainer.world_size > 1:
            raise ValueError(
                "data: rows of several processes are put in order by their numbers, but the loader "
                "of predict_dataloader gives none, as those of iterable data sets; predict with "
                "--trainer.devices 1."
            )
        self._rows = dict(zip(rows or range(len(values)), values, strict=True))

    def write(self, trainer: pl.Trainer, path: Path) -> None:
        """Write the quantities of the rows of all processes as a ``.csv`` file.

        It is a collective operation; the first process writes, in the order of the data set.
        """
        rows = self._rows
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            distributed.gather_object(rows, shares if trainer.is_global_zero else None)
            rows = {row: values for share in shares if share for row, values in share.items()}
        if not trainer.is_global_zero:
            return
        names = list(next(iter(rows.values()), {}))
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = TableWriter(file)
            writer.writerow(["row", *names])
            writer.writerows([row, *(rows[row][name] for name in names)] for row in sorted(rows))
        print(f"written: {for_terminal(path)}")
