"""Flow matching beyond the laws: its training, recorded images, densities and the coupling."""

from __future__ import annotations

import math
from functools import partial
from itertools import permutations

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.checkpoints import load
from deepscm_pl.mechanisms import AffineFlow, Context, FlowMatching
from deepscm_pl.mechanisms.flow_matching import coupled_noise
from deepscm_pl.nn import UNet
from deepscm_pl.reaction import image_reactions
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM, export_model
from deepscm_pl.transforms import ImplicitMidpoint
from deepscm_pl.variables import Domain

from tiny import IncompleteDataModule, TinyDataModule, draw

SMALL = {"shape": (1, 8, 8), "network": partial(UNet, channels=(8, 16), blocks=1, embedding=16)}
GRAPH = "thickness -> intensity; thickness, intensity -> image"
PARENTS = ("thickness", "intensity")


def fitted(**settings):
    """An untrained mechanism of bars with recorded images and parents."""
    torch.manual_seed(0)
    rows = draw(200, seed=4)
    parents = {name: rows[name] for name in PARENTS}
    mechanism = FlowMatching(Context(dict.fromkeys(PARENTS, Domain())), **(SMALL | settings))
    mechanism.fit(rows["image"], parents)
    return mechanism, rows["image"], parents


@pytest.fixture(scope="module")
def trained():
    """A mechanism of bars after a few hundred steps."""
    mechanism, image, parents = fitted(solver=ImplicitMidpoint(steps=4))
    optimizer = torch.optim.Adam(mechanism.parameters(), 5e-3)
    losses = []
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 200)
        rows = torch.randperm(len(image))[:100]
        chosen = {name: each[rows] for name, each in parents.items()}
        evidence = mechanism.training_evidence(mechanism.dequantise(image[rows]), chosen)
        assert evidence.is_loss
        loss = -evidence.bound.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    mechanism.losses = losses
    return mechanism.eval(), image, parents


def model_of(mechanism):
    return StructuralCausalModel(GRAPH, {**dict.fromkeys(PARENTS, AffineFlow), "image": mechanism})


def width_of(image):
    """Columns of a bar, from its pixels brighter than half of the brightest."""
    bright = image > image.amax(dim=(-1, -2), keepdim=True) / 2
    return bright.float().sum(dim=(-1, -2)).squeeze(-1) / 8


@torch.no_grad()
def test_a_training_learns_the_images(trained):
    mechanism, image, parents = trained
    assert sum(mechanism.losses[-10:]) < 0.4 * sum(mechanism.losses[:10])
    wide = {name: each[:30] for name, each in parents.items()}
    drawn = mechanism.quantise(mechanism(mechanism.sample_noise((30,)), wide))
    error = (width_of(drawn) - width_of(image[:30])).abs()
    assert error.mean() < 0.8
    few = {name: each[:3] for name, each in parents.items()}
    value = mechanism.dequantise(image[:3])
    assert mechanism.log_prob(value, few).mean() > fitted()[0].log_prob(value, few).mean() + 50


@torch.no_grad()
def test_a_counterfactual_shows_what_was_asked(trained):
    mechanism, image, parents = trained
    noise = mechanism.abduct_recorded(image, parents)
    changed = {**parents, "thickness": parents["thickness"].flip(0)}
    found = width_of(mechanism.quantise(mechanism(noise, changed)))
    asked, factual = width_of(image.flip(0)), width_of(image)
    assert (found - asked).abs().mean() < 0.7 * (factual - asked).abs().mean()


@torch.no_grad()
def test_null_interventions_return_the_recorded_image(trained):
    mechanism, image, parents = trained
    factual = {**parents, "image": image}
    answer = model_of(mechanism).counterfactual(factual, dict(parents), num_particles=2)
    assert torch.equal(answer["image"], image.float().expand(2, *image.shape))


@torch.no_grad()
def test_ten_cycles_return_to_the_image(trained):
    """There and back in single precision; the images in between are not rounded."""
    mechanism, image, parents = trained
    changed = {**parents, "thickness": parents["thickness"].flip(0)}
    value = start = mechanism.dequantise(image[:2])
    parents, changed = ({n: p[:2] for n, p in each.items()} for each in (parents, changed))
    for _ in range(10):
        there = mechanism(mechanism.abduct(value, parents), changed)
        assert (there - value).abs().max() > 20
        value = mechanism(mechanism.abduct(there, changed), parents)
    assert (value - start).abs().max() < 0.1


