"""OneCycle is torch's schedule, with a peak at warmup·steps and an end at the last step."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from deepscm_pl.training import OneCycle


def expected_factor(step, steps, warmup, start, end):
    """The formula of two half cosines."""
    rising = max(warmup * steps, 1.0)
    falling = max(steps - rising, 1.0)
    if step < rising:
        return start + (1 - start) * (1 - math.cos(math.pi * step / rising)) / 2
    fraction = min((step - rising) / falling, 1.0)
    return 1 + (end - 1) * (1 - math.cos(math.pi * fraction)) / 2


def optimizer():
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.5}]
    return SGD(groups, lr=2.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 4001])
@pytest.mark.parametrize("warmup", [0.0, 0.01, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("start", "end"), [(0.04, 1e-3), (0.0, 0.1), (0.5, 0.0), (1.0, 1.0)])
def test_one_cycle_is_two_half_cosines(steps, warmup, start, end):
    schedule = OneCycle(optimizer(), steps, warmup, start, end)
    for step in sorted({0, 1, steps // 3, steps // 2, steps - 1, steps}):
        expected = expected_factor(step, steps, warmup, start, end)
        assert schedule.factor(step) == pytest.approx(expected, rel=1e-12, abs=1e-15), step
    assert schedule.factor(2 * steps) == schedule.factor(steps)


def test_the_default_is_the_schedule_of_torch():
    """With equal positions of the peak and the end."""
    ours, theirs = optimizer(), optimizer()
    schedule = OneCycle(ours, 99, warmup=29 / 99)
    reference = OneCycleLR(
        theirs, [2.0, 0.5], 100, div_factor=25, final_div_factor=40, cycle_momentum=False
    )
    for _ in range(99):
        for one, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert one["lr"] == pytest.approx(other["lr"], rel=1e-12)
        for each in (ours, theirs, schedule, reference):
            each.step()


def test_schedules_do_not_share_their_position():
    first, second = (OneCycle(optimizer(), 10) for _ in range(2))
    before = first.factor(3)
    second.factor(7)
    assert first.factor(3) == before
