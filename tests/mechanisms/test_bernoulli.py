"""The binary mechanism: the laws of a value that bounds its noise instead of determining it."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from deepscm_pl.mechanisms import Bernoulli, Context
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

import laws

SIZE = 5


def make(parents, hidden=()):
    domains = {"age": Domain(lower=0.0)} if parents else {}
    return Bernoulli(Context(domains), hidden)


@pytest.fixture(params=["none", "affine", "network"])
def case(request, double):
    """A mechanism with perturbed parameters, values and parents."""

    def fresh():
        return make(request.param != "none", (4,) if request.param == "network" else ())

    mechanism = fresh()
    parents = {} if request.param == "none" else {"age": 40 + 20 * torch.rand(SIZE, 1)}
    value = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0]])
    mechanism.fit(value, parents)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return mechanism, fresh, value, parents


def test_laws(case):
    laws.of_classes(*case)


def test_probabilities_of_both_values_sum_to_one(case):
    mechanism, _, value, parents = case
    total = mechanism.log_prob(value, parents).exp() + mechanism.log_prob(1 - value, parents).exp()
    torch.testing.assert_close(total, torch.ones(SIZE))


@pytest.mark.parametrize("logit", [-30.0, -3.0, 0.0, 0.7, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_observed_value_is_always_recovered(logit, dtype):
    mechanism = make(False).to(dtype)
    mechanism.initial_logit.fill_(logit)
    for value in (torch.zeros(20_000, 1, dtype=dtype), torch.ones(20_000, 1, dtype=dtype)):
        noise = mechanism.abduct(value, {}, (2,))
        assert torch.isfinite(noise["u"]).all()
        assert torch.equal(mechanism(noise, {}), value.expand(2, -1, -1))


def test_noise_over_data_is_standard_normal(double):
    mechanism = make(False)
    mechanism.initial_logit.fill_(-0.8)
    value = mechanism(mechanism.sample_noise((20_000,)), {})
    noise = mechanism.abduct(value, {})["u"].squeeze(-1).detach()
    assert stats.kstest(noise.numpy(), "norm").pvalue > 0.01
    # Given the value the noise is not standard normal.
    assert stats.kstest(noise[value.squeeze(-1) == 1].numpy(), "norm").pvalue < 1e-9


def test_samples_have_the_probability(double):
    mechanism = make(False)
    mechanism.initial_logit.fill_(math.log(3))
    value = mechanism(mechanism.sample_noise((100_000,)), {})
    assert float(value.mean()) == pytest.approx(0.75, abs=0.006)
    assert mechanism.log_prob(torch.ones(1, 1), {}).exp().item() == pytest.approx(0.75)


def test_counterfactuals_are_monotone_with_the_exact_probability(double):
    """If p falls to p', the share p'/p of the rows with x = 1 keeps it, and no 0 becomes 1."""
    mechanism = make(True)
    mechanism.fit(torch.tensor([[0.0], [1.0]]), {"age": torch.tensor([[-1.0], [1.0]])})
    with torch.no_grad():
        mechanism.correction.layers[0].weight.fill_(1.0)
    scm = StructuralCausalModel("age -> ill", {"age": _age(), "ill": mechanism})
    factual = {"age": torch.full((50_000, 1), 0.5), "ill": torch.ones(50_000, 1)}
    answer = scm.counterfactual(factual, {"age": -1.0})["ill"][0]
    expected = torch.sigmoid(torch.tensor(-1.0)) / torch.sigmoid(torch.tensor(0.5))
    assert float(answer.mean()) == pytest.approx(float(expected), abs=0.01)
    healthy = factual | {"ill": torch.zeros(50_000, 1)}
    assert float(scm.counterfactual(healthy, {"age": -1.0})["ill"].sum()) == 0


def _age():
    from deepscm_pl.mechanisms import AffineFlow

    return AffineFlow(Context())


def test_fit_starts_from_the_share_and_refuses_a_constant():
    mechanism = make(False)
    mechanism.fit(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), {})
    assert mechanism.log_prob(torch.ones(1, 1), {}).exp().item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"both 0 and 1 .* all values are 1; leave the variable"):
        mechanism.fit(torch.ones(4, 1), {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_at_the_threshold_is_on_the_side_of_its_value(dtype, monkeypatch):
    """The draw nearest to the threshold stays on its side despite rounding."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kind: torch.ones(*size, **kind))
    for logit in torch.linspace(-4, 4, 41).tolist():
        mechanism = make(False).to(dtype)
        mechanism.initial_logit.fill_(logit)
        value = torch.tensor([[0.0], [1.0]], dtype=dtype)
        assert torch.equal(mechanism(mechanism.abduct(value, {}), {}), value)


def test_the_value_is_recovered_if_the_threshold_is_rounded_differently(monkeypatch):
    """Rounding may differ in another batch; some of these draws are within rounding."""
    mechanism = make(False)
    mechanism.initial_logit.fill_(0.7)
    value = torch.arange(2.0).repeat(1_000_000)[:, None]
    noise = mechanism.abduct(value, {})
    logit = mechanism.logit({})
    for units in (-4, 4):
        rounded = logit * (1 + units * torch.finfo(logit.dtype).eps)
        monkeypatch.setattr(mechanism, "logit", lambda _, rounded=rounded: rounded)
        assert torch.equal(mechanism(noise, {}), value)
