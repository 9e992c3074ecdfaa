"""Defaults of mechanisms with an explicit density, and mechanisms under an intervention."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal

from deepscm_pl.mechanisms import AffineFlow, Constant, Context, Mechanism, Modified
from deepscm_pl.variables import Domain


class Shift(Mechanism):
    """x := pa + u, defined by the four methods that an explicit mechanism needs."""

    @property
    def domain(self):
        return Domain()

    def forward(self, noise, parents):
        return parents["cause"] + noise["u"]

    def abduct(self, value, parents, sample_shape=()):
        return {"u": (value - parents["cause"]).expand(*sample_shape, *value.shape)}

    def distribution(self, parents):
        return Normal(parents["cause"], 1.0).to_event(1)


@pytest.fixture
def shift():
    return Shift(Context({"cause": Domain()}))


def test_density_evidence_and_weights_follow_from_the_distribution(shift):
    value, parents = torch.randn(5, 1), {"cause": torch.randn(5, 1)}
    expected = torch.distributions.Normal(parents["cause"], 1.0).log_prob(value).squeeze(-1)
    torch.testing.assert_close(shift.log_prob(value, parents), expected)
    evidence = shift.evidence(value, parents)
    torch.testing.assert_close(evidence.bound, expected)
    assert torch.equal(evidence.importance_weighted_bound, evidence.bound)
    torch.testing.assert_close(shift.log_weights(value, parents, 7), expected[None])


def test_noise_is_standard_normal_by_default(shift):
    noise = shift.sample_noise((4000,))["u"]
    assert noise.shape == (4000, 1)
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    assert shift.double().sample_noise((2,))["u"].dtype == torch.float64


def test_the_site_of_the_model_has_the_distribution(shift):
    value, parents = torch.randn(5, 1), {"cause": torch.randn(5, 1)}

    def model():
        with pyro.plate("rows", 5, dim=-1):
            shift.model("x", parents)

    trace = poutine.trace(pyro.condition(model, data={"x": value})).get_trace()
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], shift.log_prob(value, parents))


def test_a_constant_contributes_no_evidence():
    constant = Constant(torch.tensor([3.0]), Domain())
    value = torch.full((4, 1), 3.0)
    assert constant.abduct(value, {}) == {} == constant.sample_noise((4,))
    assert torch.equal(constant.evidence(value, {}).bound, torch.zeros(4))
    with pytest.raises(ValueError, match="held constant by an intervention"):
        constant.abduct(value + 1, {})


@pytest.mark.parametrize("method", ["log_prob", "evidence", "log_weights"])
def test_a_modified_mechanism_has_no_density(method):
    modified = Modified(AffineFlow(Context()), lambda value: value + 1, "age")
    with pytest.raises(ValueError, match="age is under an intervention and has no density"):
        getattr(modified, method)(torch.zeros(3, 1), {})
    with pytest.raises(ValueError, match=r"age is under an intervention; abduct with the model"):
        modified.abduct(torch.zeros(3, 1), {})


def test_a_modified_mechanism_has_the_noise_and_type_of_the_original():
    original = AffineFlow(Context()).double()
    modified = Modified(original, lambda value: value + 1, "age")
    noise = modified.sample_noise((3,))
    assert noise["u"].dtype == modified.dtype == torch.float64
    torch.testing.assert_close(modified(noise, {}), original(noise, {}) + 1)
