"""Image flows beyond the laws: single precision, real images, the fit."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.data.idx import read_idx
from deepscm_pl.mechanisms import AffineFlow, Context, MultiscaleFlow
from deepscm_pl.nn import ConvolutionalConditioner
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.transforms import ActivationNormalisation
from deepscm_pl.variables import Domain

NARROW = {"steps": (3, 3), "conditioner": partial(ConvolutionalConditioner, hidden=16)}
TINY = {
    "shape": (1, 4, 4),
    "steps": (2, 2),
    "conditioner": partial(ConvolutionalConditioner, hidden=4),
}


@pytest.fixture
def synthetic():
    """Bright discs on black, 28×28, as saturated as digits are."""
    grid = torch.arange(28.0)
    centre, radius = 8 + 12 * torch.rand(40, 2, 1, 1), 3 + 6 * torch.rand(40, 1, 1)
    distance = (grid[:, None] - centre[:, 0]).hypot(grid - centre[:, 1])
    return (255 * (radius - distance + 0.5).clamp(0, 1)).round()[:, None]


@pytest.fixture
def real(real_data):
    path = next((real_data / "MNIST").rglob("t10k-images*"))
    return torch.as_tensor(read_idx(path)[:200])[:, None]


def away_from_the_identity(flow, image, parents):
    """Set couplings that act as strongly as trained ones, and fit the normalisation."""
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "conditioner" in name:
                parameter.add_(0.15 * torch.randn_like(parameter))
    flow.fit(image, parents)
    return flow


@pytest.mark.parametrize("images", ["synthetic", "real"])
def test_inverts_in_single_precision(request, images):
    """Within 1e-4 of the range of grey levels, of images in single precision.

    In single precision throughout, how far rounding is amplified depends on the processor.
    """
    recorded = request.getfixturevalue(images)
    parents = {"t": torch.randn(len(recorded), 1)}
    flow = away_from_the_identity(
        MultiscaleFlow(Context({"t": Domain()}), **NARROW), recorded, parents
    )
    value = flow.dequantise(recorded)
    context = flow.context(parents)
    with torch.no_grad():
        noise = flow.abduct(value, parents)
        again = flow(noise, parents)
        single, _ = flow.infer(value, context)
        throughout = flow.generate(single, context)
    assert again.dtype == single.dtype == throughout.dtype == torch.float32
    assert ((again - value).abs() / 256).max() < 1e-4
    assert ((throughout - value).abs() / 256).max() < 1e-3


@pytest.mark.parametrize("images", ["synthetic", "real"])
def test_null_interventions_return_the_recorded_image(request, images):
    recorded = request.getfixturevalue(images)
    factual = {"t": torch.randn(len(recorded), 1), "image": recorded}
    factories = {"t": AffineFlow, "image": partial(MultiscaleFlow, **NARROW)}
    scm = StructuralCausalModel("t -> image", factories)
    away_from_the_identity(scm["image"], recorded, {"t": factual["t"]})
    with torch.no_grad():
        answer = scm.counterfactual(factual, {"t": factual["t"]}, num_particles=2)
        noise = scm["image"].abduct(scm["image"].dequantise(recorded), {"t": factual["t"]})
        again = scm["image"](noise, {"t": factual["t"]})
    assert torch.equal(answer["image"], recorded.float().expand(2, *recorded.shape))
    assert again.dtype == torch.float32


def test_abduction_recovers_recorded_grey_levels():
    """A flow with large activations loses digits of single precision, but no grey level."""
    flow = MultiscaleFlow(Context(), shape=(1, 8, 8), steps=(2,))
    recorded = torch.randint(0, 256, (200, 1, 8, 8))
    flow.fit(recorded, {})
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, ActivationNormalisation):
                module.location.sub_(3e4)
    value = flow.dequantise(recorded)
    with torch.no_grad():
        single, _ = flow.infer(value, torch.zeros(0))
        assert not torch.equal(flow.quantise(flow.generate(single, torch.zeros(0))), recorded)
        again = flow(flow.abduct(value, {}), {})
    assert torch.equal(flow.quantise(again), recorded.float())


def test_density_is_that_of_the_whole_jacobian(double):
    """log p(x) = log N(u; 0, I) + log |det du/dx| with autograd's Jacobian of abduction."""
    parents = {"t": torch.randn(3, 1)}
    recorded = torch.randint(0, 256, (3, 1, 4, 4)).double()
    flow = away_from_the_identity(
        MultiscaleFlow(Context({"t": Domain()}), **TINY), recorded, parents
    )
    value = flow.dequantise(recorded)
    found = flow.log_prob(value, parents)
    for k in range(3):
        one = {"t": parents["t"][k : k + 1]}

        def noise_of(x, row=one):
            return flow.abduct(x[None], row)["u"].flatten()

        noise = noise_of(value[k])
        jacobian = torch.autograd.functional.jacobian(noise_of, value[k]).flatten(1)
        base = torch.distributions.Normal(0, 1).log_prob(noise).sum()
        torch.testing.assert_close(found[k], base + torch.linalg.slogdet(jacobian).logabsdet)


