"""Every mechanism obeys every law."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import (
    AffineFlow,
    ConditionalVAE,
    Context,
    FlowMatching,
    HierarchicalVAE,
    ImageMechanism,
    MultiscaleFlow,
    SplineFlow,
)
from deepscm_pl.nn import (
    ConvolutionalConditioner,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Ladder,
    PyramidDecoder,
    PyramidEncoder,
    ResidualDecoder,
    ResidualEncoder,
    UNet,
)
from deepscm_pl.transforms import ImplicitMidpoint, Interval, Positive, Real
from deepscm_pl.variables import Domain

import laws
from likelihoods_of_all_kinds import LIKELIHOODS

SIZE = 5
CONSTRAINTS = {"real": Real, "positive": Positive, "interval": partial(Interval, low=-1, high=4)}
FLOWS = {
    "affine": AffineFlow,
    "spline": SplineFlow,
    "additive": partial(AffineFlow, additive=True),
    "additive-spline": partial(SplineFlow, additive=True, hidden=()),
}
SMALL = {
    "shape": (1, 9, 10),
    "latent": 3,
    "hidden": 7,
    "encoder": partial(ConvolutionalEncoder, features=6, channels=(3, 4)),
    "decoder": partial(ConvolutionalDecoder, hidden=8, channels=(4, 3)),
}
SMALL_FLOW = {
    "shape": (1, 4, 8),
    "steps": (2, 1),
    "conditioner": partial(ConvolutionalConditioner, hidden=5),
    "log_scale_bound": 0.5,  # so that no sample is so bright that its last digits are lost
}
BRIGHT = partial(LIKELIHOODS["mixture"], brightness=("age",))
EXPOSED = partial(LIKELIHOODS["mixture"], exposure=True)

RESIDUAL = {
    "encoder": partial(ResidualEncoder, features=6, channels=(3, 4), embedding=5),
    "decoder": partial(ResidualDecoder, hidden=8, channels=(4, 3), embedding=5),
    "likelihood": LIKELIHOODS["mixture"],
}

CASES = {
    f"{flow}-{constraint}-{parents}": (partial(make, constraint=CONSTRAINTS[constraint]), parents)
    for flow, make in FLOWS.items()
    for constraint in CONSTRAINTS
    for parents in ("none", "two")
} | {
    f"vae-{likelihood}-{parents}": (partial(ConditionalVAE, likelihood=made, **SMALL), parents)
    for likelihood, made in LIKELIHOODS.items()
    for parents in ("none", "two")
}
CASES |= {
    f"multiscale-{parents}": (partial(MultiscaleFlow, **SMALL_FLOW), parents)
    for parents in ("none", "two")
} | {
    f"vae-residual-{parents}": (partial(ConditionalVAE, **(SMALL | RESIDUAL | more)), parents)
    for parents, more in {"none": {}, "two": {"likelihood": BRIGHT}}.items()
}


SMALL_PYRAMID = {
    "encoder": partial(PyramidEncoder, features=6, channels=(3, 4), convolutions=2),
    "decoder": partial(PyramidDecoder, channels=(4, 3), convolutions=2),
}
CASES |= {
    "vae-pyramid-two": (partial(ConditionalVAE, **(SMALL | SMALL_PYRAMID)), "two"),
    "vae-volume-two": (
        partial(ConditionalVAE, **(SMALL | SMALL_PYRAMID | {"shape": (1, 5, 6, 4)})),
        "two",
    ),
    "vae-volume-mixture-none": (
        partial(
            ConditionalVAE,
            likelihood=LIKELIHOODS["mixture"],
            **(SMALL | SMALL_PYRAMID | {"shape": (2, 5, 6, 4)}),
        ),
        "none",
    ),
    "vae-volume-brightness-two": (
        partial(
            ConditionalVAE,
            likelihood=BRIGHT,
            **(SMALL | SMALL_PYRAMID | {"shape": (1, 5, 6, 4)}),
        ),
        "two",
    ),
    "vae-exposure-none": (partial(ConditionalVAE, likelihood=EXPOSED, **SMALL), "none"),
}

LADDER = {
    "shape": (1, 9, 10),
    "ladder": partial(Ladder, channels=(3, 4, 5), latents=(1, 0, 3), embedding=5),
}
LADDERS = {
    "none": {},
    "two": {"likelihood": LIKELIHOODS["mixture"]},
    "conditional-two": {"likelihood": LIKELIHOODS["discretised"], "prior": "conditional"},
    "conditional-none": {"likelihood": LIKELIHOODS["predicted_low_rank"], "prior": "conditional"},
    "brightness-two": {"likelihood": BRIGHT, "prior": "conditional"},
    "exposure-two": {"likelihood": EXPOSED},
    "volume-two": {"shape": (2, 5, 6, 4), "likelihood": LIKELIHOODS["discretised"]},
}
CASES |= {
    f"ladder-{name}": (partial(HierarchicalVAE, **(LADDER | more)), name.split("-")[-1])
    for name, more in LADDERS.items()
}

SMALL_MATCHING = {
    "shape": (1, 3, 4),
    "network": partial(UNet, channels=(2, 3), blocks=1, embedding=4),
    "solver": ImplicitMidpoint(steps=6, tolerance=1e-13),
}
CASES |= {
    f"matching-{parents}": (partial(FlowMatching, **SMALL_MATCHING), parents)
    for parents in ("none", "two")
}


def make_parents(which):
    if which == "none":
        return {}, {}
    domains = {"age": Domain(lower=0.0), "sex": Domain(categories=2)}
    values = {"age": 40 + 20 * torch.rand(SIZE, 1), "sex": torch.randint(2, (SIZE, 1)).double()}
    return domains, values


def perturb(mechanism):
    """Perturb the initial identity, so that every parameter matters."""
    with torch.no_grad():
        for parameter in mechanism.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mechanism


@pytest.fixture(params=CASES)
def case(request, double):
    factory, which = CASES[request.param]
    domains, parents = make_parents(which)
    mechanism = perturb(factory(Context(domains)))
    if isinstance(mechanism, ImageMechanism):
        recorded = torch.randint(0, 256, (SIZE, *mechanism.shape)).double()
        mechanism.fit(recorded, parents)
        value = mechanism.dequantise(recorded)
    else:
        value = 0.3 + 3 * torch.rand(SIZE, 1)
        mechanism.fit(value, parents)
    return mechanism, (lambda: factory(Context(domains))), value, parents


def test_abduction_explains_the_value(case):
    mechanism, _, value, parents = case
    laws.forward_explains_abduction(mechanism, value, parents)


def test_noise_of_samples_is_recovered(case):
    mechanism, _, _, parents = case
    laws.abduction_recovers_noise(mechanism, parents, SIZE)


def test_rows_are_independent(case):
    mechanism, _, value, parents = case
    laws.rows_are_independent(mechanism, value, parents)


def test_gradients_reach_every_parameter(case):
    mechanism, _, value, parents = case
    laws.gradients_reach_every_parameter(mechanism, value, parents)


def test_state_survives_saving(case):
    mechanism, fresh, value, parents = case
    laws.saves_and_loads(mechanism, fresh(), value, parents)


def test_copies_after_use(case):
    mechanism, _, value, parents = case
    laws.copies_after_use(mechanism, value, parents)


def test_likeliest_noise_explains(case):
    mechanism, _, value, parents = case
    laws.likeliest_noise_explains(mechanism, value, parents)


def test_particles_broadcast(case):
    mechanism, _, value, parents = case
    laws.particles_broadcast(mechanism, value, parents)


def test_pyro_sites_agree(case):
    mechanism, _, value, parents = case
    laws.pyro_sites_agree(mechanism, value, parents)


@pytest.mark.parametrize("candidates", [None, 3])
def test_recorded_values_are_recovered_from_the_noise_of_each_particle(case, candidates):
    """Every draw explains the recorded value, with different noise within a grey level."""
    mechanism, _, value, parents = case
    recorded = mechanism.quantise(value)
    if candidates is None:
        noise = mechanism.abduct_recorded(recorded, parents, (4,))
    else:
        noise = mechanism.resample(recorded, parents, (4,), candidates)
    again = mechanism.quantise(mechanism(noise, parents))
    torch.testing.assert_close(again, recorded.expand_as(again), atol=1e-9, rtol=1e-9)
    if mechanism.domain.whole:
        assert torch.equal(again, recorded.expand_as(again))
        assert (noise["u"][0] != noise["u"][1]).all()


GRIDS = {
    "real": torch.linspace(-40, 40, 40001, dtype=torch.float64),
    "positive": torch.logspace(-9, 7, 40001, base=torch.e, dtype=torch.float64),
    "interval": torch.linspace(-1 + 1e-9, 4 - 1e-9, 400001, dtype=torch.float64),
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("flow", FLOWS)
def test_density_integrates_to_one(double, flow, constraint):
    mechanism = perturb(FLOWS[flow](Context(), constraint=CONSTRAINTS[constraint]))
    mechanism.fit(0.3 + 3 * torch.rand(50, 1), {})
    laws.density_integrates_to_one(mechanism, GRIDS[constraint][:, None], {})


@pytest.mark.parametrize("flow", FLOWS)
def test_conditional_density_integrates_to_one(double, flow):
    domains, parents = make_parents("two")
    mechanism = perturb(FLOWS[flow](Context(domains)))
    mechanism.context.fit(parents)
    row = {name: value[:1] for name, value in parents.items()}
    grid = torch.linspace(-60, 60, 1_000_001)[:, None]
    laws.density_integrates_to_one(mechanism, grid, row)


def test_log_prob_is_the_density_of_samples(double):
    """The share of samples below a point is the integral of the density up to it."""
    mechanism = perturb(SplineFlow(Context()))
    samples = mechanism(mechanism.sample_noise((200_000,)), {}).detach()
    point = samples.median()
    grid = torch.linspace(-40, float(point), 20001)[:, None]
    below = torch.trapezoid(mechanism.log_prob(grid, {}).exp(), grid.squeeze(-1))
    torch.testing.assert_close(below, torch.tensor(0.5), atol=5e-3, rtol=0)


def test_vae_has_only_a_bound():
    mechanism = ConditionalVAE(Context(), **SMALL)
    with pytest.raises(NotImplementedError, match="lower bound"):
        mechanism.log_prob(torch.zeros(1, 1, 9, 10), {})


def test_vae_encodes_once_for_all_particles(double):
    mechanism = ConditionalVAE(Context(), **SMALL)
    batches = []
    mechanism.encoder.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    value = mechanism.dequantise(torch.randint(0, 256, (4, 1, 9, 10)).double())
    mechanism.abduct(value, {}, (7,))
    mechanism.evidence(value, {}, num_particles=5)
    assert batches == [4, 4]


def test_the_posterior_of_an_image_unlike_any_other_is_finite(double):
    """Draws of a very wide posterior are finite."""
    mechanism = ConditionalVAE(Context(), **SMALL)
    with torch.no_grad():
        mechanism.posterior_head[2].bias[3:] = 1e4
    value = mechanism.dequantise(torch.randint(0, 256, (4, 1, 9, 10)).double())
    posterior = mechanism.posterior(value, {})
    assert posterior.log_scale.max() <= 2
    noise = mechanism.abduct(value, {})
    assert all(torch.isfinite(part).all() for part in noise.values())
    assert torch.isfinite(mechanism(noise, {})).all()


def test_vae_refuses_images_scaled_to_one():
    mechanism = ConditionalVAE(Context(), **SMALL)
    with pytest.raises(ValueError, match="multiply images"):
        mechanism.fit(torch.rand(3, 1, 9, 10), {})
    with pytest.raises(ValueError, match=r"whole numbers in \[0, 255\]"):
        mechanism.domain.check("image", torch.rand(3, 1, 9, 10) * 255)


def test_vae_names_an_encoder_without_features():
    with pytest.raises(ValueError, match="out_features"):
        ConditionalVAE(Context(), **{**SMALL, "encoder": lambda *_: torch.nn.Identity()})


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_keep_their_precision_under_autocast(flow):
    domains, parents = make_parents("two")
    parents = {name: value.float() for name, value in parents.items()}
    mechanism = perturb(FLOWS[flow](Context(domains)))
    value = torch.randn(SIZE, 1)
    expected = mechanism.log_prob(value, parents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mechanism.log_prob(value, parents), expected)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_images_keep_their_precision_under_autocast(likelihood):
    mechanism = ConditionalVAE(Context(), likelihood=LIKELIHOODS[likelihood], **SMALL)
    value = mechanism.dequantise(torch.randint(0, 256, (4, 1, 9, 10)))
    with torch.autocast("cpu", torch.bfloat16):
        evidence = mechanism.evidence(value, {})
        noise = mechanism.abduct(value, {})
        again = mechanism(noise, {})
    assert evidence.bound.dtype == again.dtype == torch.float32
    assert noise["u"].dtype == torch.float64
    assert torch.equal(mechanism.quantise(again), mechanism.quantise(value))


@pytest.mark.parametrize("make", [AffineFlow, SplineFlow])
def test_additive_noise_moves_all_values_of_equal_parents_alike(make):
    torch.manual_seed(0)
    context = Context({"age": Domain()})
    flow = make(context, hidden=(4,), additive=True).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(std=0.3)
        noise = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None]
        old, young = (flow({"u": noise}, {"age": torch.full((50, 1), age)}) for age in (2.0, -1.0))
    assert (old - young).std() < 1e-12 < (old - young).abs().min()
    assert old.std() > 0.1
