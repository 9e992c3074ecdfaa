"""Every part of an image flow is a bijection whose log-determinant is that of autograd."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.nn import ConvolutionalConditioner
from deepscm_pl.transforms import (
    ActivationNormalisation,
    AffineCoupling,
    ChannelMixing,
    ComposedBijection,
    MultiscaleBijection,
    normalise_activations,
)

CONDITIONER = partial(ConvolutionalConditioner, hidden=6)

CASES = {
    "normalisation": lambda: ActivationNormalisation(4),
    "mixing": lambda: ChannelMixing(4),
    "coupling": lambda: AffineCoupling(4, 3, CONDITIONER),
    "composition": lambda: ComposedBijection([ChannelMixing(4), AffineCoupling(4, 3, CONDITIONER)]),
    "empty": lambda: ComposedBijection([]),
    "one scale": lambda: MultiscaleBijection((4, 2, 2), (2,), 3, CONDITIONER),
    "two scales": lambda: MultiscaleBijection((1, 4, 4), (2, 2), 3, CONDITIONER),
    "three scales": lambda: MultiscaleBijection((1, 8, 8), (1, 1, 2), 3, CONDITIONER),
}
SHAPES = {"two scales": (1, 4, 4), "three scales": (1, 8, 8)}


@pytest.fixture(params=CASES)
def case(request, double):
    """A bijection with perturbed parameters, three images and their contexts."""
    bijection = CASES[request.param]()
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return bijection, torch.randn(3, *SHAPES.get(request.param, (4, 2, 2))), torch.randn(3, 3)


def test_inverts(case):
    bijection, image, context = case
    mapped = bijection(image, context).value
    torch.testing.assert_close(bijection.inverse(mapped, context), image, atol=1e-9, rtol=1e-9)
    noise = bijection(bijection.inverse(image, context), context).value
    torch.testing.assert_close(noise, image, atol=1e-9, rtol=1e-9)


def test_log_determinant_is_that_of_the_whole_jacobian(case):
    """The Jacobian is that of one image, with all its channels and pixels."""
    bijection, image, context = case
    found = bijection(image, context).log_determinant
    assert found.shape == (3,)
    for k in range(3):

        def single(x, row=k):
            return bijection(x[None], context[row : row + 1]).value[0].flatten()

        jacobian = torch.autograd.functional.jacobian(single, image[k]).flatten(1)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(found[k], expected, atol=1e-9, rtol=1e-9)


def test_images_are_mapped_independently(case):
    bijection, image, context = case
    together = bijection(image, context)
    single = bijection(image[1:2], context[1:2])
    torch.testing.assert_close(single.value, together.value[1:2])
    torch.testing.assert_close(single.log_determinant, together.log_determinant[1:2])


def test_context_matters_and_stays_with_its_image(double):
    bijection = MultiscaleBijection((1, 4, 4), (1, 1), 3, CONDITIONER)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    image, context = torch.randn(2, 1, 4, 4), torch.randn(2, 3)
    before = bijection(image, context)
    context[1] += 1
    after = bijection(image, context)
    torch.testing.assert_close(after.value[0], before.value[0])
    assert not torch.allclose(after.value[1], before.value[1])
    assert not torch.allclose(after.log_determinant[1], before.log_determinant[1])


def test_normalisation_is_fitted_once_layer_by_layer():
    """After the fit every normalisation returns mean 0 and variance 1 for the same images."""
    bijection = MultiscaleBijection((1, 8, 8), (2, 2), 0, CONDITIONER)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    image, context = 5 + 3 * torch.randn(40, 1, 8, 8), torch.empty(40, 0)
    normalise_activations(bijection, image, context)
    state = {name: value.clone() for name, value in bijection.state_dict().items()}
    outputs = []
    layers = [m for m in bijection.modules() if isinstance(m, ActivationNormalisation)]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, mapped: outputs.append(mapped.value))
    bijection(image, context)
    assert len(outputs) == len(layers) == 4
    for output in outputs:
        flat = output.transpose(0, 1).flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(len(flat)), atol=1e-4, rtol=0)
        torch.testing.assert_close(flat.var(1), torch.ones(len(flat)), atol=1e-2, rtol=0)
    bijection(3 * image, context)
    assert all(torch.equal(value, state[name]) for name, value in bijection.state_dict().items())


def test_normalisation_only_shifts_constant_channels():
    layer = ActivationNormalisation(1)
    layer.fit(torch.full((5, 1, 2, 2), 7.1))
    value = layer(torch.full((5, 1, 2, 2), 7.1), torch.empty(5, 0)).value
    torch.testing.assert_close(value, torch.zeros(5, 1, 2, 2), atol=1e-5, rtol=0)


def test_couplings_start_as_the_identity_and_stay_bounded():
    coupling = AffineCoupling(4, 2, CONDITIONER, log_scale_bound=0.5)
    image, context = torch.randn(3, 4, 5, 5), torch.randn(3, 2)
    assert torch.equal(coupling(image, context).value, image)
    torch.nn.init.constant_(coupling.conditioner.last.bias, 1e6)
    log_determinant = coupling(image, context).log_determinant
    torch.testing.assert_close(log_determinant, torch.full((3,), 0.5 * 2 * 25))


def test_noise_is_at_the_place_of_its_pixels():
    """An untrained flow without mixing is the identity, place by place, at all scales."""
    bijection = MultiscaleBijection((1, 8, 8), (1, 1), 0, CONDITIONER)
    for module in bijection.modules():
        if isinstance(module, ChannelMixing):
            identity = ChannelMixing(len(module.signs)).state_dict()
            eye = torch.eye(len(module.signs))
            zero = torch.zeros_like(eye)
            identity.update(permutation=eye, signs=eye.diagonal(), lower=zero, upper=zero)
            module.load_state_dict({**identity, "log_diagonal": zero.diagonal()})
    image = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(bijection(image, torch.empty(2, 0)).value, image)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineCoupling(3, 0, CONDITIONER), "even number, but got 3"),
        (lambda: AffineCoupling(4, 0, CONDITIONER, 0.0), "log_scale_bound: expected a number"),
        (lambda: MultiscaleBijection((1, 28, 28), (1, 1, 1), 0, CONDITIONER), "multiples of 8"),
        (lambda: MultiscaleBijection((1, 7, 8), (1,), 0, CONDITIONER), "7×8 pixels"),
        (lambda: MultiscaleBijection((1, 8, 8), (), 0, CONDITIONER), "at least 1 whole numbers"),
        (lambda: MultiscaleBijection((1, 8, 8), (2, 0), 0, CONDITIONER), r"\[2, 0\]"),
        (
            lambda: ConvolutionalConditioner(2, 0, 4, hidden=0),
            "hidden: expected a whole number",
        ),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
