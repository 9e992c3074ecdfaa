"""Tuning on counterfactuals: its losses, its constraint, and what a training improves and keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from deepscm_pl import load
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.digest import weights_digest
from deepscm_pl.likelihoods import DiscretisedLogisticMixture
from deepscm_pl.mechanisms import (
    AffineFlow,
    Categorical,
    FlowMatching,
    HierarchicalVAE,
    MultiscaleFlow,
)
from deepscm_pl.nn import ConvolutionalConditioner, Ladder, ResidualClassifier, UNet
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import (
    BoundConstraint,
    CounterfactualTuning,
    DeepSCM,
    EvidenceLowerBoundObjective,
    ImageClassifier,
    OneCycle,
    OwnPredictor,
    TrainedPredictor,
    tuning,
)
from deepscm_pl.training.objectives import Objective, TrainingProgress, counterfactual_values
from deepscm_pl.training.predictors import Predictors
from deepscm_pl.transforms import ImplicitMidpoint, Interval
from deepscm_pl.variables import Domain

from likelihoods_of_all_kinds import LIKELIHOODS
from tiny import TinyDataModule, WideOrNarrowDataModule, draw, image_mechanism

START = TrainingProgress(0, 0)
GRAPH = "thickness; intensity; thickness, intensity -> image"
ATTRIBUTES = {
    "thickness": partial(AffineFlow, constraint=partial(Interval, low=0, high=9)),
    "intensity": partial(AffineFlow, constraint=partial(Interval, low=50, high=250)),
}


def bars(size, seed):
    """Bars whose thickness and intensity are independent, at one of four heights."""
    generator = torch.Generator().manual_seed(seed)
    thickness = 1.5 + 5 * torch.rand(size, 1, generator=generator)
    intensity = 64 + 180 * torch.rand(size, 1, generator=generator)
    top = torch.randint(0, 4, (size, 1, 1, 1), generator=generator)
    rows = torch.arange(8.0).view(1, 1, 8, 1)
    cover = (thickness[..., None, None] - torch.arange(8.0)).clamp(0, 1)
    image = intensity[..., None, None] * cover * ((rows >= top) & (rows < top + 4))
    label = torch.zeros(size, 1, dtype=torch.int64)
    values = {"thickness": thickness, "intensity": intensity, "label": label}
    return {**values, "image": image.round().byte()}


class Bars(CausalDataModule):
    def __init__(self, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size, validation_size=100)

    def load(self) -> SourceSplits:
        return SourceSplits(train=bars(740, 1), test=bars(100, 2))


class Bright(nn.Module):
    """A soft measurement of the intensity: a mean of grey levels that weighs bright ones most."""

    def forward(self, image):
        flat = image.flatten(1)
        return (flat * (flat / 8).softmax(dim=1)).sum(dim=1)


class Wide(nn.Module):
    """A soft measurement of the thickness: the sum of grey levels, relative to four rows."""

    def forward(self, image):
        return image.flatten(1).sum(dim=1) / (4 * Bright()(image).clamp(min=1))


PREDICTORS = {"thickness": Wide, "intensity": Bright}


def measured(image):
    """Hard measurements, which judge: the sum of grey levels, and the largest one."""
    flat = image.flatten(1)
    bright = flat.amax(dim=1)
    return flat.sum(dim=1) / (4 * bright.clamp(min=1)), bright


def made(objective=None, likelihood=None, rate=5e-3, **settings):
    likelihood = likelihood or partial(DiscretisedLogisticMixture, num_components=2)
    return DeepSCM(
        GRAPH,
        {**ATTRIBUTES, "image": image_mechanism(likelihood=likelihood)},
        optimizer=partial(torch.optim.Adam, lr=rate),
        scheduler=OneCycle,
        objective=objective,
        **settings,
    )


def trainer(folder=None, epochs=1, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    kept = {"enable_checkpointing": False, "limit_val_batches": 0, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, max_epochs=epochs, **{**quiet, **kept, **settings})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The checkpoint of a trained model."""
    folder = tmp_path_factory.mktemp("base")
    pl.seed_everything(0)
    fit = trainer(folder, epochs=12)
    fit.fit(made(), datamodule=Bars())
    fit.save_checkpoint(folder / "base.ckpt")
    return folder / "base.ckpt"