def test_fit_is_the_same_on_every_process_and_draws_no_random_numbers():
    recorded = torch.randint(0, 256, (700, 1, 4, 4))
    states = []
    for seed in (1, 2):
        torch.manual_seed(0)
        flow = MultiscaleFlow(Context(), **TINY)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        flow.fit(recorded, {})
        assert torch.equal(torch.get_rng_state(), before)
        states.append(flow.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    noise = flow.abduct(flow.dequantise(recorded), {})["u"]
    assert noise.std().item() == pytest.approx(1, abs=0.15)


def test_training_raises_the_density(synthetic):
    flow = MultiscaleFlow(Context(), **NARROW)
    flow.fit(synthetic, {})
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    bounds = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = -flow.evidence(flow.dequantise(synthetic), {}).bound.mean()
        loss.backward()
        optimizer.step()
        bounds.append(-loss.item())
    assert bounds[-1] > bounds[0] + 200


def test_images_of_a_batch_are_drawn_independently():
    """Each image has independent noise, in a batch and among samples."""
    flow = MultiscaleFlow(Context({"a": Domain()}), **TINY)
    parents = {"a": torch.zeros(3, 1)}
    flow.fit(torch.randint(0, 256, (3, 1, 4, 4)).float(), parents)
    drawn = flow.distribution(parents).rsample((2,)).reshape(6, -1)
    distances = torch.pdist(drawn)
    assert bool((distances > 1).all())


def test_the_density_of_a_flow_is_explicit():
    """The evidence is the density, without the divergence of a latent."""
    flow = MultiscaleFlow(Context(), **TINY)
    image = torch.randint(0, 256, (5, 1, 4, 4)).float()
    flow.fit(image, {})
    value = flow.dequantise(image)
    evidence = flow.evidence(value, {}, num_particles=3)
    assert torch.equal(evidence.log_prob, flow.log_prob(value, {}))
    assert torch.equal(evidence.divergence, torch.zeros(5))


def test_keeps_its_precision_under_autocast():
    flow = MultiscaleFlow(Context(), **TINY)
    recorded = torch.randint(0, 256, (5, 1, 4, 4))
    away_from_the_identity(flow, recorded, {})
    value = flow.dequantise(recorded)
    expected = flow.log_prob(value, {})
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow.log_prob(value, {}), expected)
        again = flow(flow.abduct(value, {}), {})
    assert torch.equal(flow.quantise(again), recorded.float())


def test_gradients_pass_through_abduction_and_prediction():
    """In double precision the parameters of the network still receive gradients."""
    flow = MultiscaleFlow(Context({"t": Domain()}), **TINY)
    recorded = torch.randint(0, 256, (5, 1, 4, 4))
    away_from_the_identity(flow, recorded, {"t": torch.randn(5, 1)})
    noise = flow.abduct(flow.dequantise(recorded), {"t": torch.zeros(5, 1)})
    flow(noise, {"t": torch.ones(5, 1)}).sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_refuses_images_scaled_to_one():
    with pytest.raises(ValueError, match="multiply images"):
        MultiscaleFlow(Context(), **TINY).fit(torch.rand(3, 1, 4, 4), {})
