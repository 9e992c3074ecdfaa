"""Laws of every metric: independence of order, batches and processes; errors of bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from deepscm_pl.metrics import (
    Composition,
    Effectiveness,
    GroundTruthError,
    IdentityPreservation,
    IntervalCoverage,
    Minimality,
    NoiseCalibration,
    PerImageStatistics,
    Reversibility,
)

ROWS = 12


@dataclass(frozen=True)
class Case:
    """A metric, and its arguments with the dimension along which each is a batch."""

    make: Callable[[], Metric]
    arguments: Mapping[str, tuple[Any, int]]

    def batch(self, rows: Tensor) -> dict[str, Any]:
        return {name: take(value, dim, rows) for name, (value, dim) in self.arguments.items()}


def take(value: Any, dim: int, rows: Tensor) -> Any:
    if isinstance(value, Mapping):
        return {key: take(each, dim, rows) for key, each in value.items()}
    return value.index_select(dim, rows)


def images(*leading: int) -> Tensor:
    return (255 * torch.rand(*leading, ROWS, 1, 8, 8)).round()


def cases() -> dict[str, Case]:
    torch.manual_seed(1)
    after = {1: images(2), 10: images(2)}
    measured = torch.randn(3, ROWS, 1)
    measured[0, 2] = measured[1, 5] = torch.nan
    measured[:, 7] = torch.nan
    classes = torch.randint(10, (3, ROWS, 1))
    return {
        "statistics": Case(
            lambda: PerImageStatistics(["a", "b"]),
            {"quantities": ({"a": torch.randn(ROWS), "b": torch.randn(ROWS)}, 0)},
        ),
        "ground truth": Case(
            GroundTruthError,
            {
                "counterfactual": (images(3), 1),
                "truth": (images(), 0),
                "factual": (images(), 0),
                "stranger": (images(), 0),
            },
        ),
        "minimality": Case(
            Minimality,
            {"counterfactual": (images(3), 1), "factual": (images(), 0), "truth": (images(), 0)},
        ),
        "effectiveness": Case(
            Effectiveness, {"measured": (measured, 1), "intended": (torch.randn(ROWS, 1), 0)}
        ),
        "composition": Case(Composition, {"image": (images(), 0), "after": (after, 1)}),
        "reversibility": Case(Reversibility, {"image": (images(), 0), "after": (after, 1)}),
        "identity": Case(
            IdentityPreservation,
            {
                "counterfactual": (classes, 1),
                "factual": (classes[0], 0),
                "label": (classes[1], 0),
            },
        ),
        "coverage": Case(IntervalCoverage, {"particles": (images(4), 1), "truth": (images(), 0)}),
        "noise": Case(
            lambda: NoiseCalibration(parents=["a", "b"]),
            {
                "noise": (torch.randn(ROWS, 3), 0),
                "parents": ({"a": torch.randn(ROWS, 1), "b": torch.randn(ROWS, 1)}, 0),
            },
        ),
    }


CASES = cases()
every_metric = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def flat(found: Any) -> dict[str, float]:
    """All numbers that a metric computed."""
    if isinstance(found, Mapping):
        return {
            f"{name}.{key}": number
            for name, value in found.items()
            for key, number in flat(value).items()
        }
    if isinstance(found, tuple):
        return flat(found._asdict())
    return {"": float(found)}


def computed(case: Case, *parts: Tensor) -> dict[str, float]:
    metric = case.make()
    for rows in parts:
        metric.update(**case.batch(rows))
    return flat(metric.compute())


def close(expected: dict[str, float], rel: float = 1e-9, abs: float = 1e-9) -> Any:
    return pytest.approx(expected, rel=rel, abs=abs, nan_ok=True)


def close_in_single_precision(expected: dict[str, float]) -> Any:
    """Rounding depends on the batch of a row and its position."""
    return close(expected, rel=1e-5, abs=1e-6)


@every_metric
def test_batches_do_not_matter(case):
    rows = torch.arange(ROWS)
    whole = computed(case, rows)
    assert computed(case, *rows.split(5)) == close_in_single_precision(whole)
    assert computed(case, *rows.split(1)) == close_in_single_precision(whole)


@every_metric
def test_order_does_not_matter(case):
    whole = computed(case, torch.arange(ROWS))
    assert computed(case, torch.randperm(ROWS)) == close_in_single_precision(whole)


@every_metric
def test_two_processes_are_one(case):
    rows = torch.arange(ROWS)
    one, other = case.make(), case.make()
    one.update(**case.batch(rows[:3]))
    other.update(**case.batch(rows[3:7]))
    other.update(**case.batch(rows[7:]))
    one.merge_state(other)
    expected = computed(case, rows[:3], rows[3:7], rows[7:])
    assert flat(one.compute()) == close(expected)


@every_metric
def test_gathered_states_are_one(case):
    """Synchronisation by torchmetrics, with a gather that simulates two processes."""
    rows = torch.arange(ROWS)
    one, other = case.make(), case.make()
    one.update(**case.batch(rows[:5]))
    other.update(**case.batch(rows[5:]))
    states = {
        id(state[0] if isinstance(state, list) else state): getattr(other, name)
        for name, state in one.metric_state.items()
    }

    def gather(state, group=None):
        its = states[id(state)]
        return [state, its[0] if isinstance(its, list) else its]

    one.dist_sync_fn, one.distributed_available_fn = gather, lambda: True
    assert flat(one.compute()) == close(computed(case, rows[:5], rows[5:]))


@every_metric
def test_a_process_without_data_changes_nothing(case):
    rows = torch.arange(ROWS)
    one = case.make()
    one.merge_state(with_data := case.make())
    with_data.update(**case.batch(rows))
    one.merge_state(with_data)
    one.merge_state(case.make())
    one._update_count = 1
    assert flat(one.compute()) == close(computed(case, rows))


@every_metric
def test_forward_gives_the_batch_and_collects(case):
    rows = torch.arange(ROWS)
    metric = case.make()
    metric.update(**case.batch(rows[:6]))
    assert flat(metric(**case.batch(rows[6:]))) == close(computed(case, rows[6:]))
    assert flat(metric.compute()) == close(computed(case, rows[:6], rows[6:]))


@every_metric
def test_reset_forgets(case):
    rows = torch.arange(ROWS)
    metric = case.make()
    metric.update(**case.batch(rows[:4]))
    metric.compute()
    metric.reset()
    metric.update(**case.batch(rows))
    assert flat(metric.compute()) == close(computed(case, rows))


@every_metric
def test_computing_before_any_update_is_refused(case):
    metric = case.make()
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(RuntimeError, match=r"nothing to compute yet; call update"),
    ):
        metric.compute()


@every_metric
def test_no_graph_is_kept(case):
    def requiring(value):
        if isinstance(value, Mapping):
            return {key: requiring(each) for key, each in value.items()}
        return value.clone().requires_grad_() if value.is_floating_point() else value

    metric = case.make()
    metric.update(**requiring(case.batch(torch.arange(ROWS))))
    for state in metric.metric_state.values():
        for tensor in state if isinstance(state, list) else [state]:
            assert not tensor.requires_grad


@every_metric
def test_an_update_in_inference_mode_can_be_continued_outside(case):
    rows = torch.arange(ROWS)
    metric = case.make()
    with torch.inference_mode():
        metric.update(**case.batch(rows[:6]))
    metric.update(**case.batch(rows[6:]))
    assert flat(metric.compute()) == close(computed(case, rows[:6], rows[6:]))


@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions(case, dtype):
    """Whole grey levels are exact in half precision, and so are the answers."""

    def cast(value):
        if isinstance(value, Mapping):
            return {key: cast(each) for key, each in value.items()}
        # Rounded so that half precision holds the same numbers.
        return value.half().to(dtype) if value.is_floating_point() else value

    def single(value):
        if isinstance(value, Mapping):
            return {key: single(each) for key, each in value.items()}
        return value.half().float() if value.is_floating_point() else value

    batch = case.batch(torch.arange(ROWS))
    found, expected = case.make(), case.make()
    found.update(**cast(batch))
    expected.update(**single(batch))
    assert flat(found.compute()) == pytest.approx(
        flat(expected.compute()), rel=2e-5, abs=1e-6, nan_ok=True
    )


def elsewhere(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The batch with one of its tensors on another device, for each of them."""
    for name, value in batch.items():
        if isinstance(value, Mapping):
            yield from ({**batch, name: moved} for moved in elsewhere(value))
        else:
            yield {**batch, name: value.to("meta")}


@every_metric
def test_tensors_on_different_devices_are_refused(case):
    batches = list(elsewhere(case.batch(torch.arange(ROWS))))
    assert len(batches) > 1
    for batch in batches:
        with pytest.raises(ValueError, match=r"cpu.*meta|meta.*cpu"):
            case.make().update(**batch)


@every_metric
def test_a_metric_on_another_device_is_refused(case):
    """All tensors are on one device, the metric on another."""
    metric = case.make().to("meta")
    expected = r"expected tensors on meta, where the metric is, but got cpu; move the metric with"
    with pytest.raises(ValueError, match=rf"{type(metric).__name__}: {expected}"):
        metric.update(**case.batch(torch.arange(ROWS)))


@every_metric
def test_shapes_that_do_not_match_are_refused(case):
    """With one argument one row short, the message names an argument and both shapes."""
    rows = torch.arange(ROWS)
    batch, short = case.batch(rows), case.batch(rows[1:])
    for name in batch if len(batch) > 1 else ():
        metric = case.make()
        with pytest.raises(ValueError, match=r"\(.*1[12].*\).*\(.*1[12].*\)"):
            metric.update(**{**batch, name: short[name]})
