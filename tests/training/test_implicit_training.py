"""Training, test, checkpoints and export of a model without a likelihood."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl import load
from deepscm_pl.callbacks import AssociationReport
from deepscm_pl.mechanisms import (
    AdversarialLoss,
    AdversarialNetworks,
    AffineFlow,
    ImplicitMechanism,
    SplineFlow,
)
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.training import DeepSCM, export_model
from deepscm_pl.transforms import Interval, Positive

import tiny

GRAPH = "thickness -> intensity; thickness, intensity -> image"


def make(**loss):
    encoder = partial(ConvolutionalEncoder, features=8, channels=(4, 8))
    decoder = partial(ConvolutionalDecoder, hidden=16, channels=(8, 4))
    image = partial(
        ImplicitMechanism,
        shape=(1, 8, 8),
        latent=2,
        hidden=8,
        networks=AdversarialNetworks(encoder, decoder, encoder),
        loss=AdversarialLoss(**loss),
    )
    mechanisms = {
        "thickness": partial(SplineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        "image": image,
    }
    torch.manual_seed(0)
    return DeepSCM(GRAPH, mechanisms, optimizer=partial(torch.optim.Adam, lr=2e-3))


def trainer_in(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saving = pl.callbacks.ModelCheckpoint(
        folder, "best", monitor="validation/objective", mode="max", save_last=True
    )
    report = AssociationReport()
    common = {"accelerator": "cpu", "callbacks": [saving, report], "log_every_n_steps": 1}
    return pl.Trainer(default_root_dir=folder, **{**quiet, **common, **settings}), report


def fitted(folder, epochs, checkpoint=None):
    model = make()
    trainer, _ = trainer_in(folder, max_epochs=epochs)
    pl.seed_everything(1, verbose=False)
    data = tiny.TinyDataModule()
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return model, trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of two epochs, with the warnings of its validations and its test."""
    folder = tmp_path_factory.mktemp("implicit")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, trainer = fitted(folder, epochs=2)
        measured = dict(trainer.callback_metrics)
        tester, report = trainer_in(folder)
        tester.test(model, tiny.TinyDataModule(), verbose=False)
    return folder, model, measured, report, [str(each.message) for each in caught]


def test_validation_has_a_loss_and_no_bound(run):
    _, _, measured, *_ = run
    assert {"validation/loss/image", "validation/objective", "validation/bound/intensity"} <= {
        *measured
    }
    assert {"validation/diversity/image", "validation/critic_accuracy/image"} <= {*measured}
    assert not {"validation/bound", "validation/bound/image"} & {*measured}
    others = sum(measured[f"validation/bound/{name}"] for name in ("thickness", "intensity"))
    expected = others - measured["validation/loss/image"]
    torch.testing.assert_close(measured["validation/objective"], expected)


def test_the_association_table_says_that_there_is_no_likelihood(run):
    _, _, _, report, _ = run
    labels = {row.key: row.label for row in report.rows}
    assert "no likelihood" in labels["loss/image"]
    assert {"bound/thickness", "bound/intensity", "mean_absolute_error/image"} <= {*labels}
    assert not {"bound", "bound/image", "importance_weighted_bound"} & {*labels}


def test_a_collapse_is_told_after_each_validation_and_after_the_test(run):
    *_, messages = run
    told = [each for each in messages if each.startswith("image: the generator has collapsed")]
    assert len(told) == 3


def test_a_resumed_training_equals_an_uninterrupted_one(run, tmp_path):
    _, model, *_ = run
    fitted(tmp_path, epochs=1)
    resumed, _ = fitted(tmp_path / "resumed", epochs=2, checkpoint=tmp_path / "last.ckpt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_and_an_exported_file_give_the_same_answers(run, tmp_path):
    folder, model, *_ = run
    exported = export_model(folder / "last.ckpt", tmp_path / "model.safetensors")
    rows = tiny.draw(4, seed=5)
    factual = {name: rows[name].float() for name in ("thickness", "intensity", "image")}
    answers = []
    for path in (folder / "last.ckpt", exported):
        scm = load(path).scm
        assert scm["image"].loss == model.scm["image"].loss
        torch.manual_seed(2)
        with torch.no_grad():
            answers.append(scm.counterfactual(factual, {"thickness": 2.0})["image"])
    assert torch.equal(*answers)
    with torch.no_grad():
        null = scm.counterfactual(factual, {"thickness": factual["thickness"]})
    assert torch.equal(null["image"][0], factual["image"])


def test_the_other_mechanisms_train_as_without_the_image(run):
    """The gradients of the attributes are those of their log-probability alone."""
    _, model, *_ = run
    model = make()
    rows = tiny.draw(16, seed=5)
    batch = {name: rows[name].float() for name in ("thickness", "intensity", "image")}
    model.scm.fit(batch)
    value = model.objective(model.scm, batch, model.progress).objective
    mechanism = model.scm["intensity"]
    (-value).backward()
    found = [each.grad.clone() for each in mechanism.parameters()]
    mechanism.zero_grad()
    own = mechanism.log_prob(batch["intensity"], {"thickness": batch["thickness"]}).mean()
    (-own).backward()
    for grad, parameter in zip(found, mechanism.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


def test_missing_causes_of_an_image_without_a_likelihood_are_refused_before_the_training():
    scm = make().scm
    variables = {
        "thickness": torch.tensor([[1.0], [2.0], [3.0]]),
        "intensity": torch.tensor([[90.0], [torch.nan], [120.0]]),
        "image": torch.randint(0, 256, (3, 1, 8, 8)).float(),
    }
    with pytest.raises(ValueError, match=r"^intensity: expected a value in every row, .* image, "):
        scm.fit(variables)
    variables["intensity"][1] = 100.0
    scm.fit(variables)