@torch.no_grad()
def test_keeps_its_precision_under_autocast(trained):
    mechanism, image, parents = trained
    image, parents = image[:20], {name: each[:20] for name, each in parents.items()}
    value = mechanism.dequantise(image)
    expected = mechanism.abduct(value, parents)
    with torch.autocast("cpu", torch.bfloat16):
        noise = mechanism.abduct(value, parents)
        again = mechanism(noise, parents)
    assert torch.equal(noise["u"], expected["u"])
    assert torch.equal(mechanism.quantise(again), image.float())


class Recorder(torch.nn.Module):
    """A network that predicts zero, and records images and conditions."""

    def __init__(self, shape, condition_features):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, image, condition):
        self.seen.append((image, condition))
        return self.weight * image


@pytest.mark.parametrize("time", [0.1, 0.5, 0.8])
def test_the_best_affine_prediction_is_given_to_the_network(time):
    torch.manual_seed(0)
    mechanism = FlowMatching(Context(), (1, 8, 8), Recorder)
    image, noise = torch.randn(2, 500, 1, 8, 8)
    state = (1 - time) * noise + time * image
    found = mechanism.velocity(state, torch.full((500,), time), torch.zeros(500, 0)).detach()
    squares = state.square().mean()
    expected = (state * (image - noise)).mean() / squares
    assert float((state * found).mean() / squares) == pytest.approx(float(expected), abs=0.05)
    ((given, _),) = mechanism.network.seen
    assert float(given.detach().var()) == pytest.approx(1, abs=0.05)


def test_the_loss_is_a_mean_over_pixels_at_a_time_of_each_image(monkeypatch):
    mechanism, image, parents = fitted(network=Recorder)
    calls = []
    replaced = "deepscm_pl.mechanisms.flow_matching.coupled_noise"
    monkeypatch.setattr(replaced, lambda *given: calls.append(given) or given[1])
    value = mechanism.dequantise(image)
    standardised = mechanism.cells(value)
    assert standardised.mean().abs() < 0.02
    assert float(standardised.var()) == pytest.approx(1, abs=0.02)
    loss = -mechanism.training_evidence(value, parents).log_prob.detach()
    ((_, condition),) = mechanism.network.seen
    torch.testing.assert_close(condition[:, :2], mechanism.context(parents))
    time = condition[:, 2]
    assert len(time.unique()) == len(image)
    # What is left of y − u given the state, if images and noise are independent.
    expected = 1 / (time.square() + (1 - time).square())
    assert float(loss.mean()) == pytest.approx(float(expected.mean()), rel=0.15)
    assert len(calls) == 1
    mechanism.coupling = "independent"
    mechanism.training_evidence(value, parents)
    assert len(calls) == 1


class OfParents(torch.nn.Module):
    """A network of the parents, under which rows converge after different numbers of iterations."""

    def __init__(self, shape, condition_features):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, image, condition):
        return self.weight * condition[:, :1, None, None].tanh() * image.sin()


@torch.no_grad()
def test_each_image_keeps_its_own_parents_until_it_converges():
    context = Context({"t": Domain()})
    mechanism = FlowMatching(context, (1, 8, 8), OfParents, ImplicitMidpoint(steps=2))
    value, t = 255 * torch.rand(3, 1, 8, 8), torch.tensor([[0.0], [4.0], [-0.3]])
    found = mechanism.abduct(value, {"t": t})
    again = mechanism(found, {"t": t.flip(0)})
    for k in range(3):
        own, other = ({"t": each[k : k + 1]} for each in (t, t.flip(0)))
        alone = mechanism.abduct(value[k : k + 1], own)
        torch.testing.assert_close(alone["u"], found["u"][k : k + 1], atol=1e-6, rtol=0)
        torch.testing.assert_close(mechanism(alone, other), again[k : k + 1], atol=1e-3, rtol=0)
    assert (found["u"][1] - mechanism.abduct(value, {"t": 0 * t})["u"][1]).abs().max() > 0.1


@pytest.mark.parametrize("noise", [torch.zeros_like, torch.ones_like])
@torch.no_grad()
def test_noise_at_the_edge_of_a_grey_level_returns_it(noise, monkeypatch):
    mechanism, image, parents = fitted(solver=ImplicitMidpoint(steps=2))
    image, parents = image[:5], {name: each[:5] for name, each in parents.items()}
    monkeypatch.setattr(torch, "rand_like", noise)
    found = mechanism(mechanism.abduct_recorded(image, parents), parents)
    assert torch.equal(mechanism.quantise(found), image.float())


