"""The laws of mechanisms and bijections, each stated once.

A law is a function with assertions about its arguments; tests apply all laws to every mechanism and
transform. Everything is in float64.
"""

from __future__ import annotations

import copy
import io

import torch
from pyro import poutine
from torch import Tensor

from deepscm_pl.mechanisms import Mechanism


def assert_same_levels(found: Tensor, expected: Tensor) -> None:
    """Equal grey levels, except that rounding in another batch may change a few by one."""
    difference = (found - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def bijection_inverts(transform, x: Tensor) -> None:
    """T⁻¹(T(x)) = x and T(T⁻¹(y)) = y."""
    y = transform(x)
    torch.testing.assert_close(transform.inv(y), x.expand_as(y), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(transform(transform.inv(y)), y, atol=1e-9, rtol=1e-9)


def log_determinant_is_autograd(transform, x: Tensor) -> None:
    """log |dy/dx| of each entry and of each single sample agrees with autograd."""
    x = x.clone().requires_grad_()
    y = transform(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    found = transform.log_abs_det_jacobian(x, y)
    assert found.shape == y.shape
    torch.testing.assert_close(found, gradient.abs().log(), atol=1e-9, rtol=1e-7)


def forward_explains_abduction(mechanism: Mechanism, value: Tensor, parents) -> None:
    """f(abduct(x, pa); pa) = x, for every draw."""
    noise = mechanism.abduct(value, parents, (3,))
    again = mechanism(noise, parents)
    assert again.shape == (3, *value.shape)
    torch.testing.assert_close(again, value.expand_as(again), atol=1e-7, rtol=1e-7)


def abduction_recovers_noise(mechanism: Mechanism, parents, size: int) -> None:
    """Abduction recovers the exact part of the noise that generated a sample."""
    noise = mechanism.sample_noise((size,))
    value = mechanism(noise, parents)
    if "z" in noise:  # u is exact given z
        decoded = mechanism.decode(noise["z"], parents)
        processed = mechanism.preprocessing(mechanism.in_plane(value))
        found = mechanism.in_space(mechanism.likelihood.abduct(decoded, processed))
    else:
        found = mechanism.abduct(value, parents)["u"]
    torch.testing.assert_close(found, noise["u"], atol=1e-6, rtol=1e-6)


def likeliest_noise_explains(mechanism: Mechanism, value: Tensor, parents) -> None:
    """The likeliest noise of a recorded value gives that value, and needs no random numbers."""
    recorded = mechanism.quantise(value)
    state = torch.get_rng_state()
    noise = mechanism.coupled(mechanism.likeliest(recorded, parents), parents)
    assert torch.equal(torch.get_rng_state(), state)
    again = mechanism.quantise(mechanism(noise, parents))
    torch.testing.assert_close(again, recorded, atol=1e-7, rtol=1e-7)


def rows_are_independent(mechanism: Mechanism, value: Tensor, parents) -> None:
    """The results for a row do not depend on the other rows of the batch."""
    torch.manual_seed(1)
    noise = mechanism.abduct(value, parents)
    one = {name: parent[1:2] for name, parent in parents.items()}
    again = mechanism({key: part[1:2] for key, part in noise.items()}, one)
    torch.testing.assert_close(again, value[1:2], atol=1e-7, rtol=1e-7)
    if "z" not in noise:
        together = mechanism.log_prob(value, parents)[1:2]
        torch.testing.assert_close(mechanism.log_prob(value[1:2], one), together)
    else:
        single, batch = mechanism.posterior(value[1:2], one), mechanism.posterior(value, parents)
        torch.testing.assert_close(single.location, batch.location[1:2])


def gradients_reach_every_parameter(mechanism: Mechanism, value: Tensor, parents) -> None:
    """The bound depends on every parameter."""
    mechanism.zero_grad()
    mechanism.evidence(value, parents, num_particles=2).bound.sum().backward()
    for name, parameter in mechanism.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def saves_and_loads(mechanism: Mechanism, fresh: Mechanism, value: Tensor, parents) -> None:
    """A fresh mechanism with the saved state, including statistics, gives the same results."""
    buffer = io.BytesIO()
    torch.save(mechanism.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    torch.manual_seed(2)
    expected = mechanism.evidence(value, parents).bound
    torch.manual_seed(2)
    torch.testing.assert_close(fresh.evidence(value, parents).bound, expected, atol=0, rtol=0)


def copies_after_use(mechanism: Mechanism, value: Tensor, parents) -> None:
    """A deep copy works after a forward and backward pass; averaging of weights needs it."""
    mechanism.evidence(value, parents).bound.sum().backward()
    copied = copy.deepcopy(mechanism)
    torch.manual_seed(3)
    expected = mechanism.evidence(value, parents).bound
    torch.manual_seed(3)
    torch.testing.assert_close(copied.evidence(value, parents).bound, expected)
    # A second backward pass with the same tensors.
    mechanism.evidence(value, parents).bound.sum().backward()


def particles_broadcast(mechanism: Mechanism, value: Tensor, parents) -> None:
    """Noise (P, 1, B) and parents (K, 1) broadcast to (P, K, B)."""
    noise = mechanism.abduct(value, parents, (2,))
    spread = {key: part[:, None] for key, part in noise.items()}
    changed = {name: parent.expand(3, *parent.shape) for name, parent in parents.items()}
    event = mechanism.domain.shape
    shape = (2, 3, *value.shape) if parents else (2, 1, *value.shape)
    found = mechanism(spread, changed)
    assert found.shape == shape
    assert found.shape[-len(event) :] == event
    for k in range(shape[1]):
        torch.testing.assert_close(found[:, k], mechanism(noise, parents), atol=1e-9, rtol=1e-9)


def pyro_sites_agree(mechanism: Mechanism, value: Tensor, parents) -> None:
    """The Pyro model and the mechanism have the same log-probability of the value."""
    import pyro

    def model():
        with pyro.plate("observations", len(value), dim=-1):
            mechanism.model("x", parents)

    conditioned = pyro.condition(model, data={"x": value})
    trace = poutine.trace(conditioned).get_trace()
    trace.compute_log_prob()
    found = trace.nodes["x"]["log_prob"]
    assert found.shape == (len(value),)
    if "x.z" in trace.nodes:
        latent = trace.nodes["x.z"]["value"]
        expected = mechanism.image_distribution(latent, parents).log_prob(value)
    else:
        expected = mechanism.log_prob(value, parents)
    torch.testing.assert_close(found, expected)


def of_classes(mechanism: Mechanism, fresh, value: Tensor, parents) -> None:
    """Laws of values that bound their noise; ``fresh()`` creates another mechanism."""
    forward_explains_abduction(mechanism, value, parents)
    rows_are_independent(mechanism, value, parents)
    gradients_reach_every_parameter(mechanism, value, parents)
    saves_and_loads(mechanism, fresh(), value, parents)
    copies_after_use(mechanism, value, parents)
    pyro_sites_agree(mechanism, value, parents)


def density_integrates_to_one(mechanism: Mechanism, grid: Tensor, parents) -> None:
    """∫ p(x | pa) dx = 1 for a scalar variable, by the trapezoidal rule on a grid ``(N, 1)``."""
    density = mechanism.log_prob(grid, parents).exp()
    total = torch.trapezoid(density, grid.squeeze(-1))
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-3, rtol=0)
