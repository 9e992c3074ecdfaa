"""Laws of the loaders: rows are shared exactly, and an epoch goes on where it was left."""

from __future__ import annotations

from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

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
@pytest.mark.parametrize("block", [1, 3])
def test_evaluated_rows_are_shared_without_padding(monkeypatch, size, processes, block):
    samplers = [
        as_process(monkeypatch, process, processes, ShardSampler, [None] * size, block)
        for process in range(processes)
    ]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    assert sorted(row for share in shares for row in share) == list(range(size))
    assert all(share == sorted(share) for share in shares)
    batches = [
        share[first : first + block] for share in shares for first in range(0, len(share), block)
    ]
    assert sorted(batches) == [
        list(range(size))[first : first + block] for first in range(0, size, block)
    ]


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
    assert second.state_dict() == {"seed": 7, "epoch": 0, "rows": 8}
    third.load_state_dict(second.state_dict())
    assert numbers(third) == order[2:]


@pytest.mark.parametrize(
    ("before", "now"),
    [((1, 4), (1, 2)), ((1, 2), (1, 5)), ((1, 6), (2, 3)), ((2, 3), (1, 4)), ((3, 2), (2, 2))],
)
@pytest.mark.parametrize("size", [24, 25, 29])
def test_an_epoch_goes_on_with_other_batches_and_processes(monkeypatch, before, now, size):
    """Each pair: how many processes, and the rows of a batch of one of them."""
    dataset = rows_of(size)

    def loaders(processes, batch):
        return [
            load(dataset, as_process(monkeypatch, each, processes, EpochSampler, dataset, 7), batch)
            for each in range(processes)
        ]

    order = [row for batch in numbers(load(dataset)) for row in batch]
    interrupted = loaders(*before)
    running = [iter(each) for each in interrupted]
    for _ in range(len(interrupted[0]) - 1):
        for each in running:
            next(each)
        states = [each.state_dict() for each in interrupted]
        assert all(state == states[0] for state in states)
        seen = states[0]["rows"]
        again = loaders(*now)
        for each in again:
            each.load_state_dict(states[0])
        done = {len(each) - each.batches_done for each in again}
        shares = [numbers(each) for each in again]
        assert {len(share) for share in shares} == done, (
            "as many batches in each process as it says"
        )
        rest = [row for batches in zip(*shares, strict=True) for row in interleaved(batches)]
        assert rest == (order[seen:] + order)[: len(rest)]
        assert len(rest) == -(-(size - seen) // now[0]) * now[0], "and padding"


def interleaved(batches):
    return [row for rows in zip(*batches, strict=True) for row in rows]


def test_states_of_format_1_count_batches():
    dataset = rows_of(14)
    order = numbers(load(dataset))
    loader = load(dataset)
    loader.load_state_dict({"seed": 7, "epoch": 0, "batches": 2})
    assert numbers(loader) == order[2:]


def test_the_state_of_an_epoch_that_has_ended_is_the_beginning_of_the_next():
    loader = load(rows_of(8))
    assert loader.state_dict() == {"seed": 7, "epoch": 0, "rows": 0}
    batches = iter(loader)
    next(batches)
    next(batches)  # the last one: the epoch has ended, whether or not anyone asks for more
    ended = {"seed": 7, "epoch": 1, "rows": 0}
    assert loader.state_dict() == ended
    assert list(batches) == []
    assert loader.state_dict() == ended
    batches = iter(loader)
    next(batches)
    next(batches)
    loader.sampler.set_epoch(2)  # as Lightning, before it begins the epoch
    assert loader.state_dict() == {"seed": 7, "epoch": 2, "rows": 0}


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
    """Remembers the rows of every training batch, and which epochs were validated."""

    def __init__(self):
        self.epochs, self.validated = {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        rows = batch["index"].flatten().tolist()
        self.epochs.setdefault(trainer.current_epoch, []).append(rows)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(trainer.current_epoch)


def train(folder, data=None, checkpoint=None, saving=(), **settings):
    seen = SeenRows()
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(saving),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=3,
        callbacks=[seen, *saving],
        **settings,
    )
    model = DeepSCM("thickness", {"thickness": AffineFlow})
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return seen


def test_overfitting_a_few_batches_takes_the_same_ones_in_every_epoch(tmp_path):
    data = TinyDataModule()
    seen = train(tmp_path, data, overfit_batches=2)
    first = data.variables("train")["index"].flatten().tolist()[:32]
    assert seen.epochs == {epoch: [first[:16], first[16:]] for epoch in range(3)}


def flat(seen):
    return {
        epoch: [row for batch in batches for row in batch] for epoch, batches in seen.epochs.items()
    }


@pytest.mark.parametrize("when", [{"every_n_train_steps": 1}, {"save_on_train_epoch_end": False}])
@pytest.mark.parametrize("batch", [2, 12, 25, 60])
@pytest.mark.parametrize("interval", [1.0, 2])
def test_a_training_goes_on_with_batches_of_another_size(tmp_path, when, batch, interval):
    """60 rows, of which batches of 16 were seen: each epoch goes on to its end, and no further."""
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, monitor=None, **when)
    whole = train(tmp_path, TinyDataModule(), saving=[saving], val_check_interval=interval)
    for path in tmp_path.glob("*.ckpt"):
        same = train(tmp_path, TinyDataModule(), path)
        other = train(tmp_path, TinyDataModule(batch), path)
        assert flat(other) == flat(same), path.name
        assert other.validated == same.validated, path.name
        for epoch, rows in flat(same).items():
            assert rows == flat(whole)[epoch][-len(rows) :]
