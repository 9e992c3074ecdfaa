"""Laws of the loaders: rows are shared exactly, and an epoch goes on where it was left."""

from __future__ import annotations

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.data import InMemoryDataset, loading
from deepscm_pl.data.loading import EpochSampler, ResumableLoader, ShardSampler
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.training import DeepSCM

from tiny import TinyDataModule


def rows_of(size):
    return InMemoryDataset({"row": torch.arange(size)[:, None]})


def as_process(monkeypatch, process, processes, make, *arguments):
    """What one process among several makes."""
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_processes", lambda: (processes, process))
        return make(*arguments)


def batch_of(rows):
    return rows


def load(dataset, sampler=None, batch=4, **settings):
    sampler = EpochSampler(dataset, seed=7) if sampler is None else sampler
    return ResumableLoader(
        dataset, sampler=sampler, batch_size=batch, collate_fn=batch_of, **settings
    )


def numbers(batches):
    return [batch["row"].flatten().tolist() for batch in batches]


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize(("processes", "batch", "size"), [(2, 4, 30), (3, 2, 24), (4, 1, 12)])
def test_batches_of_processes_are_together_the_batch_of_one(
    monkeypatch, processes, batch, size, epoch
):
    dataset = rows_of(size)

    def epoch_of(process, count, per_process):
        sampler = as_process(monkeypatch, process, count, EpochSampler, dataset, 7)
        sampler.set_epoch(epoch)
        return numbers(load(dataset, sampler, per_process))

    shares = [epoch_of(process, processes, batch) for process in range(processes)]
    whole = epoch_of(0, 1, processes * batch)
    together = [
        sorted(row for part in parts for row in part) for parts in zip(*shares, strict=True)
    ]
    assert together == [sorted(rows) for rows in whole]


@pytest.mark.parametrize("size", [1, 7, 12, 13])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_every_row_is_in_an_epoch_once_but_for_padding(monkeypatch, size, processes):
    dataset = rows_of(size)
    samplers = [
        as_process(monkeypatch, process, processes, EpochSampler, dataset)
        for process in range(processes)
    ]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {-(-size // processes)}
    counts = Counter(row for share in shares for row in share)
    assert counts.keys() == set(range(size))
    if size >= processes:
        padding = -size % processes
        assert sorted(counts.values()) == [1] * (size - padding) + [2] * padding


@pytest.mark.parametrize("size", [0, 1, 7, 12, 13])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_evaluated_rows_are_shared_without_padding(monkeypatch, size, processes):
    samplers = [
        as_process(monkeypatch, process, processes, ShardSampler, [None] * size)
        for process in range(processes)
    ]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    assert sorted(row for share in shares for row in share) == list(range(size))
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_after_any_batch(workers, drop_last):
    dataset = rows_of(14)
    settings = {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "drop_last": drop_last,
    }
    whole = load(dataset, **settings)
    epochs = [numbers(whole), numbers(whole)]
    assert len(epochs[0]) == len(whole) == (3 if drop_last else 4)
    order = [rows for epoch in epochs for rows in epoch]
    interrupted = load(dataset, **settings)
    again = load(dataset, **settings)
    for done, _ in enumerate(interrupted, 1):
        again.load_state_dict(interrupted.state_dict())
        found = numbers(again)
        if done < len(whole):
            found += numbers(again)  # the next epoch, from its beginning
        assert found == order[done:], done


def test_an_epoch_is_interrupted_twice():
    dataset = rows_of(14)
    order = numbers(load(dataset))
    first, second, third = (load(dataset) for _ in range(3))
    batches = iter(first)
    next(batches)
    second.load_state_dict(first.state_dict())
    batches = iter(second)
    next(batches)
    assert second.state_dict() == {"seed": 7, "epoch": 0, "batches": 2}
    third.load_state_dict(second.state_dict())
    assert numbers(third) == order[2:]


def test_the_state_of_an_epoch_that_has_ended_is_the_beginning_of_the_next():
    loader = load(rows_of(8))
    assert loader.state_dict() == {"seed": 7, "epoch": 0, "batches": 0}
    batches = iter(loader)
    next(batches)
    next(batches)  # the last one: the epoch has ended, whether or not anyone asks for more
    ended = {"seed": 7, "epoch": 1, "batches": 0}
    assert loader.state_dict() == ended
    assert list(batches) == []
    assert loader.state_dict() == ended


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        sampler = EpochSampler([None] * 20, seed)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert order(2, 1) == order(2, 1)


def test_a_state_brings_the_seed_of_its_run():
    dataset = rows_of(12)
    other = load(dataset, EpochSampler(dataset, seed=8))
    loader = load(dataset)
    expected = numbers(load(dataset))
    other.load_state_dict(loader.state_dict())
    assert numbers(other) == expected


class SeenRows(pl.Callback):
    """Remembers the rows of every training batch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs[-1].append(batch["index"].flatten().tolist())


def test_overfitting_a_few_batches_takes_the_same_ones_in_every_epoch(tmp_path):
    seen = SeenRows()
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=3,
        overfit_batches=2,
        callbacks=[seen],
    )
    model = DeepSCM("thickness", {"thickness": AffineFlow})
    data = TinyDataModule()
    trainer.fit(model, datamodule=data)
    first = data.variables("train")["index"].flatten().tolist()[:32]
    assert seen.epochs == [[first[:16], first[16:]]] * 3
