"""The three rungs, compared with closed forms of a linear-Gaussian model."""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import MultivariateNormal

from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE, Constant, Context, SplineFlow
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.transforms import Interval, Positive

from linear_image import LinearImage, LogitFeatures

# x := 1 + 2 u;  y := -1 + 0.5 x + 0.7 u;  w := 2 x - 3 y + 0.3 u;  apart := 4 u
SCALES = {"x": 2.0, "y": 0.7, "w": 0.3, "apart": 4.0}
WEIGHTS = {"x": [], "y": [0.5], "w": [2.0, -3.0], "apart": []}
OFFSETS = {"x": 1.0, "y": -1.0, "w": 0.0, "apart": 0.0}


@pytest.fixture
def linear(double):
    """The linear-Gaussian model with the coefficients above."""
    graph = "x -> y; x, y -> w; apart"
    scm = StructuralCausalModel(graph, dict.fromkeys(SCALES, partial(AffineFlow, hidden=())))
    with torch.no_grad():
        for name, scale in SCALES.items():
            network = scm[name].parameters_of
            bias = torch.tensor([OFFSETS[name], torch.tensor(scale).log()])
            if network.context_features:
                network.layers[-1].bias.copy_(bias)
                network.layers[-1].weight[0] = torch.tensor(WEIGHTS[name])
            else:
                network.free.copy_(bias)
    return scm


@pytest.fixture
def factual(linear):
    with torch.no_grad():
        return linear.sample(6)


def closed_form(u, do):
    """Values for given noise under constant interventions, written out."""
    x = do.get("x", 1 + 2 * u["x"])
    y = do.get("y", -1 + 0.5 * x + 0.7 * u["y"])
    w = do.get("w", 2 * x - 3 * y + 0.3 * u["w"])
    return {"x": x, "y": y, "w": w, "apart": do.get("apart", 4 * u["apart"])}


def noise_by_hand(v):
    return {
        "x": (v["x"] - 1) / 2,
        "y": (v["y"] + 1 - 0.5 * v["x"]) / 0.7,
        "w": (v["w"] - 2 * v["x"] + 3 * v["y"]) / 0.3,
        "apart": v["apart"] / 4,
    }


def covariance():
    """Covariance of (x, y, w)."""
    weights = torch.tensor([[0, 0, 0], [0.5, 0, 0], [2.0, -3.0, 0]])
    mixing = torch.linalg.inv(torch.eye(3) - weights) @ torch.diag(torch.tensor([2.0, 0.7, 0.3]))
    return mixing @ mixing.T


def test_abduction_is_exact(linear, factual):
    noise = linear.abduct(factual)
    for name, u in noise_by_hand(factual).items():
        torch.testing.assert_close(noise[name]["u"][0], u)


@pytest.mark.parametrize(
    "do",
    [
        {"x": 3.0},
        {"y": -2.0},
        {"w": 1.0},
        {"x": 1.0, "y": 4.0},
        {"x": torch.randn(6, 1, dtype=torch.float64)},
        {"y": torch.randn(6, 1, dtype=torch.float64), "w": 0.0},
        {},
    ],
)
def test_counterfactuals_equal_the_closed_form(linear, factual, do):
    answer = linear.counterfactual(factual, do)
    expected = closed_form(noise_by_hand(factual), do)
    for name, value in answer.items():
        assert value.shape == (1, 6, 1)
        wanted = torch.as_tensor(expected[name]).expand(6, 1)
        torch.testing.assert_close(value[0], wanted.double(), atol=1e-9, rtol=1e-9)


def test_functions_replace_natural_values(linear, factual):
    """do(x + 1) changes the effects; do(y · 2) then doubles the resulting y."""
    answer = linear.counterfactual(factual, {"x": lambda x: x + 1, "y": lambda y: 2 * y})
    u = noise_by_hand(factual)
    x = factual["x"] + 1
    y = 2 * (-1 + 0.5 * x + 0.7 * u["y"])
    torch.testing.assert_close(answer["x"][0], x, atol=0, rtol=0)
    torch.testing.assert_close(answer["y"][0], y)
    torch.testing.assert_close(answer["w"][0], 2 * x - 3 * y + 0.3 * u["w"])


