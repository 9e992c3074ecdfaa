"""The form of a mechanism is the simplest that the data do not refute."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.graph import CausalGraph
from deepscm_pl.planning import Form, choose_forms

FLOW = {"class_path": "deepscm_pl.mechanisms.SplineFlow", "init_args": {"bins": 4}}
LINEAR, NETWORK = Form((), True), Form((16, 16), True)


def chosen(value, mechanism=FLOW, rows=1000):
    """The form for ``y`` := value(x, u)."""
    generator = torch.Generator().manual_seed(1)
    x, u = torch.randn(2, rows, 1, generator=generator, dtype=torch.float64)
    values = {"x": x, "y": value(x, u)}
    return choose_forms(CausalGraph("x -> y"), {"x": FLOW, "y": mechanism}, values)["y"]


def test_a_line_stays_a_line():
    found = chosen(lambda x, u: 2 * x + u)
    assert found.form == LINEAR
    assert found.reason.startswith("linear, for the location only: a more complex form ")


def test_a_parabola_needs_a_network():
    assert chosen(lambda x, u: x**2 + 0.5 * u).form.hidden == (16, 16)


def test_a_spread_that_depends_on_the_cause_is_not_additive():
    found = chosen(lambda x, u: x + (0.7 * x).exp() * u)
    assert not found.form.additive
    assert "gains" in found.reason


@pytest.mark.parametrize(("kind", "classes"), [("Bernoulli", 2), ("Categorical", 3)])
def test_classes_have_a_linear_and_a_nonlinear_form(kind, classes):
    described = {
        "class_path": f"deepscm_pl.mechanisms.{kind}",
        "init_args": {} if classes == 2 else {"categories": classes},
    }
    line = chosen(lambda x, u: ((x + u > 0) + (x + u > 1) * (classes - 2.0)).double(), described)
    curve = chosen(
        lambda x, u: ((x.abs() > 0.7) & (u > -1.5)) * (1.0 + (classes - 2) * (u > 0.5)), described
    )
    assert line.form.hidden == ()
    assert curve.form.hidden == (16, 16)


def test_counts_and_zeros_describe_the_flow_within():
    stepped = {"class_path": "deepscm_pl.mechanisms.SteppedFlow", "init_args": {"flow": FLOW}}
    inflated = {"class_path": "deepscm_pl.mechanisms.ZeroInflatedFlow", "init_args": {"flow": FLOW}}
    form = Form((8,), True)
    assert form.of(stepped)["init_args"] == {"flow": form.of(FLOW)}
    assert form.of(inflated)["init_args"] == {"flow": form.of(FLOW), "hidden": [8]}
    assert form.of(FLOW)["init_args"] == {"bins": 4, "hidden": [8], "additive": True}
    assert FLOW["init_args"] == {"bins": 4}
