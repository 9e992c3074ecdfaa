"""The implicit mechanism: laws without a likelihood, the game of its players, its collapse."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl.mechanisms import (
    AdversarialLoss,
    AdversarialNetworks,
    AffineFlow,
    Context,
    ImplicitMechanism,
)
from deepscm_pl.mechanisms.implicit import _distance_from_standard, _Inwards, _Pair
from deepscm_pl.nn import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    PyramidDecoder,
    PyramidEncoder,
    ResidualDecoder,
    ResidualEncoder,
)
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain

import laws

SIZE = 5
_PLAIN = partial(ConvolutionalEncoder, features=6, channels=(3, 4))
_RESIDUAL = partial(ResidualEncoder, features=6, channels=(3, 4), embedding=5)
_PYRAMID = partial(PyramidEncoder, features=6, channels=(3, 4), convolutions=2)
NETWORKS = {
    "convolutional": AdversarialNetworks(
        _PLAIN, partial(ConvolutionalDecoder, hidden=8, channels=(4, 3)), _PLAIN
    ),
    "residual": AdversarialNetworks(
        _RESIDUAL, partial(ResidualDecoder, hidden=8, channels=(4, 3), embedding=5), _RESIDUAL
    ),
    "volume": AdversarialNetworks(
        _PYRAMID, partial(PyramidDecoder, channels=(4, 3), convolutions=2), _PYRAMID
    ),
}
CASES = {
    "convolutional-none": {},
    "convolutional-two": {"loss": AdversarialLoss("hinge", abducted=1.0)},
    "residual-two": {},
    "volume-two": {"shape": (2, 5, 6, 4)},
}


def make(which, domains, **more):
    settings = {"shape": (1, 9, 10), "latent": 3, "hidden": 7, **CASES[which], **more}
    return ImplicitMechanism(Context(domains), networks=NETWORKS[which.split("-")[0]], **settings)


def parents_of(which):
    if which.endswith("none"):
        return {}, {}
    domains = {"age": Domain(lower=0.0), "sex": Domain(categories=2)}
    values = {"age": 40 + 20 * torch.rand(SIZE, 1), "sex": torch.randint(2, (SIZE, 1)).double()}
    return domains, values


@pytest.fixture(params=CASES)
def case(request, double):
    domains, parents = parents_of(request.param)
    mechanism = make(request.param, domains)
    recorded = torch.randint(0, 256, (SIZE, *mechanism.shape)).double()
    mechanism.fit(recorded, parents)
    return mechanism, lambda: make(request.param, domains), recorded, parents


def test_abduction_explains_the_value(case):
    mechanism, _, recorded, parents = case
    laws.forward_explains_abduction(mechanism, mechanism.dequantise(recorded), parents)


def test_recorded_images_are_recovered_from_every_draw(case):
    mechanism, _, recorded, parents = case
    again = mechanism.quantise(
        mechanism(mechanism.abduct_recorded(recorded, parents, (4,)), parents)
    )
    assert torch.equal(again, recorded.expand_as(again))


def test_particles_broadcast(case):
    mechanism, _, recorded, parents = case
    laws.particles_broadcast(mechanism, mechanism.dequantise(recorded), parents)


def test_rows_are_independent(case):
    mechanism, _, recorded, parents = case
    value = mechanism.dequantise(recorded)
    together = mechanism.infer(value, parents)
    one = {name: each[1:2] for name, each in parents.items()}
    torch.testing.assert_close(mechanism.infer(value[1:2], one), together[1:2])
    noise = mechanism.sample_noise((SIZE,))
    part = {name: each[1:2] for name, each in noise.items()}
    torch.testing.assert_close(mechanism(part, one), mechanism(noise, parents)[1:2])


def test_state_survives_saving(case):
    mechanism, fresh, recorded, parents = case
    other = fresh()
    other.load_state_dict(mechanism.state_dict())
    value = mechanism.dequantise(recorded)
    for each in (mechanism, other):
        torch.manual_seed(2)
        each.eval()
        found = each.training_evidence(value, parents).bound, each.baseline
        assert torch.isfinite(found[0]).all()
        assert torch.equal(found[0], mechanism.training_evidence(value, parents).bound)
        assert torch.equal(found[1], mechanism.baseline)


def losses_by(mechanism, recorded, parents):
    """The gradients of a training step, by parameter."""
    mechanism.train()
    mechanism.zero_grad()
    torch.manual_seed(3)
    evidence = mechanism.training_evidence(mechanism.dequantise(recorded), parents)
    assert evidence.is_loss
    assert evidence.bound.shape == (SIZE,)
    (-evidence.bound.mean()).backward()
    return {name: each.grad.clone() for name, each in mechanism.named_parameters()}


def test_every_parameter_has_a_gradient(case):
    mechanism, _, recorded, parents = case
    with torch.no_grad():  # else the gradients of a hinge cancel
        for parameter in mechanism.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    for name, gradient in losses_by(mechanism, recorded, parents).items():
        assert torch.isfinite(gradient).all(), name
        cancels = mechanism.loss.form == "hinge" and name == "critic_head.2.bias"
        assert cancels or gradient.abs().sum() > 0, name


@pytest.mark.parametrize("form", ["logistic", "hinge"])
def test_one_backward_pass_gives_each_player_the_gradient_of_its_own_loss(double, form):
    """Against two passes: the critic's of its loss, and that of the networks of theirs."""
    domains, parents = parents_of("residual-two")
    loss = AdversarialLoss(form, reconstruction=0, noise_reconstruction=0, moments=0, penalty=0)
    mechanism = make("residual-two", domains, loss=loss)
    recorded = torch.randint(0, 256, (SIZE, *mechanism.shape)).double()
    mechanism.fit(recorded, parents)
    found = losses_by(mechanism, recorded, parents)

    def scores():
        torch.manual_seed(3)
        value = mechanism.dequantise(recorded)
        context = mechanism.context(parents)
        image = 2 * value / 256 - 1
        observed = _Pair(image, mechanism._infer_rows(image, context), context)
        generated, excess = mechanism._generated(observed)
        return mechanism._score(observed), mechanism._score(generated), excess

    for of_critic in (True, False):
        mechanism.zero_grad()
        observed, generated, excess = scores()
        own = loss.of_critic if of_critic else loss.of_networks
        (own(observed, generated) + excess).mean().backward()
        for name, each in mechanism.named_parameters():
            if name.startswith("critic") == of_critic:
                torch.testing.assert_close(found[name], each.grad, msg=name)