def test_non_descendants_stay_bit_for_bit(linear, factual):
    for do, same in (
        ({"x": 9.0}, ("apart",)),
        ({"y": 9.0}, ("x", "apart")),
        ({"w": 9.0}, ("x", "y", "apart")),
        ({"y": lambda y: y - 3}, ("x", "apart")),
    ):
        answer = linear.counterfactual(factual, do, num_particles=3)
        for name in same:
            assert torch.equal(answer[name], factual[name].expand(3, 6, 1))


@pytest.mark.parametrize("identity", [lambda value: value, "tensor"])
def test_null_intervention_returns_the_factual(linear, factual, identity):
    for name in linear.graph.nodes:
        do = {name: factual[name] if identity == "tensor" else identity}
        answer = linear.counterfactual(factual, do)
        for other in linear.graph.nodes:
            torch.testing.assert_close(answer[other][0], factual[other], atol=1e-12, rtol=1e-12)


def test_several_interventions_at_once(linear, factual):
    dos = [{"x": 1.0}, {"y": lambda y: y + 1}, {}]
    together = linear.counterfactual(factual, dos, num_particles=2)
    for k, do in enumerate(dos):
        alone = linear.counterfactual(factual, do, num_particles=2)
        for name in linear.graph.nodes:
            assert together[name].shape == (2, 3, 6, 1)
            assert torch.equal(together[name][:, k], alone[name])


def test_a_tensor_of_interventions(linear, factual):
    values = torch.linspace(-1, 1, 5)[:, None, None]
    together = linear.counterfactual(factual, {"x": values}, num_particles=2)
    for k in range(5):
        alone = linear.counterfactual(factual, {"x": values[k]}, num_particles=2)
        for name in linear.graph.nodes:
            assert together[name].shape == (2, 5, 6, 1)
            torch.testing.assert_close(together[name][:, k], alone[name])


def test_gradients_flow_through_counterfactuals(linear, factual):
    value = torch.tensor([[1.0]], requires_grad=True)
    linear.counterfactual(factual, {"x": value})["w"].sum().backward()
    # dw/dx = 2 − 3 · 0.5 for each of the 6 observations
    torch.testing.assert_close(value.grad, torch.tensor([[6 * 0.5]]))


def test_log_prob_is_that_of_the_joint_normal(linear, factual):
    joint = torch.cat([factual[name] for name in ("x", "y", "w")], dim=-1)
    mean = torch.tensor([1.0, -0.5, 2 + 1.5])
    expected = MultivariateNormal(mean, covariance()).log_prob(joint)
    expected += torch.distributions.Normal(0, 4).log_prob(factual["apart"]).squeeze(-1)
    torch.testing.assert_close(linear.log_prob(factual), expected)
    torch.testing.assert_close(linear.elbo(factual).bound, expected)


def test_intervention_has_its_analytic_moments(linear):
    """Under do(y = 2): w = 2 x − 6 + 0.3 u with x ~ N(1, 2²)."""
    with torch.no_grad():
        drawn = linear.intervene({"y": 2.0}, 200_000)
    assert torch.equal(drawn["y"], torch.full_like(drawn["y"], 2.0))
    assert drawn["x"].mean().item() == pytest.approx(1, abs=0.03)
    assert drawn["w"].mean().item() == pytest.approx(-4, abs=0.06)
    assert drawn["w"].var().item() == pytest.approx(16.09, rel=0.02)


