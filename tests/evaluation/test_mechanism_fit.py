"""Each mechanism is compared with its linear and its parentless form, and its course is judged."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from deepscm_pl.evaluation import ModelOnData
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.mechanism_fit import (
    MechanismFit,
    convergence_of,
    evaluate_mechanisms,
)
from deepscm_pl.evaluation.quick_fit import (
    MechanismRows,
    fit_mechanism,
    linear_form,
    mean_log_prob,
    parentless_form,
)
from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical, Formula, Ordinal, SplineFlow
from deepscm_pl.mechanisms.discrete import SteppedFlow, ZeroInflatedFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Positive


def draw(size: int, seed: int, curve) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, size, 1, generator=generator)
    return {"x": x, "y": curve(x) + 0.5 * noise}


def fits(curve, mechanism, rows: int = 400, trained: bool = True):
    """The fit of y in a world y = curve(x) + noise."""
    torch.manual_seed(0)
    training, validation = draw(rows, 0, curve), draw(rows, 1, curve)
    scm = StructuralCausalModel("x -> y", {"x": AffineFlow, "y": mechanism})
    scm.fit(training)
    if trained:
        own = MechanismRows.of(training, "y", ("x",))
        scm.mechanisms["y"] = fit_mechanism(
            scm["y"], own, MechanismRows.of(validation, "y", ("x",))
        ).float()
    model = ModelOnData(scm, validation, None, None, training=training)
    return {each.variable: each for each in evaluate_mechanisms(model, progress=False)}


def test_a_curve_beats_the_linear_form_and_none():
    found = fits(lambda x: x**2, AffineFlow)["y"]
    # The best linear form has the residual variance 2 + 0.25, and a worse density.
    assert 0.9 < found.over_linear.mean - 0.5 * math.log(2.25 / 0.25) + 1 < 2
    assert "uses its parents" in found.sentence
    assert "over a linear form" in found.sentence
    assert "gains nothing" not in found.sentence


def test_a_line_gains_nothing_over_the_linear_form():
    found = fits(lambda x: 2 * x, AffineFlow)["y"]
    assert found.over_parentless.mean == pytest.approx(0.5 * math.log(4.25 / 0.25), abs=0.15)
    assert found.sentence.endswith("but gains nothing over a linear form")


def test_a_linear_mechanism_is_told_what_a_curve_would_gain():
    found = fits(lambda x: x**2, partial(AffineFlow, hidden=()))["y"]
    assert abs(found.over_linear.mean) < 0.01
    assert found.nonlinear.mean > 0.7
    assert "a nonlinear form would gain" in found.sentence


def test_a_linear_mechanism_of_a_line_is_well():
    found = fits(lambda x: 2 * x, partial(AffineFlow, hidden=()))["y"]
    assert "nonlinear" not in found.sentence


def test_a_cause_without_effect_is_not_used():
    found = fits(lambda x: 0 * x, partial(AffineFlow, hidden=()))["y"]
    assert "does not use its parents" in found.sentence


def test_an_untrained_mechanism_is_worse_than_its_linear_form():
    found = fits(lambda x: 2 * x, AffineFlow, trained=False)["y"]
    assert "to a linear form" in found.sentence
    assert "does not use its parents" in found.sentence


def test_a_linear_mechanism_that_was_trained_too_little_is_told_what_it_lost():
    linear = partial(AffineFlow, hidden=())
    found = fits(lambda x: 2 * x, linear, trained=False)["y"]
    assert found.over_linear.mean == pytest.approx(-0.5 * math.log(4.25 / 0.25), abs=0.2)
    assert "its own form gains" in found.sentence
    assert fits(lambda x: 2 * x, linear)["y"].left_out is None
    assert fits(lambda x: 2 * x, AffineFlow, trained=False)["y"].left_out is None


def test_fits_are_the_same_where_gradients_are_off():
    """Lightning tests in inference mode."""
    expected = fits(lambda x: 2 * x, AffineFlow, rows=100)["y"]
    training, validation = (draw(100, seed, lambda x: 2 * x) for seed in (0, 1))
    torch.manual_seed(0)
    scm = StructuralCausalModel("x -> y", {"x": AffineFlow, "y": AffineFlow})
    scm.fit(training)
    own = MechanismRows.of(training, "y", ("x",))
    scm.mechanisms["y"] = fit_mechanism(
        scm["y"], own, MechanismRows.of(validation, "y", ("x",))
    ).float()
    with torch.inference_mode():
        model = ModelOnData(scm, validation, None, None, training=training)
        found = evaluate_mechanisms(model, progress=False)
    assert found[1] == expected
    assert found[1].over_linear.mean < found[1].over_parentless.mean


def test_a_root_has_no_parents():
    found = fits(lambda x: x, AffineFlow)["x"]
    assert found.over_parentless is None
    assert found.sentence == "x: no parents"


def grade(score: torch.Tensor) -> torch.Tensor:
    return (score > 0).float() + (score > 1).float()


@pytest.mark.parametrize(
    ("factory", "values"),
    [
        (AffineFlow, lambda score: score),
        (SplineFlow, lambda score: score),
        (
            partial(SteppedFlow, flow=partial(AffineFlow, constraint=Positive)),
            lambda score: score.exp().floor(),
        ),
        (Bernoulli, lambda score: (score > 0).float()),
        (partial(Categorical, categories=3), grade),
        (partial(Ordinal, categories=3), grade),
        (ZeroInflatedFlow, lambda score: score.clamp(min=0)),
    ],
    ids=["affine", "spline", "stepped", "bernoulli", "categorical", "ordinal", "zeros"],
)
def test_every_family_has_simpler_forms(factory, values):
    torch.manual_seed(0)
    x, u = torch.randn(2, 400, 1)
    training = {"x": x, "y": values(x + u)}
    scm = StructuralCausalModel("x -> y", {"x": AffineFlow, "y": factory})
    scm.fit(training)
    rows = MechanismRows.of(training, "y", ("x",))
    scores = [
        mean_log_prob(fit_mechanism(form(scm["y"]), rows), rows)
        for form in (parentless_form, linear_form)
    ]
    assert scores[1] > scores[0] + 0.1
    # The model itself is unchanged.
    assert all(each.dtype == torch.float32 for each in scm.parameters())


@pytest.mark.parametrize(("slope", "uses"), [(2.0, "uses its parents"), (0.0, "does not use")])
def test_a_formula_is_compared_with_parents_of_other_rows(slope, uses):
    """It has no simpler form; (2x − 2x′)²/2 has the mean 4 / σ² over independent x and x′."""
    formula = partial(Formula, formula="slope*x + u", scale=0.5, coefficients={"slope": slope})
    found = fits(lambda x: slope * x, formula)["y"]
    assert found.over_parentless.mean == pytest.approx(slope**2 / 0.25, abs=2.5)
    assert found.nonlinear is found.over_linear is None
    assert uses in found.sentence
    assert "those of other rows" in found.sentence


def test_incomplete_rows_are_left_out():
    values = draw(50, 0, lambda x: x)
    values["y"][3] = math.nan
    assert len(MechanismRows.of(values, "y", ("x",))) == 49


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (np.linspace(-5, -1, 30), "still rising"),
        (-np.exp(-np.arange(60) / 5) - 1, "converged"),
        (np.concatenate([np.linspace(-3, -1, 20), np.linspace(-1, -1.5, 20)]), "falling"),
        ([-1.0, -0.9, -0.8], "unknown"),
        ([-1.0, -0.9, -0.8, math.nan, -0.7, -0.6, -0.5], "unknown"),
    ],
)
def test_the_course_of_a_training(history, state):
    assert convergence_of(list(history)).state == state


def test_noise_is_not_a_rise():
    generator = np.random.default_rng(0)
    states = [convergence_of(list(generator.normal(size=40) * 0.05)).state for _ in range(100)]
    assert states.count("converged") > 85


def test_a_loss_that_may_be_chance_is_called_a_loss():
    unclear = MechanismFit("b", ("a",), Estimate(-1.0, 0.1, 12), Estimate(-0.21, 0.43, 12))
    assert "perhaps uses its parents (loses 0.21 ± 0.43 nats against none" in unclear.sentence