def test_the_penalty_is_that_of_the_gradient(double):
    domains, parents = parents_of("residual-two")
    mechanism = make("residual-two", domains)
    context = mechanism.context(parents)
    pair = _Pair(torch.rand(SIZE, 1, 9, 10), torch.randn(SIZE, 3), context)
    found = mechanism._penalty(pair)
    rows = found.nonzero().flatten().tolist()
    assert rows == [0, 1]  # a quarter of five rows, rounded up
    step = 1e-6
    direction = torch.randn(1, 1, 9, 10)
    moved = [
        mechanism._score(pair._replace(image=pair.image + sign * step * direction))[0]
        for sign in (1, -1)
    ]
    image = pair.image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mechanism._score(pair._replace(image=image))[0], image)
    torch.testing.assert_close((moved[0] - moved[1]) / (2 * step), (gradient[0] * direction).sum())
    assert found[0] * 2 / SIZE >= gradient[0].square().sum()


def test_the_distance_of_moments_is_estimated_without_bias(double):
    root = torch.tensor([[1.5, 0.0], [0.4, 0.7]])
    mean = torch.tensor([0.3, -0.2])
    batches = mean + torch.randn(40_000, 6, 2) @ root.T
    found = torch.vmap(_distance_from_standard)(batches)
    second = root @ root.T + mean[:, None] * mean
    expected = (mean.square().sum() + (second - torch.eye(2)).square().sum()) / 2
    error = found.std() / len(found) ** 0.5
    assert (found.mean() - expected).abs() < 4 * error
    assert error < 0.02 * expected
    assert _distance_from_standard(torch.randn(1, 2)) == 0
    uneven = torch.randn(5, 2)  # the fifth row has no partner
    assert _distance_from_standard(uneven) == _distance_from_standard(uneven[:4])


def test_gradients_of_pixels_outside_point_inside():
    image = torch.tensor([-1.5, -1.5, 0.5, 0.5, 1.5, 1.5], requires_grad=True)
    gradient = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    shown = _Inwards.apply(image)
    shown.backward(gradient)
    assert shown.tolist() == [-1, -1, 0.5, 0.5, 1, 1]
    # A step against the gradient of the second pixel is towards white, of the fifth towards black.
    assert image.grad.tolist() == [0, -1, 1, -1, 1, 0]


def test_without_the_residual_an_image_is_only_reconstructed():
    mechanism = make("convolutional-none", {}, residual="none")
    recorded = torch.randint(0, 256, (SIZE, 1, 9, 10)).float()
    mechanism.fit(recorded, {})
    noise = mechanism.abduct_recorded(recorded, {})
    assert set(noise) == {"z"}
    assert not mechanism.abduction_is_exact
    again = mechanism.quantise(mechanism(noise, {}))
    assert not torch.equal(again, recorded)
    assert make("convolutional-none", {}).abduction_is_exact


def test_there_is_no_likelihood():
    mechanism = make("convolutional-none", {})
    value = mechanism.dequantise(torch.zeros(2, 1, 9, 10))
    assert not mechanism.has_likelihood
    for ask in (mechanism.log_prob, mechanism.evidence, mechanism.log_weights):
        with pytest.raises(NotImplementedError, match="no likelihood"):
            ask(value, {})
    with pytest.raises(NotImplementedError, match="no likelihood"):
        mechanism.distribution({})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"residual": "some"}, "residual: expected kept or none, but got 'some'"),
        ({"latent": 0}, "latent"),
    ],
)
def test_settings_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        make("convolutional-none", {}, **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"form": "least squares"}, "form: expected logistic or hinge"),
        ({"penalty": -1.0}, "penalty"),
        ({"moments": -1.0}, "moments"),
        ({"abducted": 1.5}, "abducted"),
    ],
)
def test_settings_of_the_loss_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        AdversarialLoss(**settings)


