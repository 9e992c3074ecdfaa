"""Laws of attributes with atoms: steps, ordered classes, and values that are often zero."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from test_mechanism_laws import make_parents, perturb

from deepscm_pl.mechanisms import (
    AffineFlow,
    Context,
    Ordinal,
    SplineFlow,
    SteppedFlow,
    ZeroInflatedFlow as ZeroInflated,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Interval, Positive, Real
from deepscm_pl.variables import Domain

import laws

POSITIVE = partial(AffineFlow, constraint=Positive)
CASES = {
    "counts": (partial(SteppedFlow, flow=POSITIVE), [0, 1, 2, 3, 5, 8]),
    "counts by a spline": (
        partial(SteppedFlow, flow=partial(SplineFlow, constraint=Positive)),
        [0, 1, 2, 3, 5, 8],
    ),
    "scores": (
        partial(SteppedFlow, flow=partial(AffineFlow, constraint=partial(Interval, 1, 6))),
        [1, 2, 3, 4, 5],
    ),
    "halves": (
        partial(SteppedFlow, flow=partial(AffineFlow, constraint=Real), step=0.5),
        [-1, -0.5, 0, 0.5, 1.5],
    ),
    "grades": (partial(Ordinal, categories=4), [0, 1, 2, 3]),
    "doses": (ZeroInflated, [0, 0, 0.3, 1.7, 4]),
}


@pytest.fixture(params=CASES)
def case(request, double):
    make, values = CASES[request.param]
    torch.manual_seed(0)
    places = torch.cat([torch.arange(len(values)), torch.randint(len(values), (40,))])
    value = torch.tensor(values, dtype=torch.float64)[places][:, None]
    domains, _ = make_parents("two")
    parents = {
        "age": 40 + 20 * torch.rand(len(value), 1),
        "sex": torch.randint(2, (len(value), 1)).double(),
    }
    mechanism = make(Context(domains))
    mechanism.fit(value, parents)
    return perturb(mechanism), (lambda: make(Context(domains))), value, parents


def test_laws(case):
    mechanism, fresh, value, parents = case
    laws.of_classes(mechanism, fresh, value, parents)


def test_values_of_own_noise_are_in_the_domain(case):
    mechanism, _, _, parents = case
    one = {name: each[:1] for name, each in parents.items()}
    value = mechanism(mechanism.sample_noise((5000,)), one)
    mechanism.domain.check("x", value)


def test_probabilities_are_those_of_samples(case):
    mechanism, _, _, parents = case
    one = {name: each[:1] for name, each in parents.items()}
    torch.manual_seed(0)
    drawn = mechanism(mechanism.sample_noise((40_000,)), one).flatten()
    found = torch.unique(drawn, return_counts=True)
    values = zip(*found, strict=True) if len(found[0]) < 2000 else [(0.0, (drawn == 0).sum())]
    for atom, count in values:
        probability = float(mechanism.log_prob(torch.tensor([[float(atom)]]), one).exp())
        assert float(count) / 40_000 == pytest.approx(probability, abs=0.012)


def test_abducted_noise_is_standard_normal_over_data(case):
    mechanism, _, _, parents = case
    one = {name: each[:1] for name, each in parents.items()}
    torch.manual_seed(1)
    value = mechanism(mechanism.sample_noise((20_000,)), one)
    noise = mechanism.abduct(value, one)["u"]
    for part in noise.unbind(-1):
        assert stats.kstest(part.flatten().detach().numpy(), "norm").pvalue > 1e-3


def test_probabilities_sum_to_one(double):
    score = SteppedFlow(Context(), flow=partial(SplineFlow, constraint=partial(Interval, 1, 6)))
    perturb(score)
    total = score.log_prob(torch.arange(1.0, 6)[:, None], {}).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_deep_tails_are_finite(double):
    count = SteppedFlow(Context(), partial(AffineFlow, constraint=Real))
    values = torch.tensor([[-30.0], [-20.0], [0.0], [20.0], [30.0], [300.0]])
    found = count.log_prob(values, {})
    expected = stats.norm.logcdf(-29.0) + np.log1p(
        -np.exp(stats.norm.logcdf(-30.0) - stats.norm.logcdf(-29.0))
    )
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in count.parameters())
    torch.testing.assert_close(count(count.abduct(values, {}), {}), values)


def test_single_precision_returns_every_count():
    torch.manual_seed(0)
    count = SteppedFlow(Context({"age": Domain()}), POSITIVE)
    age = 50 + 10 * torch.randn(4000, 1)
    value = torch.poisson(age * 20)
    count.fit(value, {"age": age})
    noise = count.abduct(value, {"age": age}, (5,))
    assert torch.equal(count(noise, {"age": age}), value.expand(5, -1, -1))
    rows = [count({"u": noise["u"][0, k : k + 1]}, {"age": age[k : k + 1]}) for k in range(200)]
    assert torch.equal(torch.cat(rows), value[:200])


def test_best_possible_likelihood_of_scores_is_reached(double):
    """Five scores cannot be more probable than their entropy, as a spline's density would claim."""
    torch.manual_seed(0)
    value = torch.randint(1, 6, (2000, 1)).double()
    score = SteppedFlow(Context(), partial(SplineFlow, constraint=partial(Interval, 1, 6)))
    score.fit(value, {})
    optimiser = torch.optim.Adam(score.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -score.log_prob(value, {}).mean()
        loss.backward()
        optimiser.step()
    shares = torch.bincount(value.flatten().long())[1:] / 2000
    entropy = -float((shares * shares.log()).sum())
    assert float(loss) == pytest.approx(entropy, abs=0.01)
    assert float(loss) >= entropy - 1e-9


def test_counterfactual_grades_never_fall_where_their_cause_raises_them(double):
    scm = StructuralCausalModel(
        "age -> grade", {"age": AffineFlow, "grade": partial(Ordinal, categories=4, hidden=())}
    )
    torch.manual_seed(0)
    age = torch.randn(500, 1)
    grade = torch.bucketize(age + 0.5 * torch.randn(500, 1), torch.tensor([-1.0, 0, 1])).double()
    scm.fit({"age": age, "grade": grade})
    with torch.no_grad():
        weight = scm["grade"].parameters_of
        for parameter in weight.parameters():
            parameter.zero_()
        # Location rises with age, the scale stays.
        next(iter(weight.parameters())).view(2, -1)[0] = 0.7
    factual = {"age": age, "grade": grade}
    older = scm.counterfactual(factual, {"age": lambda a: a + 1}, num_particles=4)["grade"]
    assert bool((older >= grade).all())
    assert bool((older > grade).any())
    same = scm.counterfactual(factual, {"age": age}, num_particles=4)["grade"]
    assert torch.equal(same, grade.expand_as(same))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(SteppedFlow, step=0), "step: expected"),
        (partial(SteppedFlow, flow=partial(Ordinal, categories=3)), "flow: expected a Flow"),
        (
            partial(SteppedFlow, flow=partial(AffineFlow, constraint=partial(Interval, 0.5, 3))),
            "multiple of the step",
        ),
        (partial(ZeroInflated, flow=AffineFlow), "flow of positive numbers"),
        (partial(Ordinal, categories=1), "categories: expected"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make(Context())


def test_values_between_steps_are_refused():
    domain = SteppedFlow(Context(), partial(AffineFlow, constraint=Real), step=0.1).domain
    domain.check("x", torch.tensor([[0.1], [0.3], [-1.7]]))
    with pytest.raises(ValueError, match=r"multiples of 0\.1"):
        domain.check("x", torch.tensor([[0.25]]))