def test_intervention_agrees_with_pyro(linear):
    """The draws are equal, and so is the distribution of w given x."""
    names = list(linear.graph.nodes)
    with torch.no_grad():
        mine = linear.intervene({"y": 2.0}, 200_000)
        theirs = pyro.do(linear.model, data={"y": torch.full((200_000, 1), 2.0)})(200_000)
    for name in names:
        assert mine[name].mean().item() == pytest.approx(theirs[name].mean().item(), abs=0.06)
        assert mine[name].std().item() == pytest.approx(theirs[name].std().item(), abs=0.06)
    seen = {"x": torch.full((3, 1), 1.5), "w": torch.tensor([[-4.0], [-3.0], [0.0]])}
    done = pyro.do(linear.model, data={"y": torch.full((3, 1), 2.0)})
    trace = poutine.trace(pyro.condition(done, data=seen)).get_trace(3)
    trace.compute_log_prob()
    acted = linear.act({"y": 2.0})
    expected = acted["w"].log_prob(seen["w"], {"x": seen["x"], "y": torch.full((3, 1), 2.0)})
    torch.testing.assert_close(trace.nodes["w"]["log_prob"], expected)
    closed = torch.distributions.Normal(2 * 1.5 - 3 * 2.0, 0.3).log_prob(seen["w"]).squeeze(-1)
    torch.testing.assert_close(expected, closed)


def test_pyro_condition_and_trace(linear, factual):
    trace = poutine.trace(pyro.condition(linear.model, data=factual)).get_trace(6)
    trace.compute_log_prob()
    total = sum(trace.nodes[name]["log_prob"] for name in linear.graph.nodes)
    torch.testing.assert_close(total, linear.log_prob(factual))


def test_intervened_model_is_a_pyro_model(linear):
    acted = linear.act({"x": lambda x: x + 100, "y": 2.0})
    trace = poutine.trace(acted.model).get_trace(4)
    assert torch.equal(trace.nodes["x"]["value"], trace.nodes["x.natural"]["value"] + 100)
    assert torch.equal(trace.nodes["y"]["value"].expand(4, 1), torch.full((4, 1), 2.0))
    assert acted.graph.parents["y"] == ()
    assert isinstance(acted["y"], Constant)
    assert linear["w"] is acted["w"]


def test_intervene_with_a_tensor_of_interventions(linear):
    values = torch.linspace(-1, 1, 3)[:, None, None]
    with torch.no_grad():
        drawn = linear.intervene({"x": values}, 5)
    assert drawn["w"].shape == (3, 5, 1)
    assert torch.equal(drawn["x"], values.expand(3, 5, 1))


def test_functions_may_return_a_number(linear, factual):
    answer = linear.counterfactual(factual, {"x": lambda x: 3.0})
    assert torch.equal(answer["x"], torch.full((1, 6, 1), 3.0))


def test_intervening_does_not_change_the_model(linear, factual):
    linear["x"].eval()
    acted = linear.act({"y": 2.0})
    assert linear.training
    assert not linear["x"].training
    with pytest.raises(ValueError, match="held constant"):
        acted.counterfactual(factual, {"x": 1.0})
    with pytest.raises(ValueError, match="under an intervention"):
        linear.act({"y": lambda y: y + 1}).abduct(factual)


def test_model_under_an_intervention_on_every_variable(linear, factual):
    acted = linear.act(dict.fromkeys(linear.graph.nodes, 1.0))
    ones = {name: torch.ones(6, 1) for name in factual}
    assert acted.counterfactual(ones, {"x": 1.0}, num_particles=2)["w"].shape == (2, 6, 1)


# A model with an image