def bars(size, seed):
    """Bars whose thickness is a parent, and whose brightness is noise, beside thickness 5."""
    generator = torch.Generator().manual_seed(seed)
    thickness = 1 + 5 * torch.rand(size, 1, generator=generator)
    bright = 80 + 160 * torch.rand(size, 1, 1, 1, generator=generator)
    covered = (thickness[..., None, None] - torch.arange(8.0)).clamp(0, 1).expand(-1, 1, 8, 8)
    answer = (5 - torch.arange(8.0)).clamp(0, 1)
    return (bright * covered).round(), {"thickness": thickness}, (bright * answer).round()


def trained(steps, **loss):
    torch.manual_seed(0)
    encoder = partial(ConvolutionalEncoder, features=32, channels=(8, 16))
    networks = AdversarialNetworks(
        encoder, partial(ConvolutionalDecoder, hidden=32, channels=(16, 8)), encoder
    )
    mechanism = ImplicitMechanism(
        Context({"thickness": Domain()}),
        shape=(1, 8, 8),
        latent=2,
        hidden=32,
        networks=networks,
        loss=AdversarialLoss(**loss),
    )
    image, parents, _ = bars(512, seed=1)
    mechanism.fit(image, parents)
    optimiser = torch.optim.Adam(mechanism.parameters(), lr=2e-3, betas=(0.5, 0.99))
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % 512
        some = {name: each[rows] for name, each in parents.items()}
        loss = -mechanism.training_evidence(mechanism.dequantise(image[rows]), some).bound.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return mechanism.eval()


def means(mechanism):
    image, parents, _ = bars(200, seed=2)
    with torch.no_grad():
        found = mechanism.diagnose(image, parents)
    return {name: float(each.mean()) for name, each in found.items()}


def test_a_training_learns_counterfactuals():
    mechanism = trained(250)
    assert mechanism.failure(means(mechanism)) is None
    image, parents, truth = bars(100, seed=3)
    with torch.no_grad():
        noise = mechanism.abduct_recorded(image, parents)
        wider = {"thickness": torch.full_like(parents["thickness"], 5.0)}
        answer = mechanism.quantise(mechanism(noise, wider))
    error = (answer - truth).abs().mean()
    assert error < 0.85 * (image - truth).abs().mean()


def test_pixels_outside_of_the_grey_levels_return():
    """The critic does not see how far outside a pixel is, so that it must not drive it there."""
    mechanism = trained(150, reconstruction=0, noise_reconstruction=0)
    _, parents, _ = bars(100, seed=3)
    with torch.no_grad():
        generated = mechanism.generate(torch.randn(100, 2), parents)
    assert (generated.abs() - 1).clamp(min=0).mean() < 0.1


def test_a_collapse_is_noticed_and_described():
    mechanism = trained(0)
    assert mechanism.failure(means(mechanism)) is not None
    found = means(mechanism)
    assert "the generator has collapsed" in mechanism.failure(found)
    varied = {**found, "diversity": 1.0, "unexplained_variance": 1.2}
    assert "the encoder has collapsed" in mechanism.failure(varied)
    assert mechanism.failure({**varied, "unexplained_variance": 0.3}) is None


def test_the_baseline_is_the_variance_that_parents_leave_unexplained():
    mechanism = make("convolutional-two", {"age": Domain()})
    age = torch.rand(3000, 1)
    image = (40 * age[..., None, None] + 100 + 10 * torch.randn(3000, 1, 9, 10)).round()
    mechanism.fit(image, {"age": age})
    torch.testing.assert_close(mechanism.baseline, torch.tensor(100.0), rtol=0.05, atol=0)


def test_a_model_answers_at_all_three_rungs():
    scm = StructuralCausalModel(
        "age -> image",
        {
            "age": AffineFlow,
            "image": partial(
                ImplicitMechanism,
                shape=(1, 9, 10),
                latent=3,
                networks=NETWORKS["convolutional"],
            ),
        },
    )
    data = {"age": torch.randn(SIZE, 1), "image": torch.randint(0, 256, (SIZE, 1, 9, 10)).float()}
    scm.fit(data)
    assert scm.sample(4)["image"].shape == (4, 1, 9, 10)
    assert scm.intervene({"age": 1.0}, 3)["image"].shape == (3, 1, 9, 10)
    found = scm.counterfactual(data, {"age": data["age"]}, num_particles=2)["image"]
    assert torch.equal(found, data["image"].expand_as(found))
    resampled = scm.abduct(data, 2, resample=3)["image"]
    assert resampled["z"].shape == (2, SIZE, 3)
    elbo = scm.eval().elbo(data)
    assert elbo.has_losses
    torch.testing.assert_close(elbo.known_bound, elbo.evidence["age"].bound)
