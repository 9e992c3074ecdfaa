"""Tests of noise account for the fit of a model: correct ones are rejected at the nominal rate."""

from __future__ import annotations

import pytest
import torch

from deepscm_pl.evaluation import ModelOnData, evaluate_noise
from deepscm_pl.evaluation.fitted_null import ParameterUncertainty
from deepscm_pl.mechanisms import AffineFlow, Context
from deepscm_pl.metrics.functional import kolmogorov_smirnov, kolmogorov_smirnov_statistic
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

ROWS = 300


def linear_gaussian(seed, rows=ROWS, curve=0.0):
    """b = 0.7·a + curve·a² + 0.5·u."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(2 * rows, 1, generator=generator)
    b = 0.7 * a + curve * a**2 + 0.5 * torch.randn(2 * rows, 1, generator=generator)
    return {"a": a, "b": b}


def fitted_exactly(values):
    """The maximum-likelihood fit of b given a by an affine flow, in closed form."""
    flow = AffineFlow(Context({"a": Domain()}), hidden=())
    a, b = values["a"], values["b"]
    flow.fit(b, {"a": a})
    x, y = (a - a.mean()) / a.std(correction=0), (b - b.mean()) / b.std(correction=0)
    slope = (x * y).mean()
    weight, bias = flow.parameters_of.parameters()
    with torch.no_grad():
        weight.copy_(torch.tensor([[slope], [0.0]]))
        bias.copy_(torch.tensor([0.0, float((y - slope * x).std(correction=0).log())]))
    return flow


def test_uncertainty_is_the_classical_one_of_a_linear_gaussian_model():
    """The noise of new rows has the mean N(0, 1/n) and the log-deviation N(0, 1/(2n))."""
    values = linear_gaussian(0, rows=ROWS // 2)
    uncertainty = ParameterUncertainty(fitted_exactly(values), values["b"], {"a": values["a"]})
    new = {"a": torch.randn(4000, 1)}
    drawn = torch.stack([uncertainty.sample_noise(new, 4000) for _ in range(300)]).squeeze(-1)
    sampling = 1 / 4000
    assert float(drawn.mean(dim=1).var()) == pytest.approx(1 / ROWS + sampling, rel=0.25)
    deviations = drawn.std(dim=1).log()
    expected = 1 / (2 * ROWS) + sampling / 2
    assert float(deviations.var()) == pytest.approx(expected, rel=0.35)


def test_right_models_are_rejected_in_5_of_100():
    """With N(0, 1) itself as the null distribution it is 14."""
    rejected = naive = 0
    for seed in range(100):
        values = linear_gaussian(seed)
        first = {name: each[:ROWS] for name, each in values.items()}
        flow = fitted_exactly(first)
        test = {"a": values["a"][ROWS:]}
        noise = flow.abduct(values["b"][ROWS:], test)["u"].detach()
        found = kolmogorov_smirnov(noise.flatten())
        naive += found.p_value < 0.05
        uncertainty = ParameterUncertainty(flow, first["b"], {"a": first["a"]})
        # The largest of 20 is that of the test rows in 5 of 100.
        drawn = [uncertainty.sample_noise(test, ROWS).flatten() for _ in range(19)]
        null = [kolmogorov_smirnov_statistic(noise) for noise in drawn]
        rejected += all(each < found.statistic for each in null)
    assert naive / 100 > 0.09
    assert 0.005 <= rejected / 100 <= 0.1


def on_data(values):
    first = {name: each[:ROWS] for name, each in values.items()}
    mechanisms = {"a": AffineFlow, "b": fitted_exactly(first)}
    scm = StructuralCausalModel("a -> b", mechanisms)
    scm["a"].fit(first["a"], {})
    scm.fitted.fill_(True)
    rest = {name: each[ROWS:] for name, each in values.items()}
    return ModelOnData(scm, rest, None, None, training=first)


def test_a_wrong_model_is_still_rejected():
    right = {each.variable: each.statistics for each in _noise(on_data(linear_gaussian(3)))}
    wrong = {
        each.variable: each.statistics for each in _noise(on_data(linear_gaussian(3, curve=1.0)))
    }
    assert right["b"].p_value > 0.05
    assert wrong["b"].p_value < 0.01
    assert abs(right["b"].correlations["a"]) < right["b"].correlation_by_chance
    # Two splits of ROWS rows each: 1.96·√(1/m + 1/n).
    assert right["b"].correlation_by_chance == pytest.approx(1.96 * (2 / ROWS) ** 0.5, rel=0.2)


def test_random_numbers_of_the_program_are_unchanged():
    model = on_data(linear_gaussian(1))
    torch.manual_seed(5)
    first = _noise(model)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    again = _noise(model)
    assert torch.equal(state, torch.get_rng_state())
    assert [each.statistics for each in first] == [each.statistics for each in again]


def test_infinite_noise_of_other_parameters_is_left_out(monkeypatch):
    model = on_data(linear_gaussian(1))
    drawn = ParameterUncertainty.sample_noise

    def sometimes_infinite(*arguments):
        noise = drawn(*arguments)
        return noise.masked_fill(torch.arange(len(noise))[:, None] % 50 == 0, torch.inf)

    monkeypatch.setattr(ParameterUncertainty, "sample_noise", sometimes_infinite)
    found = {each.variable: each.statistics for each in _noise(model)}["b"]
    assert 0 < found.p_value <= 1
    assert 0.1 < found.correlation_by_chance < 0.2


def _noise(model):
    return evaluate_noise(model, detail_rows=10, progress=False)