@pytest.fixture
def imaging(double):
    """thickness -> intensity; both -> image, with random weights."""
    vae = partial(
        ConditionalVAE,
        shape=(1, 8, 8),
        latent=3,
        hidden=8,
        encoder=partial(ConvolutionalEncoder, features=6, channels=(3, 4)),
        decoder=partial(ConvolutionalDecoder, hidden=8, channels=(4, 3)),
    )
    scm = StructuralCausalModel(
        "thickness -> intensity; thickness, intensity -> image",
        {
            "thickness": partial(SplineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
            "image": vae,
        },
    )
    with torch.no_grad():
        for parameter in scm.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    scm.fit(make_observations(100))
    return scm


def make_observations(size):
    return {
        "thickness": 1 + 3 * torch.rand(size, 1, dtype=torch.float64),
        "intensity": 70 + 180 * torch.rand(size, 1, dtype=torch.float64),
        "image": torch.randint(0, 256, (size, 1, 8, 8)).double(),
    }


@pytest.fixture
def observations():
    return make_observations(5)


def test_null_intervention_returns_the_recorded_image(imaging, observations):
    """Exactly, because whole grey levels absorb rounding errors."""
    for do in ({}, {"thickness": observations["thickness"]}, {"intensity": lambda i: i}):
        answer = imaging.counterfactual(observations, do, num_particles=4)
        assert torch.equal(answer["image"], observations["image"].expand(4, 5, 1, 8, 8))


def test_null_intervention_in_single_precision(imaging, observations):
    imaging.float()
    torch.set_default_dtype(torch.float32)
    recorded = {name: value.float() for name, value in observations.items()}
    do = {"thickness": recorded["thickness"]}
    answer = imaging.counterfactual(recorded, do, num_particles=16)
    assert torch.equal(answer["image"], recorded["image"].expand(16, 5, 1, 8, 8))


def test_image_responds_and_attributes_follow_the_graph(imaging, observations):
    thicker = imaging.counterfactual(observations, {"thickness": 4.0}, num_particles=2)
    assert not torch.equal(thicker["intensity"][0], observations["intensity"])
    torch.testing.assert_close(thicker["intensity"][0], thicker["intensity"][1])
    assert not torch.equal(thicker["image"][0], observations["image"])
    brighter = imaging.counterfactual(observations, {"intensity": 200.0}, num_particles=2)
    assert torch.equal(brighter["thickness"], observations["thickness"].expand(2, 5, 1))
    assert not torch.equal(brighter["image"][0], observations["image"])


def test_particles_differ_and_are_summarised(imaging, observations):
    answer = imaging.counterfactual(observations, {"thickness": 6.0}, num_particles=8)["image"]
    mean, deviation = summarise(answer)
    assert mean.shape == deviation.shape == (5, 1, 8, 8)
    torch.testing.assert_close(mean, answer.mean(0))
    assert deviation.max() > 0


def test_sampled_images_are_grey_levels(imaging):
    image = imaging.sample((2, 3))["image"]
    assert image.shape == (2, 3, 1, 8, 8)
    assert torch.equal(image, image.floor())
    assert image.min() >= 0
    assert image.max() <= 255


@pytest.mark.parametrize("training", [True, False])
def test_elbo_dequantises_recorded_images_always(imaging, observations, training):
    """The bound of a recorded image equals that of the image with uniform noise."""
    imaging.train(training)
    torch.manual_seed(5)
    found = imaging.elbo(observations).bound
    torch.manual_seed(5)
    values = imaging.dequantise(observations)
    assert not torch.equal(values["image"], observations["image"])
    expected = sum(
        imaging[name].evidence(values[name], {p: values[p] for p in parents}).bound
        for name, parents in imaging.graph.parents.items()
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("particles", [1, 4])
def test_elbo_is_that_of_pyro(imaging, observations, particles):
    """The sum over mechanisms equals Pyro's TraceMeanField_ELBO of model and guide."""
    values = imaging.dequantise(observations)
    pyros = TraceMeanField_ELBO(
        num_particles=particles, vectorize_particles=True, max_plate_nesting=1
    )

    def model(values):
        return pyro.condition(imaging.model, data=values)(5)

    torch.manual_seed(5)
    theirs = -pyros.differentiable_loss(model, imaging.guide, values)
    torch.manual_seed(5)
    imaging.dequantise = lambda recorded: recorded  # the noise is drawn above
    mine = imaging.elbo(values, particles).bound.sum()
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-9)


def test_trace_elbo_agrees_in_expectation(imaging, observations):
    values = imaging.dequantise(observations)
    elbo = Trace_ELBO(num_particles=3000, vectorize_particles=True, max_plate_nesting=1)
    with torch.no_grad():
        theirs = -elbo.loss(
            lambda v: pyro.condition(imaging.model, data=v)(5), imaging.guide, values
        )
        imaging.dequantise = lambda recorded: recorded
        mine = imaging.elbo(values, 3000).bound.sum().item()
    assert mine == pytest.approx(theirs, rel=2e-3)


def test_elbo_of_a_linear_vae_is_exact_under_the_exact_guide(double):
    """y = W z + b + σ u is normal; with q(z | x) = p(z | x) the bound is log p(x), for any draw."""
    vae = ConditionalVAE(Context(), (1, 2, 3), latent=2, encoder=LogitFeatures, decoder=LinearImage)
    weight, bias = vae.decoder.linear.weight.detach(), vae.decoder.linear.bias.detach()
    variance = torch.tensor(-5.0).exp()
    precision = torch.eye(2) + weight.T @ weight / variance
    gain = torch.linalg.solve(precision, weight.T) / variance
    # This guide needs a diagonal posterior covariance, which a rotation of z provides.
    _, rotation = torch.linalg.eigh(precision)
    with torch.no_grad():
        vae.decoder.linear.weight.copy_(weight @ rotation)
    deviations = (rotation.T @ precision @ rotation).diagonal().rsqrt()
    head = torch.nn.Linear(6, 4)
    with torch.no_grad():
        head.weight.copy_(torch.cat([rotation.T @ gain, torch.zeros(2, 6)]))
        head.bias.copy_(torch.cat([-rotation.T @ gain @ bias, deviations.log()]))
    vae.posterior_head = head
    image = vae.dequantise(torch.randint(0, 256, (4, 1, 2, 3)).double())
    processed = vae.preprocessing(image)
    exact = MultivariateNormal(bias, weight @ weight.T + variance * torch.eye(6))
    expected = exact.log_prob(processed.flatten(1))
    expected += vae.preprocessing.log_abs_det_jacobian(image, processed).flatten(1).sum(1)
    found = torch.stack([vae.evidence(image, {}).bound for _ in range(20000)]).mean(0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    # and a wrong guide falls short
    with torch.no_grad():
        head.bias[:2] += 3 * deviations
    assert (vae.evidence(image, {}, 200).bound < expected - 1).all()


@pytest.fixture
def image_as_cause(double):
    """a -> image -> b."""
    vae = partial(
        ConditionalVAE,
        shape=(1, 4, 4),
        latent=2,
        encoder=partial(ConvolutionalEncoder, features=4, channels=(2,)),
        decoder=partial(ConvolutionalDecoder, hidden=4, channels=(2,)),
    )
    scm = StructuralCausalModel("a -> image -> b", {"a": AffineFlow, "image": vae, "b": AffineFlow})
    factual = {
        "a": torch.randn(6, 1),
        "image": torch.randint(0, 256, (6, 1, 4, 4)).double(),
        "b": torch.randn(6, 1),
    }
    with torch.no_grad():
        for parameter in scm.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    scm.fit(factual)
    return scm, factual


def test_an_image_may_be_a_cause(image_as_cause):
    """Its effects depend on the recorded image in abduction, prediction and the bound."""
    scm, factual = image_as_cause
    for name in ("a", "image"):
        answer = scm.counterfactual(factual, {name: factual[name]}, num_particles=3)
        assert torch.equal(answer["image"], factual["image"].expand(3, 6, 1, 4, 4))
        torch.testing.assert_close(answer["b"], factual["b"].expand(3, 6, 1))
    exact = scm["b"].log_prob(factual["b"], {"image": factual["image"]})
    torch.testing.assert_close(scm.elbo(factual).evidence["b"].bound, exact)
    values = scm.dequantise(factual)
    trace = poutine.trace(pyro.condition(scm.model, data=values)).get_trace(6)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["b"]["log_prob"], exact)


# Bad input


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"y_": 1.0}, "unknown variable 'y_'; expected one of x, y"),
        ({"y": float("nan")}, r"do\(y\): expected numbers, but got NaN"),
        ({"y": float("inf")}, "but got inf"),
        ({"y": torch.zeros(6)}, r"shape \(\*batch, 1\), but got \(6,\)"),
        ({"y": torch.zeros(6, 2)}, "but got"),
        ({"y": "three"}, "a number, a tensor or a function for y"),
        ({"y": lambda y: y * float("nan")}, "NaN"),
        ({"y": lambda y: y[:, :0]}, "expected a tensor of shape"),
        ({"y": torch.zeros(5, 1)}, r"do\(y\): expected batch dimensions .*\(6,\), but got \(5,\)"),
        ([{"x": torch.zeros(3, 1, 1)}, {"y": 1.0}], "either the sequence or the dimension"),
        ([], "at least one intervention"),
        (["y=3"], "expected a mapping"),
    ],
)
def test_bad_interventions_are_refused(linear, factual, do, message):
    with pytest.raises(ValueError, match=message):
        linear.counterfactual(factual, do)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_do_outside_the_support_is_refused(imaging, observations, value):
    with pytest.raises(ValueError, match=r"do\(thickness\): expected values in \(0, inf\)"):
        imaging.counterfactual(observations, {"thickness": value})
    with pytest.raises(ValueError, match=r"in \(64, 255\), but got 300"):
        imaging.intervene({"intensity": 300.0}, 2)
    with pytest.raises(ValueError, match=r"thickness: expected values in"):
        imaging.counterfactual(observations, {"thickness": lambda t: t - 100})
    with pytest.raises(ValueError, match=r"do\(image\)"):
        imaging.intervene({"image": 3.0}, 2)
    with pytest.raises(ValueError, match=r"whole numbers in \[0, 255\], but got 256"):
        imaging.intervene({"image": torch.full((1, 8, 8), 256.0)}, 2)
    for scale in (1 / 255, 1.01):
        broken = {**observations, "image": observations["image"] * scale}
        with pytest.raises(ValueError, match="image: expected whole numbers"):
            imaging.counterfactual(broken, {"thickness": 2.0})


