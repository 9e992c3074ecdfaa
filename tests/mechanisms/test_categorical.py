"""The mechanism of several classes: the laws of a value that bounds its noise."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from deepscm_pl.mechanisms import AffineFlow, Bernoulli, Categorical, Context
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

import laws

VALUE = torch.tensor([[1.0], [0.0], [3.0], [2.0], [0.0], [1.0]])
CLASSES = 4


def make(parents, hidden=()):
    domains = {"age": Domain(lower=0.0)} if parents else {}
    return Categorical(Context(domains), CLASSES, hidden)


@pytest.fixture(params=["none", "affine", "network"])
def case(request, double):
    """A mechanism with perturbed parameters, values and parents."""

    def fresh():
        return make(request.param != "none", (4,) if request.param == "network" else ())

    mechanism = fresh()
    parents = {} if request.param == "none" else {"age": 40 + 20 * torch.rand(len(VALUE), 1)}
    value = VALUE.double()
    mechanism.fit(value, parents)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return mechanism, fresh, value, parents


def of_probabilities(*shares, dtype=torch.float64):
    mechanism = Categorical(Context(), len(shares)).to(dtype)
    mechanism.initial_logits.copy_(torch.tensor(shares).log())
    return mechanism


def test_laws(case):
    laws.of_classes(*case)


def test_probabilities_of_all_classes_sum_to_one(case):
    mechanism, _, value, parents = case
    total = sum(
        mechanism.log_prob(torch.full_like(value, k), parents).exp() for k in range(CLASSES)
    )
    torch.testing.assert_close(total, torch.ones(len(value)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "logits", [(0, 0, 0), (30, 0, -30), (-60, 0, 3), (500, 0, 499), (800, 0, -800)]
)
def test_the_observed_value_is_always_recovered(logits, dtype):
    mechanism = Categorical(Context(), 3).to(dtype)
    mechanism.initial_logits.copy_(torch.tensor(logits))
    for k in range(3):
        value = torch.full((20_000, 1), float(k), dtype=dtype)
        noise = mechanism.abduct(value, {}, (2,))
        assert torch.isfinite(noise["u"]).all()
        assert torch.equal(mechanism(noise, {}), value.expand(2, -1, -1))


@pytest.mark.parametrize("first", [1e-9, 1.0, 50.0])
@pytest.mark.parametrize("wait", [1e-12, 50.0])
def test_times_that_rounding_makes_equal_are_separated(monkeypatch, first, wait):
    """Arrivals just after the first one, and draws far in the tail."""
    value = torch.tensor([[0.0], [1.0], [2.0]])
    times = torch.full((3, 3), wait).double().fill_diagonal_(first)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(times))
    mechanism = of_probabilities(0.2, 0.5, 0.3, dtype=torch.float32)
    noise = mechanism.abduct(value, {})
    assert torch.isfinite(noise["u"]).all()
    assert torch.equal(mechanism(noise, {}), value)


def test_noise_over_data_is_standard_normal(double):
    mechanism = of_probabilities(0.1, 0.6, 0.3)
    value = mechanism(mechanism.sample_noise((20_000,)), {})
    noise = mechanism.abduct(value, {})["u"].detach()
    for k in range(3):
        assert stats.kstest(noise[:, k].numpy(), "norm").pvalue > 0.01
        # Given the value the noise is not standard normal.
        assert stats.kstest(noise[value[:, 0] == k, k].numpy(), "norm").pvalue < 1e-9
    correlations = torch.corrcoef(noise.T) - torch.eye(3)
    assert correlations.abs().max() < 0.03


def test_abduction_is_the_posterior(double):
    """Compare with the draws from the prior that give the value."""
    mechanism = of_probabilities(0.15, 0.5, 0.35)
    prior = mechanism.sample_noise((60_000,))
    for k in range(3):
        kept = prior["u"][mechanism(prior, {})[:, 0] == k]
        drawn = mechanism.abduct(torch.full((len(kept), 1), float(k)), {})["u"].detach()
        for j in range(3):
            assert stats.ks_2samp(kept[:, j].numpy(), drawn[:, j].numpy()).pvalue > 0.01
        assert (torch.corrcoef(kept.T) - torch.corrcoef(drawn.T)).abs().max() < 0.04


def test_samples_have_the_probabilities(double):
    mechanism = of_probabilities(0.1, 0.6, 0.3)
    value = mechanism(mechanism.sample_noise((100_000,)), {})
    shares = torch.bincount(value.flatten().long()) / len(value)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.6, 0.3]), atol=0.006, rtol=0)


def graph(mechanism):
    return StructuralCausalModel("age -> site", {"age": AffineFlow(Context()), "site": mechanism})


def counterfactual(weights, before, after, value):
    """The class at another age, of 50,000 rows that have ``value`` at the first age."""
    mechanism = Categorical(Context({"age": Domain()}), 3, hidden=())
    with torch.no_grad():
        mechanism.correction.layers[0].weight.copy_(torch.tensor(weights)[:, None])
        mechanism.correction.layers[0].bias.zero_()
    rows = torch.ones(50_000, 1)
    factual = {"age": before * rows, "site": value * rows}
    answer = graph(mechanism).counterfactual(factual, {"age": after})["site"][0]
    age = torch.tensor([[before], [after]])
    return answer, mechanism.logits({"age": age}).exp().detach()


def test_counterfactuals_are_stable(double):
    """If no class gains more, in proportion, than the observed one, it stays."""
    answer, _ = counterfactual([1.0, 0.3, -0.5], before=0.0, after=0.7, value=0.0)
    assert (answer == 0).all()
    answer, _ = counterfactual([1.0, 0.3, -0.5], before=0.0, after=0.7, value=1.0)
    assert set(answer.flatten().tolist()) == {0.0, 1.0}  # 2 gains less than 1, and is never first


def test_counterfactuals_have_the_exact_probability(double):
    """The share of rows that keep x = 2 is that of the race between the later arrivals."""
    answer, (before, after) = counterfactual([1.0, 0.3, -0.5], 0.0, 0.7, value=2.0)
    # x = 2 stays if the scaled times of all others are later than its first arrival: with gains
    # g_k = p'_k/p_k, the first time T ~ Exp(1) becomes T/g_2, and another one (T + W_k)/g_k.
    gains = after / before
    slack = gains[:2] / gains[2] - 1
    expected = 1 / (1 + (before[:2] * slack).sum())
    assert float((answer == 2).double().mean()) == pytest.approx(float(expected), abs=0.007)


def test_two_classes_have_the_probabilities_of_a_bernoulli(double):
    value = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    one, other = Categorical(Context(), 2), Bernoulli(Context())
    one.fit(value, {})
    other.fit(value, {})
    torch.testing.assert_close(one.log_prob(value, {}), other.log_prob(value, {}))


def test_two_classes_are_monotone_as_a_bernoulli_is(double):
    """The joint distribution of the results of three interventions is the same."""
    shares = []
    for mechanism in (
        Categorical(Context({"age": Domain()}), 2),
        Bernoulli(Context({"age": Domain()})),
    ):
        with torch.no_grad():
            weight = mechanism.correction.layers[0].weight
            weight.copy_(torch.tensor([[0.0], [1.0]]) if len(weight) == 2 else torch.ones(1, 1))
            mechanism.correction.layers[0].bias.zero_()
        rows = torch.zeros(50_000, 1)
        noise = mechanism.abduct(rows, {"age": rows})
        answers = [mechanism(noise, {"age": rows + age}) for age in (-1.0, 0.5, 1.5)]
        assert not (answers[0] > answers[1]).any()
        assert not (answers[1] > answers[2]).any()
        shares.append(torch.stack([answer.mean() for answer in answers]))
    torch.testing.assert_close(*shares, atol=0.01, rtol=0)


def test_null_interventions_change_nothing(double):
    mechanism = make(True)
    factual = {"age": 40 + 20 * torch.rand(len(VALUE), 1), "site": VALUE.double()}
    mechanism.fit(factual["site"], factual)
    answer = graph(mechanism).counterfactual(factual, {"age": factual["age"]}, 50)
    assert torch.equal(answer["site"], factual["site"].expand(50, -1, -1))


def test_invalid_classes_are_refused():
    with pytest.raises(ValueError, match="categories: expected a whole number of at least 2"):
        Categorical(Context(), 1)
    with pytest.raises(ValueError, match=r"every class from 0 to 3 in .* 2, 3 does not occur"):
        make(False).fit(torch.tensor([[0.0], [1.0]]), {})


def test_the_value_is_recovered_if_probabilities_are_rounded_differently(monkeypatch):
    """Rounding may differ in another batch; some of these draws are within rounding."""
    mechanism = of_probabilities(0.2, 0.5, 0.3, dtype=torch.float32)
    value = torch.arange(3.0).repeat(500_000)[:, None]
    noise = mechanism.abduct(value, {})
    logits = mechanism.logits({})
    for units in torch.tensor([[4, -4, 4], [-4, 4, -4], [4, 4, -4]]):
        rounded = logits * (1 + units * torch.finfo(logits.dtype).eps)
        monkeypatch.setattr(mechanism, "logits", lambda _, rounded=rounded: rounded)
        assert torch.equal(mechanism(noise, {}), value)
