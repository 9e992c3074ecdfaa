"""The known worlds obey the laws of mechanisms and of bijections."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.distributions import AffineTransform, ExpTransform
from world_columns import tensor

from deepscm_pl.mechanisms import Context, GammaScore, Known, KnownClass, KnownCoin, Logistic
from deepscm_pl.variables import Domain
from deepscm_pl.worlds import WORLDS

import laws

SIZE = 6

CASES = [(each, name) for each in WORLDS for name in each().attributes]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].name}-{case[1]}")
def case(request, double):
    """A mechanism of a world, the factory of another one, values and the parents."""
    world, name = request.param
    values = world().scm.sample(SIZE)
    parents = {each: values[each] for each in world().scm.graph.parents[name]}
    return world().scm[name], (lambda: world().scm[name]), values[name], parents


def test_a_known_mechanism_obeys_the_laws(case):
    mechanism, fresh, value, parents = case
    laws.forward_explains_abduction(mechanism, value, parents)
    laws.rows_are_independent(mechanism, value, parents)
    laws.saves_and_loads(mechanism, fresh(), value, parents)
    laws.particles_broadcast(mechanism, value, parents)
    laws.pyro_sites_agree(mechanism, value, parents)
    if not isinstance(mechanism, KnownClass | KnownCoin):  # a class does not determine its noise
        laws.abduction_recovers_noise(mechanism, parents, SIZE)


def test_values_are_in_double_precision_whatever_the_parents(case):
    mechanism, _, value, parents = case
    single = {name: parent.float() for name, parent in parents.items()}
    assert mechanism(mechanism.abduct(value.float(), single), single).dtype == torch.float64
    assert mechanism.log_prob(value.float(), single).dtype == torch.float64


LAYERS = {
    "logistic": partial(Logistic, -1.0, 4.0),
    "gamma": partial(GammaScore, 10.0, 5.0),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_bijections(double, layer):
    laws.bijection_inverts(LAYERS[layer](), torch.linspace(-4, 4, 50))


@pytest.mark.parametrize("layer", LAYERS)
def test_log_determinants_are_slopes(double, layer):
    """Numerically, since the special functions of SciPy have no gradients."""
    made, x = LAYERS[layer](), torch.linspace(-4, 4, 50)
    slope = (made(x + 1e-5) - made(x - 1e-5)) / 2e-5
    found = made.log_abs_det_jacobian(x, made(x))
    torch.testing.assert_close(found, slope.log(), atol=1e-6, rtol=1e-6)


def test_what_can_be_drawn_is_not_what_is_produced():
    """exp(u) is positive; from 0 to 9 can be drawn, 0 included, which no noise gives."""
    made = Known(Context(), lambda _: [ExpTransform()], Domain(lower=0.0, upper=9.0))
    made.domain.check("x", tensor([0.0, 9.0]))
    assert made.log_prob(tensor([0.0, -1.0]), {}).tolist() == [-torch.inf] * 2
    assert torch.isfinite(made.log_prob(tensor([100.0]), {})).all()  # produced, but not drawn
    with pytest.raises(ValueError, match=r"x: expected values in \[0, 9\], but got 100"):
        made.domain.check("x", tensor([100.0]))
    value = tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="x: expected values that its mechanism produces, but got"):
        made.check_explained("x", value, made.abduct(value, {}, (3,)))
    made.check_explained("x", value[:1], made.abduct(value[:1], {}))


def test_an_increase_is_exact_in_double_precision():
    """In single precision it would be off by 1e-8, and what follows by more."""
    scm = next(iter(WORLDS))().scm
    assert scm.dtype == torch.float64
    factual = scm.sample(5)
    found = scm.counterfactual(factual, {"thickness": 2.3, "intensity": lambda i: 0.9 * i})
    assert (found["thickness"] == 2.3).all()
    noise = scm.abduct(factual)["intensity"]["u"]
    logit = 2.0 * (2.3 - 2.5) + 0.5 * noise
    expected = 0.9 * (64 + 191 * torch.sigmoid(logit))
    torch.testing.assert_close(found["intensity"], expected, atol=1e-12, rtol=1e-12)


def test_parents_of_a_known_mechanism():
    """A scaled parent shifts the value; the standardisation of a context plays no part."""
    made = Known(
        Context({"age": Domain()}), lambda pa: [AffineTransform(2 * pa["age"], 0.5)], Domain()
    )
    parents = {"age": tensor([1.0, 3.0])}
    made.fit(tensor([0.0, 1.0]), parents)
    assert made({"u": tensor([1.0, 1.0])}, parents).flatten().tolist() == [2.5, 6.5]
