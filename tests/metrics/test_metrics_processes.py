"""Metrics on two communicating processes."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from torch import distributed

from deepscm_pl.metrics import NoiseCalibration, PerImageStatistics


def draws():
    return torch.randn(20, 3, generator=torch.Generator().manual_seed(0))


def statistics(rows):
    metric = PerImageStatistics(["a"])
    metric.update({"a": rows[:, 0]})
    return metric


def noise_of_a_cause(rows):
    metric = NoiseCalibration()
    metric.update(rows, {})
    return metric


def noise_of_an_effect(rows):
    metric = NoiseCalibration(["a"])
    metric.update(rows.double(), {"a": rows[:, :1] ** 2})
    return metric


METRICS = (statistics, noise_of_a_cause, noise_of_an_effect)


def test_a_process_without_rows_changes_nothing(tmp_path):
    torch.multiprocessing.start_processes(compute_in, (tmp_path,), 2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for make in METRICS:
            expected = numbers(make(draws()))
            for kind in ("first only", "unequal"):
                assert found[kind, make.__name__] == pytest.approx(expected, nan_ok=True), (
                    rank,
                    kind,
                    make.__name__,
                )


def numbers(metric):
    found = metric.compute()
    return found["a"]._asdict() if isinstance(metric, PerImageStatistics) else found


def compute_in(rank, folder):
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    found = {}
    for make in METRICS:
        one = make(draws())
        if rank == 1:
            one.reset()
        found["first only", make.__name__] = numbers(one)
        found["unequal", make.__name__] = numbers(make(draws().tensor_split([13])[rank]))
        assert_nothing_was_gathered_for_good(one, rank)
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def assert_nothing_was_gathered_for_good(metric, rank):
    """After a computation each process has its own rows again."""
    for state in metric.metric_state.values():
        if isinstance(state, list):
            assert sum(map(len, state)) == (20 if rank == 0 else 0)
