"""Loaders that share rows among processes exactly, and go on where they were interrupted."""

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
    """The seed of the run, by Lightning's ``seed_everything``; 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class EpochSampler(DistributedSampler[int]):
    """Rows in an order that follows from the seed and the epoch, shared among the processes.

    Process r of R takes every R-th row, from the r-th. So the k-th batches of size B of all
    processes are together the k-th batch of size R·B of one process. Where R does not divide the
    rows, the first ones of the order are taken once more at the end, so that all processes have as
    many.

    Args:
        dataset: What the rows are of.
        seed: Of the order.

    Attributes:
        start: How many rows of this process are left out when the epoch is begun.

    Example:
        >>> sampler = EpochSampler([10, 11, 12, 13])
        >>> first = list(sampler)
        >>> sampler.start = 3
        >>> list(sampler) == first[3:]
        True
        >>> sampler.set_epoch(1)  # a new one, from its beginning
        >>> len(list(sampler))
        4
    """

    def __init__(self, dataset: Dataset[Any] | list[Any], seed: int = 0) -> None:
        processes, process = _processes()
        super().__init__(dataset, processes, process, shuffle=True, seed=seed)  # type: ignore[arg-type]
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        """The rows that are left of the epoch."""
        # A generator: the epoch may still be set between a call of ``iter`` and the first row.
        yield from self._order()[self.rank : self.total_size : self.num_replicas][self.start :]

    def _order(self) -> list[int]:
        """The rows of all processes, with the first ones once more where they are too few."""
        # Torch adds seed and epoch: then runs of neighbouring seeds would share their orders.
        entropy = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0]))
        order = torch.randperm(len(self.dataset), generator=generator).tolist()  # type: ignore[arg-type]
        return order * -(-self.total_size // max(len(order), 1))

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch; the present one goes on."""
        if epoch != self.epoch:
            self.start = 0
        super().set_epoch(epoch)


class ShardSampler(DistributedSampler[int]):
    """The rows of one process among several, in order, none of them twice.

    Process r of R takes every R-th block of rows, from the r-th; some processes may have more rows
    than others. For evaluation, where a row that counts twice would change a mean.

    Args:
        dataset: What the rows are of.
        block: Rows that stay together. By default the rows are shared as evenly as can be; blocks
            of the size of a batch make the batches of all processes those of one.

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
        """The rows of this process."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)


class ResumableLoader(DataLoader[dict[str, Tensor]]):
    """Batches of an :class:`EpochSampler`, which know how far they have come.

    Lightning keeps :meth:`state_dict` in every checkpoint and gives it back when a training goes
    on, so that an epoch that was interrupted goes on with the batch after the last one.

    Args:
        dataset: Gathers a batch at a time.
        sampler: The order of the rows; another kind (Lightning's ``overfit_batches`` gives one,
            by this name) begins anew each time.
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
        super().__init__(dataset, sampler=sampler, **settings)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        """The batches that are left of the epoch."""
        self._handed_out = 0
        return self._counted(super().__iter__())

    def _counted(self, batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        for batch in batches:
            self._handed_out += 1
            yield batch
        # Whoever asks again without a word of epochs gets another order.
        if isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self.sampler.epoch + 1)
        self._handed_out = 0

    def state_dict(self) -> dict[str, int]:
        """The seed, the epoch and the number of its batches that were handed out."""
        if not isinstance(self.sampler, EpochSampler):
            return {}
        batches = self.sampler.start // self.batch_size + self._handed_out
        ended = batches >= len(self)
        return {
            "seed": self.sampler.seed,
            "epoch": self.sampler.epoch + ended,
            "batches": 0 if ended else batches,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches of a state; the next call of ``iter`` does.

        Args:
            state: What :meth:`state_dict` gave.
        """
        if state and isinstance(self.sampler, EpochSampler):
            self.sampler.seed = state["seed"]
            self.sampler.set_epoch(state["epoch"])
            self.sampler.start = state["batches"] * self.batch_size


def _processes() -> tuple[int, int]:
    """How many there are, and which one this is."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0
