"""Scales of conditional flows stay bounded far outside of the training data."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import AffineFlow, Context, Ordinal, SplineFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms.cells import bounded_log_scale


def heteroscedastic(flow):
    """Ages 50 ± 10; the log-scale of the volume rises by a half with each deviation of age."""
    scm = StructuralCausalModel("age -> volume", {"age": AffineFlow, "volume": flow})
    age = 50 + 10 * torch.randn(500, 1)
    scm.fit({"age": age, "volume": 100 + torch.randn(500, 1)})
    last = [m for m in scm["volume"].modules() if isinstance(m, torch.nn.Linear)][-1]
    last.weight.zero_()
    last.weight[1] = 2.0
    return scm, last


@torch.no_grad()
def test_scales_are_bounded_where_parents_are_far_away():
    """do(age = 300) is 25 deviations away: the log-scale would be 50."""
    scm, _ = heteroscedastic(partial(AffineFlow, hidden=()))
    answer = scm.intervene({"age": 300.0}, 1000)["volume"]
    assert 10 < float(answer.std()) < 60
    answer = scm.intervene({"age": -300.0}, 1000)["volume"]
    assert 0 < float(answer.std()) < 1e-4
    assert bool(
        scm.log_prob({"age": torch.full((1000, 1), -300.0), "volume": answer}).isfinite().all()
    )


@pytest.mark.parametrize("make", [AffineFlow, SplineFlow])
def test_ordinary_scales_do_not_change(make, double):
    ordinary = torch.linspace(-9, 1, 101)
    torch.testing.assert_close(bounded_log_scale(ordinary).exp(), ordinary.exp(), rtol=1e-6, atol=0)
    values = bounded_log_scale(torch.linspace(-1e4, 1e4, 2001))
    assert bool((values.diff() >= 0).all())
    assert -12 <= float(values.min()) < float(values.max()) <= 4
    mechanism = make(Context())
    value = mechanism({"u": torch.linspace(-3, 3, 11)[:, None]}, {})
    torch.testing.assert_close(
        mechanism.abduct(value, {})["u"].flatten(), torch.linspace(-3, 3, 11)
    )


@torch.no_grad()
def test_thresholds_of_ordered_classes_stay_finite():
    grade = Ordinal(Context(), categories=3)
    next(p for p in grade.parameters_of.parameters() if p.dim() == 1)[1] = -1e4
    value = torch.tensor([[0.0], [1.0], [2.0]])
    assert bool(grade.thresholds({}).isfinite().all())
    assert torch.equal(grade(grade.abduct(value, {}), {}), value)
