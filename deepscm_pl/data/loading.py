"""Data loaders that share rows among processes exactly and resume within an epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

__all__ = ["EpochSampler", "ResumableLoader", "ShardSampler", "data_seed"]


def data_seed() -> int:
    """The seed of the run, from Lightning's ``seed_everything``; 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class EpochSampler(DistributedSampler[int]):
    """Rows in an order given by the seed and the epoch, shared among the processes.

    Process r of R takes every R-th row from the r-th on, so that the k-th batches of size B of all
    processes form the k-th batch of size R·B of one process. If R does not divide the number of
    rows, the first rows of the order are repeated at the end.

    Args:
        dataset: Only its length is used.
        seed: Seed of the order.

    Attributes:
        start: Number of rows of the order that are skipped when the epoch begins; the processes
            share the remaining rows.

    Example:
        >>> sampler = EpochSampler([10, 11, 12, 13])
        >>> first = list(sampler)
        >>> sampler.start = 3
        >>> list(sampler) == first[3:]
        True
    """

    def __init__(self, dataset: Dataset[Any] | list[Any], seed: int = 0) -> None:
        processes, process = _processes()
        super().__init__(dataset, processes, process, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        # A generator, because the epoch may be set between the call of ``iter`` and the first row.
        end = self.start + self.left * self.num_replicas
        yield from self._order(end)[self.start + self.rank : end : self.num_replicas]

    @property
    def left(self) -> int:
        """Number of remaining rows of the epoch for each process."""
        rows = len(self.dataset) - self.start  # type: ignore[arg-type]
        return max(0, -(-rows // self.num_replicas))

    def _order(self, length: int) -> list[int]:
        """The rows of all processes, with repeated first rows if necessary."""
        # PyTorch adds seed and epoch: runs with neighbouring seeds would share their orders.
        entropy = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0]))
        order = torch.randperm(len(self.dataset), generator=generator).tolist()  # type: ignore[arg-type]
        return order * -(-length // max(len(order), 1))

    def set_epoch(self, epoch: int) -> None:
        """Start another epoch; the current one continues."""
        if epoch != self.epoch:
            self.start = 0
        super().set_epoch(epoch)


class ShardSampler(DistributedSampler[int]):
    """Rows of one process among several, in order, without repetitions; for evaluation.

    Process r of R takes every R-th block of rows from the r-th on.

    Args:
        dataset: Only its length is used.
        block: Rows that stay together; the batch size gives the batches of a single process.

    Example:
        >>> list(ShardSampler([10, 11, 12]))
        [0, 1, 2]
    """

    def __init__(self, dataset: Dataset[Any] | list[Any], block: int = 1) -> None:
        processes, process = _processes()
        super().__init__(dataset, processes, process, shuffle=False)  # type: ignore[arg-type]
        size: int = len(dataset)  # type: ignore[arg-type]
        starts = range(process * block, size, processes * block)
        self.rows = [row for start in starts for row in range(start, min(start + block, size))]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """Batches of an :class:`EpochSampler` whose position in the epoch is saved.

    Lightning saves :meth:`state_dict` in every checkpoint; a resumed training continues with the
    next row, with any batch size and number of processes.

    Args:
        dataset: Gathers a batch at a time.
        sampler: Order of the rows; other kinds, such as that of Lightning's ``overfit_batches``,
            restart in each epoch.
        settings: Further arguments of :class:`torch.utils.data.DataLoader`.

    Example:
        >>> import torch
        >>> from deepscm_pl.data import InMemoryDataset
        >>> rows = InMemoryDataset({"x": torch.arange(4.0)[:, None]})
        >>> def load():
        ...     sampler = EpochSampler(rows)
        ...     return ResumableLoader(rows, sampler=sampler, collate_fn=lambda batch: batch)
        >>> loader, again = load(), load()
        >>> batches = iter(loader)
        >>> _ = next(batches)
        >>> again.load_state_dict(loader.state_dict())
        >>> [batch["x"].item() for batch in again] == [batch["x"].item() for batch in batches]
        True
    """

    batch_size: int

    def __init__(
        self, dataset: Dataset[dict[str, Tensor]], *, sampler: Sampler[int], **settings: Any
    ) -> None:
        self._handed_out = 0
        self._epoch = -1  # of the batches that were handed out
        super().__init__(dataset, sampler=sampler, **settings)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        self._handed_out = 0
        return self._counted()

    def _counted(self) -> Iterator[dict[str, Tensor]]:
        # A generator, because the position may be set until the first batch.
        for batch in super().__iter__():
            self._handed_out += 1
            self._epoch = getattr(self.sampler, "epoch", -1)
            yield batch
        # Without a call of set_epoch, the next iteration has another order.
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self.sampler.epoch + 1)
        self._handed_out = 0

    @property
    def is_resumable(self) -> bool:
        """Whether the sampler has a position within an epoch."""
        return isinstance(self.sampler, EpochSampler)

    @property
    def batches_done(self) -> int:
        """Number of batches of the current size before the next call of ``iter``."""
        return len(self) - self._batches_left()

    def _batches_left(self) -> int:
        if not isinstance(self.sampler, EpochSampler):
            return len(self)
        rows = self.sampler.left
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """The seed, the epoch, and the number of its rows that all processes have received."""
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        # Lightning may name the next epoch some time before it begins.
        batches = self._handed_out if self._epoch == sampler.epoch else 0
        ended = batches >= self._batches_left()
        rows = sampler.start + batches * self.batch_size * sampler.num_replicas
        return {
            "seed": sampler.seed,
            "epoch": sampler.epoch + ended,
            "rows": 0 if ended else rows,
        }

    def state_after(self, epoch: int, batches: int) -> dict[str, int]:
        """The state after a number of batches of the current size.

        Args:
            epoch: Index of the epoch; the next one if all batches of an epoch are done.
            batches: Batches of the epoch on each process, including those before an interruption.
        """
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            return {}
        together = self.batch_size * sampler.num_replicas
        # Earlier batches may have had another size.
        first = sampler.start - self.batches_done * together if epoch == sampler.epoch else 0
        rows = first + batches * together if batches else 0
        return {"seed": sampler.seed, "epoch": epoch, "rows": rows}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the rows of a state at the next call of ``iter``.

        States of checkpoints of format 1 count batches of each process, which are assumed to be of
        the current size.
        """
        sampler = self.sampler
        if state and isinstance(sampler, EpochSampler):
            sampler.seed = state["seed"]
            sampler.set_epoch(state["epoch"])
            together = self.batch_size * sampler.num_replicas
            sampler.start = state["rows"] if "rows" in state else state["batches"] * together


def _processes() -> tuple[int, int]:
    """Number of processes and the rank of this one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0
