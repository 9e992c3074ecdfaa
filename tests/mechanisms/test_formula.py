"""Formulas as mechanisms: laws, learned coefficients, and texts that are refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.configuration import describe
from deepscm_pl.mechanisms import (
    AdditiveNoise,
    AffineFlow,
    Categorical,
    Context,
    Formula,
    Heteroscedastic,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM
from deepscm_pl.variables import Domain

import laws

SIZE = 6
DOMAINS = {"age": Domain(lower=0.0), "sex": Domain(categories=2)}
FORMULAS = {
    "linear": ("0.5*age + 2*sex + u", {}),
    "reversed": ("3 - u/(1 + age)", {"scale": 0.5}),
    "learned": ("a*age + b + u", {"coefficients": {"a": 0.2, "b": 1.0}}),
    "scaled": ("(3 if sex == 1 else 0) + exp(c*age)*u", {"coefficients": {"c": 0.01}}),
    "positive": ("2*exp(0.01*age + u)", {"scale": 0.3}),
    "brackets": ("-(2*(u - age))", {}),
}
CALM = {
    "additive": partial(AdditiveNoise, hidden=(4,)),
    "heteroscedastic": partial(Heteroscedastic, hidden=(4,)),
} | {name: partial(Formula, formula=text, **more) for name, (text, more) in FORMULAS.items()}


@pytest.fixture(params=CALM)
def case(request, double):
    parents = {
        "age": 40 + 20 * torch.rand(SIZE, 1),
        "sex": torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0], [0.0]]),
    }
    make = CALM[request.param]
    mechanism = make(Context(DOMAINS))
    value = 0.5 + 3 * torch.rand(SIZE, 1)
    mechanism.fit(value, parents)
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return mechanism, (lambda: make(Context(DOMAINS))), value, parents


def test_laws(case):
    mechanism, fresh, value, parents = case
    laws.forward_explains_abduction(mechanism, value, parents)
    laws.abduction_recovers_noise(mechanism, parents, SIZE)
    laws.rows_are_independent(mechanism, value, parents)
    laws.particles_broadcast(mechanism, value, parents)
    laws.pyro_sites_agree(mechanism, value, parents)
    if any(each.requires_grad for each in mechanism.parameters()):
        laws.saves_and_loads(mechanism, fresh(), value, parents)
        laws.copies_after_use(mechanism, value, parents)


def test_every_learned_number_has_a_gradient(case):
    mechanism, _, value, parents = case
    learned = {name: each for name, each in mechanism.named_parameters() if each.requires_grad}
    if learned:
        mechanism.evidence(value, parents).bound.sum().backward()
    for name, each in learned.items():
        assert bool(each.grad.abs().sum() > 0), name


def test_a_formula_means_what_it_says():
    f = Formula(Context(DOMAINS), formula="0.5*age + 2*sex + u", scale=3.0)
    parents = {"age": torch.tensor([[40.0]]), "sex": torch.tensor([[1.0]])}
    assert f({"u": torch.tensor([[2.0]])}, parents).item() == pytest.approx(20 + 2 + 6)
    assert f.abduct(torch.tensor([[28.0]]), parents)["u"].item() == pytest.approx(2)
    expected = torch.distributions.Normal(22.0, 3.0).log_prob(torch.tensor(25.0))
    torch.testing.assert_close(f.log_prob(torch.tensor([[25.0]]), parents)[0], expected)
    assert not any(each.requires_grad for each in f.parameters())


def test_an_exponential_function_is_positive():
    f = Formula(Context(), formula="3*exp(u)", scale=1.0)
    assert (f.domain.lower, f.domain.open) == (0.0, True)
    assert float(f(f.sample_noise((1000,)), {}).min()) > 0
    with pytest.raises(ValueError, match=r"expected values in \(0, inf\)"):
        f.domain.check("x", torch.tensor([[-1.0]]))


def test_coefficients_and_the_scale_are_learned():
    torch.manual_seed(0)
    age = torch.randn(2000, 1)
    value = 1.5 * age - 0.5 + 0.3 * torch.randn(2000, 1)
    f = Formula(
        Context({"age": Domain()}), formula="a*age + b + u", coefficients={"a": 0.0, "b": 0.0}
    )
    f.fit(value, {"age": age})
    assert f.log_scale.exp().item() == pytest.approx(float(value.std()), rel=0.01)
    optimizer = torch.optim.Adam(f.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        (-f.log_prob(value, {"age": age}).mean()).backward()
        optimizer.step()
    assert f.coefficients["a"].item() == pytest.approx(1.5, abs=0.03)
    assert f.coefficients["b"].item() == pytest.approx(-0.5, abs=0.03)
    assert f.log_scale.exp().item() == pytest.approx(0.3, abs=0.02)


def test_a_formula_answers_in_a_model_and_is_described():
    formula = partial(Formula, formula="0.5*age + 2*sex + u", scale=1.0)
    mechanisms = {"age": AffineFlow, "sex": partial(Categorical, categories=2), "size": formula}
    scm = StructuralCausalModel("age, sex -> size", mechanisms)
    rows = {"age": torch.randn(20, 1), "sex": torch.randint(2, (20, 1)).float()}
    rows["size"] = 0.5 * rows["age"] + 2 * rows["sex"] + torch.randn(20, 1)
    scm.fit(rows)
    answer = scm.counterfactual(rows, {"age": rows["age"] + 1})["size"][0]
    torch.testing.assert_close(answer, rows["size"] + 0.5)
    model = DeepSCM("age, sex -> size", mechanisms)
    described = model.hparams["mechanisms"]["size"]
    assert described == describe(formula)
    assert described["init_args"]["formula"] == "0.5*age + 2*sex + u"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u*u", "can be inverted in u, but got 'u \\* u'; write it once"),
        ("age", "can be inverted in u"),
        ("log(u)", "can be inverted in u"),
        ("max(u, 0)", "can be inverted in u"),
        ("1/u", "can be inverted in u"),
        ("u if sex == 1 else age", "can be inverted in u"),
        ("1 + exp(u)", "values with known bounds"),
        ("age*u*", "cannot read"),
        ("weight + u", "'weight' is no variable; the variables are u, age, sex"),
        ("sin(age) + u", "unknown function 'sin'"),
        ("__import__('os') + u", "unknown function '__import__'"),
        ("normal(0, 1) + u", "u is the only noise"),
        ("factual + u", "u is the only noise"),
        ("(" * 60 + "u" + ")" * 60 + "+ u.real", "cannot read|expected"),
        (3, "formula: expected a text, but got 3"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Formula(Context(DOMAINS), formula=text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0}, "scale: expected a number above 0"),
        ({"coefficients": {"age": 1.0}}, "coefficients: expected names that are not u"),
        ({"coefficients": {"u": 1.0}}, "coefficients: expected names that are not u"),
        ({"coefficients": {"q": 1.0}}, "coefficients: q is not in the formula"),
        ({"coefficients": {"q": "x"}}, "coefficients.q: expected"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Formula(Context(DOMAINS), formula="age + u", **settings)


def test_a_factor_of_the_noise_that_changes_its_sign_is_refused():
    f = Formula(Context({"age": Domain()}), formula="age*u")
    with pytest.raises(ValueError, match=r"factors of u of one sign, but in 'age \* u' one is -1"):
        f.fit(torch.randn(2, 1), {"age": torch.tensor([[-1.0], [2.0]])})


def test_a_parent_with_the_name_of_the_noise_is_refused():
    with pytest.raises(ValueError, match="expected u to be the noise; rename the parent"):
        Formula(Context({"u": Domain()}), formula="u")


def test_named_forms_are_those_of_the_affine_flow():
    """With the same weights they have the same density."""
    torch.manual_seed(0)
    context = Context({"age": Domain()})
    parents, value = {"age": torch.randn(5, 1)}, torch.randn(5, 1)
    for named, general in (
        (AdditiveNoise(context), AffineFlow(context, additive=True)),
        (Heteroscedastic(context), AffineFlow(context)),
    ):
        general.load_state_dict(named.state_dict())
        assert torch.equal(named.log_prob(value, parents), general.log_prob(value, parents))
    assert describe(AdditiveNoise)["init_args"] == {}
