"""Flows of vectors obey the laws, fit dependent entries, and take part in causal models."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.configuration import describe, restore
from deepscm_pl.mechanisms import AffineFlow, AutoregressiveFlow, Context, CouplingFlow
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import Interval, Positive, Real
from deepscm_pl.variables import Domain

import laws

SIZE, ENTRIES = 5, 3
FLOWS = {
    "autoregressive": partial(AutoregressiveFlow, size=ENTRIES, hidden=(6,), bins=4),
    "autoregressive-affine": partial(AutoregressiveFlow, size=ENTRIES, hidden=(), bins=0),
    "coupling": partial(CouplingFlow, size=ENTRIES, hidden=(6,), bins=4),
    "coupling-affine": partial(CouplingFlow, size=ENTRIES, hidden=(6,), bins=0, layers=3),
}
CONSTRAINTS = {"real": Real, "positive": Positive, "interval": partial(Interval, low=-1, high=5)}
DOMAINS = {"age": Domain(lower=0.0), "sex": Domain(categories=2), "place": Domain((2,))}


def perturbed(mechanism):
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return mechanism


@pytest.fixture(params=[(f, c, p) for f in FLOWS for c in CONSTRAINTS for p in (False, True)])
def case(request, double):
    flow, constraint, has_parents = request.param
    parents = {
        "age": 40 + 20 * torch.rand(SIZE, 1),
        "sex": torch.randint(2, (SIZE, 1)).double(),
        "place": torch.randn(SIZE, 2),
    }
    parents = parents if has_parents else {}
    domains = DOMAINS if has_parents else {}
    make = partial(FLOWS[flow], constraint=CONSTRAINTS[constraint])
    mechanism = perturbed(make(Context(domains)))
    value = 0.3 + 3 * torch.rand(SIZE, ENTRIES)
    mechanism.fit(value, parents)
    return mechanism, (lambda: make(Context(domains))), value, parents


def test_laws(case):
    mechanism, fresh, value, parents = case
    laws.forward_explains_abduction(mechanism, value, parents)
    laws.abduction_recovers_noise(mechanism, parents, SIZE)
    laws.rows_are_independent(mechanism, value, parents)
    laws.gradients_reach_every_parameter(mechanism, value, parents)
    laws.saves_and_loads(mechanism, fresh(), value, parents)
    laws.copies_after_use(mechanism, value, parents)
    laws.particles_broadcast(mechanism, value, parents)
    laws.pyro_sites_agree(mechanism, value, parents)


def test_log_prob_has_the_jacobian_of_autograd(case):
    mechanism, _, value, parents = case
    row = {name: each[:1] for name, each in parents.items()}
    noise = mechanism.abduct(value[:1], row)["u"][0].detach()

    def forward(u):
        return mechanism({"u": u[None]}, row)[0]

    jacobian = torch.autograd.functional.jacobian(forward, noise)
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum()
    expected = standard - torch.linalg.slogdet(jacobian).logabsdet
    found = mechanism.log_prob(value[:1], row)[0]
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def test_statistics_are_those_of_each_entry(double):
    flow = AutoregressiveFlow(Context(), size=2)
    value = torch.randn(100, 2) * torch.tensor([1.0, 1000.0]) + torch.tensor([5.0, 0.0])
    flow.fit(value, {})
    noise = flow.abduct(value, {})["u"]
    torch.testing.assert_close(noise.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(noise.std(0, correction=0), torch.ones(2), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"that differ, but all are 7"):
        flow.fit(torch.tensor([[1.0, 7.0], [2.0, 7.0]]), {})


def test_each_entry_keeps_its_quantile_given_those_before(double):
    """The triangular map: entry i depends on u_1, ..., u_i, and increases with u_i."""
    flow = perturbed(AutoregressiveFlow(Context(), size=4, hidden=(5,), bins=4))
    for _ in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda u: flow({"u": u[None]}, {})[0], torch.randn(4)
        )
        assert jacobian.triu(1).abs().max() == 0
        assert jacobian.diagonal().min() > 0


@pytest.mark.parametrize("make", [AutoregressiveFlow, CouplingFlow])
def test_a_ring_is_learned(make):
    """A density that no Gaussian has: its dependence is only of the squares."""
    torch.manual_seed(0)
    angle = 2 * torch.pi * torch.rand(512, 1)
    radius = 2 + 0.2 * torch.randn(512, 1)
    ring = radius * torch.cat([angle.cos(), angle.sin()], dim=1)
    flow = make(Context(), size=2, hidden=(32,))
    flow.fit(ring, {})
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    start = float(flow.log_prob(ring, {}).mean())
    for _ in range(150):
        optimizer.zero_grad()
        loss = -flow.log_prob(ring, {}).mean()
        loss.backward()
        optimizer.step()
    assert float(-loss) > start + 0.5
    drawn = flow(flow.sample_noise((1000,)), {}).detach().norm(dim=1)
    assert float(((drawn - 2).abs() < 0.8).float().mean()) > 0.7


def test_vectors_are_variables_and_parents_of_causal_models():
    scm = StructuralCausalModel(
        "age -> shape; age, shape -> length",
        {
            "age": AffineFlow,
            "shape": partial(AutoregressiveFlow, size=ENTRIES),
            "length": AffineFlow,
        },
    )
    rows = {"age": torch.randn(50, 1), "shape": torch.randn(50, ENTRIES)}
    rows["length"] = rows["shape"].sum(1, keepdim=True) + torch.randn(50, 1)
    scm.fit(rows)
    assert scm.log_prob(rows).shape == (50,)
    assert scm.sample(7)["shape"].shape == (7, ENTRIES)
    same = scm.counterfactual(rows, {"age": rows["age"]})
    torch.testing.assert_close(same["shape"][0], rows["shape"], atol=1e-4, rtol=1e-4)
    answer = scm.counterfactual(rows, {"shape": torch.zeros(ENTRIES)}, num_particles=2)
    assert answer["length"].shape == (2, 50, 1)


def test_a_description_makes_an_equal_flow():
    described = describe(partial(CouplingFlow, size=4, layers=2, constraint=Positive))
    assert described["class_path"] == "deepscm_pl.mechanisms.CouplingFlow"
    made = restore(described)(Context())
    assert (made.size, len(made.networks), type(made.constraint)) == (4, 2, Positive)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(AutoregressiveFlow, size=1), "size: expected a whole number"),
        (partial(AutoregressiveFlow, size=3, bins=1), "bins: expected 0"),
        (partial(AutoregressiveFlow, size=3, bound=0), "bound: expected"),
        (partial(CouplingFlow, size=3, layers=1), "layers: expected a whole number"),
        (partial(CouplingFlow, size=3, constraint=dict), "constraint: expected a Constraint"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(Context())


def test_a_vector_of_another_size_is_refused():
    scm = StructuralCausalModel("shape", {"shape": partial(CouplingFlow, size=3)})
    with pytest.raises(ValueError, match=r"shape: expected a tensor of shape \(\*batch, 3\)"):
        scm.fit({"shape": torch.randn(10, 2)})