@pytest.fixture(scope="module")
def tuned(base):
    """The model after its tuning, and the quantities of the last step."""
    pl.seed_everything(0)
    objective = partial(CounterfactualTuning, predictors=PREDICTORS)
    model = made(objective, rate=2e-3, initial=str(base))
    fit = trainer(base.parent, epochs=8, log_every_n_steps=1)
    fit.fit(model, datamodule=Bars())
    fit.save_checkpoint(base.parent / "tuned.ckpt")
    return model.eval(), {name: float(each) for name, each in fit.callback_metrics.items()}


@torch.no_grad()
def errors(scm):
    """Mean errors of what was asked, and the bound of training rows."""
    data = Bars()
    data.setup()
    rows = {name: each.float() for name, each in data.variables("test").items()}
    torch.manual_seed(1)
    found = {}
    for number, name in enumerate(ATTRIBUTES):
        asked = rows[name][torch.randperm(len(rows[name]))]
        answer = scm.counterfactual(rows, {name: asked}, num_particles=3)
        seen = torch.stack([measured(each)[number] for each in answer["image"]])
        found[name] = float((seen - asked.squeeze(-1)).abs().mean())
    train = {name: each.float() for name, each in data.variables("train").items()}
    found["bound"] = float(scm.elbo(train, 10).evidence["image"].bound.mean())
    return found


def test_counterfactuals_show_what_was_asked_and_the_bound_holds(base, tuned):
    before, after = errors(load(base).scm), errors(tuned[0].scm)
    print(before, after, {k: round(v, 3) for k, v in tuned[1].items()})
    assert after["intensity"] < 0.9 * before["intensity"]
    assert after["thickness"] < before["thickness"]
    assert after["bound"] > before["bound"] - 3


def error_of_return(scm, size=100):
    """In grey levels, after do(thickness) of other rows and back, without draws."""
    data = Bars()
    data.setup()
    rows = {name: each[:size].float() for name, each in data.variables("test").items()}
    with torch.no_grad():
        there = scm.counterfactual(rows, {"thickness": rows["thickness"].roll(1, 0)})
        there = {name: each[0] for name, each in there.items()}
        back = scm.counterfactual(there, {"thickness": rows["thickness"]})["image"][0]
    return float((back - rows["image"]).abs().mean())


def test_images_return_after_a_tuning_for_it(base, tuned):
    pl.seed_everything(0)
    objective = partial(CounterfactualTuning, predictors=PREDICTORS, reversibility=100.0)
    model = made(objective, rate=2e-3, initial=str(base))
    fit = trainer(base.parent, epochs=8, log_every_n_steps=1)
    fit.fit(model, datamodule=Bars())
    before, without, after = (
        error_of_return(each.eval()) for each in (load(base).scm, tuned[0].scm, model.scm)
    )
    assert after < 0.85 * without < 0.85 * before
    logged = {name: float(each) for name, each in fit.callback_metrics.items()}
    assert 0 < logged["train/reversibility"] < 2 * after