def test_bad_observations_are_refused(linear, factual):
    with pytest.raises(ValueError, match="w is missing"):
        linear.abduct({name: value for name, value in factual.items() if name != "w"})
    broken = {**factual, "x": torch.full((6, 1), float("inf"))}
    with pytest.raises(ValueError, match=r"x: expected values in .* but got inf"):
        linear.counterfactual(broken, {"y": 1.0})
    with pytest.raises(ValueError, match="w is missing"):
        linear.elbo({name: value for name, value in factual.items() if name != "w"})
    with pytest.raises(ValueError, match=r"batch dimensions that agree, but got x \(3,\)"):
        linear.abduct({**factual, "x": factual["x"][:3]})
    with pytest.raises(ValueError, match="at least one observation"):
        linear.abduct({name: value[:0] for name, value in factual.items()})
    with pytest.raises(ValueError, match=r"of the observations, \(4,\), but got \(6,\)"):
        linear.intervene({"x": factual["x"]}, 4)
    with pytest.raises(ValueError, match="num_particles"):
        linear.abduct(factual, num_particles=0)
    with pytest.raises(ValueError, match="size"):
        linear.sample(0)


@pytest.mark.parametrize(
    ("graph", "mechanisms", "message"),
    [
        ("a -> b", {"a": AffineFlow}, "b has no mechanism"),
        ("a", {"a": AffineFlow, "b": AffineFlow}, "b is not in the graph"),
        ("a", {"a": lambda context: 3}, "to return a Mechanism"),
        ("a -> b", {"a": AffineFlow, "b": AffineFlow(Context())}, "made for the parents"),
        ("keys", {"keys": AffineFlow}, "'keys' is used by PyTorch"),
        ("training", {"training": AffineFlow}, "'training' is used by PyTorch"),
    ],
)
def test_mechanisms_must_match_the_graph(graph, mechanisms, message):
    with pytest.raises(ValueError, match=message):
        StructuralCausalModel(graph, mechanisms)


def test_fit_names_the_variable():
    scm = StructuralCausalModel("a", {"a": partial(AffineFlow, constraint=Positive)})
    with pytest.raises(ValueError, match="a: expected values in"):
        scm.fit({"a": torch.tensor([[1.0], [-1.0]])})
    assert not scm.fitted


def test_exact_log_prob_is_refused_if_only_a_bound_exists(imaging, observations):
    with pytest.raises(NotImplementedError, match="lower bound"):
        imaging.log_prob(observations)