def test_reactions_are_measured_from_few_draws_of_an_expensive_mechanism(monkeypatch):
    mechanism, _, _ = fitted(solver=ImplicitMidpoint(steps=2))
    sizes = []
    draw_noise = mechanism.sample_noise
    monkeypatch.setattr(mechanism, "sample_noise", lambda n: sizes.append(n) or draw_noise(n))
    (reaction,) = image_reactions(model_of(mechanism))
    assert sizes == [(256 // 12,)]
    assert reaction.changes.keys() == set(PARENTS)


def test_gradients_pass_through_abduction_and_prediction():
    mechanism, image, parents = fitted()
    noise = mechanism.abduct(
        mechanism.dequantise(image[:3]), {n: p[:3] for n, p in parents.items()}
    )
    mechanism(noise, {n: p[3:6] for n, p in parents.items()}).sum().backward()
    for name, parameter in mechanism.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_density_is_that_of_the_whole_jacobian(double):
    """log p(x) = log N(u; 0, I) + log |det du/dx| with autograd's Jacobian of abduction."""
    solver = ImplicitMidpoint(steps=3, tolerance=1e-13)
    small = {"shape": (1, 3, 4), "network": partial(UNet, channels=(4, 6), blocks=1)}
    mechanism = FlowMatching(Context({"t": Domain()}), solver=solver, **small)
    recorded, parents = torch.randint(0, 256, (2, 1, 3, 4)).double(), {"t": torch.randn(2, 1)}
    mechanism.fit(recorded, parents)
    value = mechanism.dequantise(recorded)
    found = mechanism.log_prob(value, parents)
    for k in range(2):
        one = {"t": parents["t"][k : k + 1]}

        def noise_of(x, row=one):
            return mechanism.abduct(x[None], row)["u"].flatten()

        jacobian = torch.autograd.functional.jacobian(noise_of, value[k]).flatten(1)
        base = torch.distributions.Normal(0.0, 1.0).log_prob(noise_of(value[k])).sum()
        expected = base + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(found[k], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_estimate_agrees_with_the_exact_density_within_its_error(trained, monkeypatch):
    mechanism, image, parents = trained
    value, few = mechanism.dequantise(image[:3]), {n: p[:3] for n, p in parents.items()}
    assert mechanism.likelihood_note == "exact"
    exact = mechanism.log_prob(value, few)
    monkeypatch.setattr("deepscm_pl.mechanisms.flow_matching._EXACT", 1)
    monkeypatch.setattr(mechanism, "probes", 20)
    assert mechanism.likelihood_note == "estimated by 20 random probes"
    found, error = mechanism.log_prob_with_error(value, few)
    assert ((found - exact).abs() < 4 * error + 1).all()
    assert (error > 0).all()


def test_the_error_of_an_estimate_is_that_of_the_mean_over_probes(monkeypatch):
    mechanism, image, parents = fitted(network=Recorder)
    monkeypatch.setattr("deepscm_pl.mechanisms.flow_matching._EXACT", 1)
    draws = torch.tensor([[1.0, 2.0], [3.0, 2.0], [1.0, 2.0], [3.0, 2.0]])
    monkeypatch.setattr(mechanism, "_log_densities", lambda *_: draws)
    found, error = mechanism.log_prob_with_error(image[:2], parents)
    assert found.tolist() == [2, 2]
    assert error.tolist() == pytest.approx([math.sqrt(4 / 3) / 2, 0])
    monkeypatch.setattr(mechanism, "_log_densities", lambda *_: draws[:1])
    assert mechanism.log_prob_with_error(image[:2], parents)[1].isnan().all()


def test_transport_exchanges_noise_between_comparable_rows_only(double):
    images, noise = torch.randn(40, 1, 4, 4), torch.randn(40, 1, 4, 4)
    classes = torch.nn.functional.one_hot(torch.arange(40) % 2, 2).double()
    found = coupled_noise(images, noise, classes, 1e3)
    first, second = found[::2], noise[::2]
    assert torch.equal(first.flatten(1).sum(1).sort()[0], second.flatten(1).sum(1).sort()[0])
    assert (found - images).square().sum() < (noise - images).square().sum()
    anywhere = coupled_noise(images, noise, classes, 0)
    assert (anywhere - images).square().sum() < (found - images).square().sum()
    distinct = torch.arange(40.0)[:, None]
    assert torch.equal(coupled_noise(images, noise, distinct, 1e6), noise)


def test_transport_is_the_best_of_all_assignments(double):
    images, noise = torch.randn(5, 1, 2, 2), torch.randn(5, 1, 2, 2)
    found = coupled_noise(images, noise, torch.zeros(5, 0), 1.0)
    orders = [list(order) for order in permutations(range(5))]
    costs = torch.stack([(images - noise[order]).square().sum() for order in orders])
    assert torch.equal(found, noise[orders[int(costs.argmin())]])


def trained_by_lightning(folder, data=None, **settings):
    model = DeepSCM(
        GRAPH,
        {
            **dict.fromkeys(PARENTS, AffineFlow),
            "image": partial(FlowMatching, solver=ImplicitMidpoint(steps=2), **SMALL),
        },
    )
    saving = pl.callbacks.ModelCheckpoint(folder, monitor="validation/objective", mode="max")
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        callbacks=[saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **settings,
    )
    trainer.fit(model, data or TinyDataModule())
    return model, trainer, saving


def test_logs_its_loss_and_no_bound_in_training_and_its_density_in_a_test(tmp_path):
    model, trainer, saving = trained_by_lightning(tmp_path)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"train/loss/image", "validation/loss/image", "validation/objective"} <= logged.keys()
    assert not {"validation/bound", "validation/bound/image", "train/bound"} & logged.keys()
    assert not {"validation/log_prob/image", "validation/bits_per_dimension/image"} & logged.keys()
    others = sum(logged[f"validation/bound/{name}"] for name in PARENTS)
    expected = others - logged["validation/loss/image"]
    assert logged["validation/objective"] == pytest.approx(expected, abs=1e-4)
    assert len(model.validation_history["image"]) == 1
    (tested,) = trainer.test(model, TinyDataModule(), verbose=False)
    assert math.isfinite(tested["test/bits_per_dimension/image"])
    assert tested["test/bound"] == pytest.approx(
        sum(tested[f"test/bound/{name}"] for name in (*PARENTS, "image")), abs=1e-2
    )
    assert "test/loss/image" not in tested
    path = export_model(saving.best_model_path, tmp_path / "model.safetensors")
    before, after = load(saving.best_model_path), load(path)
    torch.testing.assert_close(after.sample(2, 0)["image"], before.sample(2, 0)["image"])


def test_trains_with_missing_parents(tmp_path):
    _, trainer, _ = trained_by_lightning(tmp_path, IncompleteDataModule())
    assert math.isfinite(trainer.callback_metrics["validation/loss/image"])


def test_a_monitor_of_the_bound_is_refused(tmp_path):
    model = DeepSCM("image", {"image": partial(FlowMatching, **SMALL)})
    saving = pl.callbacks.ModelCheckpoint(tmp_path, monitor="validation/bound")
    trainer = pl.Trainer(max_epochs=1, logger=False, callbacks=[saving], accelerator="cpu")
    with pytest.raises(ValueError, match="monitors 'validation/bound', which is not logged"):
        trainer.fit(model, TinyDataModule())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("coupling", {"coupling": "none"}),
        ("comparable", {"comparable": -1.0}),
        ("stretch", {"stretch": 1.0}),
        ("probes", {"probes": 0}),
        ("shape", {"shape": (1, 4, 4, 4)}),
    ],
)
def test_refuses_settings_out_of_range(name, settings):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        FlowMatching(Context(), **(SMALL | settings))


def test_refuses_images_scaled_to_one():
    with pytest.raises(ValueError, match="multiply images"):
        FlowMatching(Context(), **SMALL).fit(torch.rand(3, 1, 8, 8), {})


def test_an_image_that_the_solver_cannot_invert_is_named_with_the_step_size():
    mechanism, image, parents = fitted(solver=ImplicitMidpoint(steps=2, iterations=20, grading=1))
    with torch.no_grad():
        for parameter in mechanism.network.parameters():
            parameter.add_(torch.randn_like(parameter))
    with pytest.raises(ValueError, match=r"solver: .* with the step size 0\.5.* more than 2 steps"):
        mechanism.abduct(mechanism.dequantise(image), parents)
    with torch.no_grad():
        next(mechanism.network.parameters()).fill_(math.nan)
    with pytest.raises(
        ValueError, match=r"solver: .* the step size 0\.5 .* velocity is not finite"
    ):
        mechanism.abduct(mechanism.dequantise(image), parents)