@pytest.mark.parametrize("share", [1, 4])
def test_the_error_of_the_way_back_is_that_of_answers_without_draws(base, monkeypatch, share):
    scm, data = load(base).scm, Bars()
    data.setup()
    rows = {name: each.float() for name, each in data.variables("test").items()}
    observed = {name: rows[name] for name in scm.graph.nodes}
    monkeypatch.setattr(tuning, "permuted", lambda some, name: some[name].roll(1, 0))
    monkeypatch.setattr(tuning, "_RETURNED", share)
    found = float(tuning._error_of_return(scm, observed, "thickness").detach())
    assert found == pytest.approx(error_of_return(scm, len(rows["image"]) // share), rel=1e-4)


def test_only_the_image_is_trained(base, tuned):
    before, after = load(base).scm.state_dict(), tuned[0].scm.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed
    assert all(name.startswith("mechanisms.image.") for name in changed)


def test_the_losses_and_the_weight_are_logged(tuned):
    logged = tuned[1]
    for name in ("tuning/thickness", "tuning/intensity", "constraint_weight", "bound/image"):
        assert f"train/{name}" in logged


def test_a_checkpoint_keeps_the_digests_and_needs_no_predictor(base, tuned):
    path = base.parent / "tuned.ckpt"
    saved = torch.load(path, weights_only=True)
    assert saved["provenance"] == tuned[0].objective.provenance
    assert set(saved["provenance"]) == {"thickness", "intensity"}
    assert not any("predictor" in name for name in saved["state_dict"])
    again = DeepSCM.load_from_checkpoint(path, trust=["test_tuning"])
    assert torch.equal(again.objective.reference, tuned[0].objective.reference)
    assert load(path).checkpoint.content["provenance"] == saved["provenance"]


def test_a_resumed_tuning_keeps_its_reference(base, tuned):
    objective = partial(CounterfactualTuning, predictors=PREDICTORS)
    model = made(objective, initial="moved.ckpt")
    path = base.parent / "tuned.ckpt"
    model.scm.load_state_dict(load(path).scm.state_dict())  # as the command does
    fit = trainer(epochs=9)
    fit.fit(model, datamodule=Bars(), ckpt_path=path, weights_only=True)
    assert torch.equal(model.objective.reference, tuned[0].objective.reference)
    assert model.objective.multiplier != tuned[0].objective.multiplier


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_counterfactual_images_are_differentiable(kind):
    """Through abduction and prediction, with finite gradients for every parameter."""
    torch.manual_seed(0)
    couplings = ["kept", "renewed"] if kind in ("fixed", "predicted", "laplace", "mixture") else []
    for coupling in couplings or ["kept"]:
        image = image_mechanism(likelihood=LIKELIHOODS[kind], coupling=coupling)
        assert_differentiable(image)


SHAPE = {"shape": (1, 8, 8)}
OTHERS = {
    "multiscale": partial(
        MultiscaleFlow,
        steps=(2, 2),
        conditioner=partial(ConvolutionalConditioner, hidden=4),
        **SHAPE,
    ),
    "ladder": partial(
        HierarchicalVAE,
        ladder=partial(Ladder, channels=(3, 4), latents=(1, 2), embedding=5),
        prior="conditional",
        likelihood=LIKELIHOODS["mixture"],
        coupling="renewed",
        **SHAPE,
    ),
    "matching": partial(
        FlowMatching, network=partial(UNet, channels=(8,)), solver=ImplicitMidpoint(), **SHAPE
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_counterfactuals_of_other_mechanisms_are_differentiable(kind):
    torch.manual_seed(0)
    assert_differentiable(OTHERS[kind])


def assert_differentiable(image):
    scm = StructuralCausalModel(GRAPH, {**ATTRIBUTES, "image": image})
    rows = {name: each.float() for name, each in bars(24, 3).items()}
    scm.fit(rows)
    answer = counterfactual_values(scm, rows, ["thickness", "intensity"])
    assert torch.equal(answer["image"].detach(), answer["image"].detach().round())
    weights = torch.randn_like(answer["image"])
    (weights * answer["image"]).sum().backward()
    total = 0.0
    for name, parameter in scm["image"].named_parameters():
        if parameter.grad is not None:
            assert bool(parameter.grad.isfinite().all()), name
            total += float(parameter.grad.abs().sum())
    assert total > 0


def predictors(**views):
    """Predictors that give these outputs."""

    class Fixed(nn.Module):
        def forward(self, image):
            return views

    domains = {"digit": Domain(categories=3), "thickness": Domain()}
    return Predictors(dict.fromkeys(views, Fixed()), {name: domains[name] for name in views})


def test_what_was_not_asked_keeps_the_own_view_of_the_factual_image():
    """Errors of a predictor give no loss, and neither does a number that moves as its cause."""
    seen = predictors(digit=torch.randn(5, 3), thickness=torch.randn(5))
    image, values = torch.zeros(5, 1, 2, 2), torch.arange(5.0)[:, None]
    seen.fit(image, {"digit": values % 3, "thickness": values})
    views, none = seen.views(image), torch.zeros(5, 1)
    for name, view in views.items():
        torch.testing.assert_close(seen.kept(name, view, view, none), torch.zeros(5))
    moved = views["thickness"] + 2
    same = seen.kept("thickness", moved, views["thickness"], none + 2)
    torch.testing.assert_close(same, torch.zeros(5), atol=1e-6, rtol=0)
    other = seen.kept("digit", views["digit"].roll(1, dims=1), views["digit"], none)
    p, q = views["digit"].softmax(1), views["digit"].roll(1, dims=1).softmax(1)
    torch.testing.assert_close(other, (p * (p / q).log()).sum(1))


def test_a_predictor_that_sees_nothing_of_its_variable_is_told():
    """The error of a constant, or a larger one if it mixes up values."""
    numbers = torch.arange(6.0)
    values = {"digit": (numbers % 3)[:, None], "thickness": numbers[:, None]}
    image = torch.zeros(6, 1, 2, 2)
    good = 9.0 * torch.nn.functional.one_hot(numbers.long() % 3, 3)
    for digit, thickness, told in (
        (good, numbers + 0.5, []),
        (good.roll(1, dims=1), numbers + 0.5, ["digit"]),
        (good, torch.full((6,), 2.6), ["thickness"]),
        (good, 100 * numbers, ["thickness"]),
    ):
        seen = predictors(digit=digit, thickness=thickness)
        seen.fit(image, values)
        sentences = [*seen.blind()]
        assert [each.split(":")[0] for each in sentences] == [f"predictors.{n}" for n in told]
        assert all("give a trained predictor of" in each for each in sentences)


def test_a_class_need_not_be_clearer_than_in_recorded_images():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    seen = predictors(digit=logits)
    classes = torch.tensor([[0.0], [1.0]])
    seen.fit(torch.zeros(2, 1, 2, 2), {"digit": classes})
    assert seen.asked("digit", logits, classes).abs().max() < 1e-6
    assert seen.asked("digit", 3 * logits, classes).max() == 0
    assert seen.asked("digit", -logits, classes).min() > 1


def test_a_number_counts_in_errors_of_the_predictor():
    seen = predictors(thickness=torch.tensor([1.0, 3.0]))
    seen.fit(torch.zeros(2, 1, 2, 2), {"thickness": torch.tensor([[2.0], [2.0]])})
    loss = seen.asked("thickness", torch.tensor([3.0, 12.0]), torch.tensor([[2.0], [2.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.5, 3 * (10 - 1.5)]))


def test_the_weight_of_the_constraint_follows_the_shortfall():
    """It starts as a share of the loss, relative to the deviation of F."""
    objective = CounterfactualTuning(1, constraint=BoundConstraint(start=0.5, slack=0.5))
    objective.reference.copy_(torch.tensor([-100.0, 10.0]))

    def weight(value):
        return float(objective._weight(torch.tensor(value), torch.tensor(40.0), pixels=10))

    assert weight(-105.0) == pytest.approx(0.5 * 40 / 10)
    assert float(objective.multiplier) == pytest.approx(2)
    below = [weight(-115.0) for _ in range(80)]
    assert below[0] == pytest.approx(2 * math.exp(0.1))  # a tenth of the moving average
    assert below[-1] > 2 * math.exp(1 + 0.02 * 60)
    above = [weight(-80.0) for _ in range(200)]
    assert above[30] < 0.2 * below[-1]
    assert above[-1] < 0.1 * above[30]


def test_the_last_phase_refits_the_posterior_without_tuning():
    inner = partial(EvidenceLowerBoundObjective, divergence_weight=0.5)
    objective = CounterfactualTuning(1, objective=inner)
    assert (objective.refit, objective.is_weighted) == (0.15, True)
    scm = StructuralCausalModel(GRAPH, {**ATTRIBUTES, "image": image_mechanism()})
    rows = {name: each.float() for name, each in bars(24, 3).items()}
    scm.fit(rows)
    logged = objective(scm, rows, TrainingProgress(95, 0, 100)).logged
    assert logged == {"kl_weight": 1}
    with pytest.raises(ValueError, match="predictors of the tuning are missing"):
        objective(scm, rows, START)


def test_without_predictors_one_is_trained_on_the_causes():
    data = TinyDataModule()
    data.setup()
    mechanisms = {**ATTRIBUTES, "image": image_mechanism()}
    scm = StructuralCausalModel(GRAPH, mechanisms)
    scm.fit(data.variables("train"))
    objective = CounterfactualTuning(1, own=OwnPredictor(steps=40))
    objective.start(scm, data)
    assert objective.variables == [["thickness"], ["intensity"]]
    assert 1 < objective.predictors.errors["intensity"] < 60
    assert len(set(objective.provenance.values())) == 1
    again = CounterfactualTuning(1, own=OwnPredictor(steps=40))
    again.start(scm, data)
    assert again.provenance == objective.provenance
    assert torch.equal(again.reference, objective.reference)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The checkpoint of an untrained classifier of three classes."""
    folder = tmp_path_factory.mktemp("classifier")
    network = partial(ResidualClassifier, channels=(8,))
    model = ImageClassifier((1, 8, 8), 3, network)
    fit = trainer(folder, max_steps=0)
    fit.fit(model, datamodule=WideOrNarrowDataModule())
    fit.save_checkpoint(folder / "classifier.ckpt")
    return str(folder / "classifier.ckpt")


def test_a_trained_classifier_is_a_predictor(classifier):
    made_from = TrainedPredictor(classifier)
    image = torch.randint(0, 256, (4, 1, 8, 8)).float()
    original = ImageClassifier.load_from_checkpoint(classifier)
    assert torch.equal(made_from(image), original(image))
    assert weights_digest(made_from) == weights_digest(original)
    with torch.no_grad():
        next(original.parameters()).add_(1e-3)
    assert weights_digest(made_from) != weights_digest(original)


def labelled_model(categories=3):
    graph = "digit; thickness; digit, thickness -> image"
    classes = partial(Categorical, categories=categories)
    mechanisms = {"digit": classes, "thickness": AffineFlow, "image": image_mechanism()}
    return StructuralCausalModel(graph, mechanisms)


class Labelled(TinyDataModule):
    """Bars with a class of their thickness."""

    def load(self):
        splits = {}
        for name, seed in (("train", 1), ("test", 2)):
            rows = draw(80 if name == "train" else 20, seed)
            splits[name] = {**rows, "digit": (rows["thickness"] / 2.1).floor()}
        return SourceSplits(**splits)


def test_predictors_of_the_command_line_are_written_as_they_were_given(recwarn):
    given = {"digit": "runs/digit.ckpt", "thickness": {"class_path": f"{__name__}.Bright"}}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Callable[[int], Objective])
    settings = {"class_path": "deepscm_pl.training.CounterfactualTuning"}
    parsed = parser.parse_object({"objective": {**settings, "init_args": {"predictors": given}}})
    written = yaml.safe_load(parser.dump(parsed))["objective"]["init_args"]["predictors"]
    assert written == given
    assert not recwarn.list
    made = parser.instantiate_classes(parsed).objective(1)
    assert made.factories["digit"] == given["digit"]
    assert isinstance(made.factories["thickness"](), Bright)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predictors": {"colour": Bright}}, "predictors: expected some of digit, thickness, the"),
        ({"predictors": {"image": Bright}}, "the causes of image, but got 'image'; remove it"),
        ({"predictors": {"digit": Bright}}, r"predictors.digit: expected logits of 3 classes"),
        (
            {"predictors": {"digit": "absent.ckpt"}},
            "predictors.digit: checkpoint: there is no file",
        ),
        ({"variables": [["colour"]]}, "variables: expected some of digit, thickness"),
    ],
)
def test_what_does_not_fit_the_model_is_named(settings, message):
    data = Labelled()
    data.setup()
    scm = labelled_model()
    scm.fit(data.variables("train"))
    settings = {"own": OwnPredictor(steps=1), **settings}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        CounterfactualTuning(1, **settings).start(scm, data)


@pytest.mark.parametrize("label", ["slant", "digit"])
def test_a_predictor_of_another_number_is_refused(label):
    """Also of one that the model does not have; the column of a class may have another name."""
    other = type("Other", (Bright,), {"label": label})
    scm = labelled_model()
    message = f"expected a predictor of thickness, but got one of {label}; train one with label"
    with pytest.raises(ValueError, match=message):
        Predictors.made({"thickness": other}, scm, "image")
    assert [*Predictors.made({"digit": other}, scm, "image").networks] == ["digit"]


def test_predictors_of_other_variables_or_classes_are_refused(classifier, base):
    data = Labelled()
    data.setup()
    for scm, name, path, message in (
        (labelled_model(), "thickness", classifier, "expected a predictor of thickness, but got"),
        (labelled_model(2), "digit", classifier, "predictors.digit: expected logits of 2 classes"),
        (labelled_model(), "digit", str(base), "predictors.digit: checkpoint: expected a trained"),
    ):
        rows = data.variables("train")
        scm.fit({**rows, "digit": rows["digit"].clamp(max=scm["digit"].domain.categories - 1)})
        with pytest.raises(ValueError, match=message):
            CounterfactualTuning(1, {name: path}).start(scm, data)


def test_the_start_is_a_trained_model_of_the_same_mechanisms(base, tmp_path):
    objective = partial(CounterfactualTuning, predictors=PREDICTORS)
    for settings, message in (
        ({}, "initial: expected a trained model, which the objective tunes, but got none"),
        ({"initial": str(tmp_path / "none.ckpt")}, "there is no file"),
        ({"initial": str(base), "likelihood": LIKELIHOODS["laplace"]}, "weights do not fit"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            trainer(tmp_path, max_steps=1).fit(made(objective, **settings), datamodule=Bars())
    other = DeepSCM("thickness", {"thickness": AffineFlow}, initial=str(base))
    with pytest.raises(ValueError, match=r"initial: expected a model of the graph thickness, but"):
        trainer(tmp_path, max_steps=1).fit(other, datamodule=Bars())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(CounterfactualTuning, 1, variables=[]), "variables: expected lists of variables"),
        (partial(CounterfactualTuning, 1, variables=[["a"], []]), "variables: expected lists"),
        (partial(CounterfactualTuning, 1, weight=0), "weight: expected a number above 0"),
        (partial(BoundConstraint, slack=-1), "slack: expected"),
        (partial(BoundConstraint, rate=0), "rate: expected"),
        (partial(OwnPredictor, steps=0), "steps: expected"),
    ],
)
def test_invalid_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_without_an_image_is_refused():
    scm = StructuralCausalModel("thickness", {"thickness": AffineFlow})
    with pytest.raises(ValueError, match="expected a model with one image, but it has none"):
        CounterfactualTuning(1).freeze(scm)
