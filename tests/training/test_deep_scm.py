"""The Lightning module: training, checkpoints, averages and errors."""

from __future__ import annotations

import copy
import csv
import json
from functools import partial

import pyro
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.optim.lr_scheduler import StepLR
from world_columns import log_prob

from deepscm_pl.configuration import describe, restore
from deepscm_pl.evaluation.association import association_rows
from deepscm_pl.mechanisms import AffineFlow, SplineFlow
from deepscm_pl.training import DeepSCM, OneCycle, bound
from deepscm_pl.training.bound import bound_quantities
from deepscm_pl.transforms import Interval, Positive
from deepscm_pl.worlds import ThicknessIntensityWorld

from tiny import TinyDataModule, image_mechanism

GRAPH = "thickness -> intensity; thickness, intensity -> image"


def make(**settings):
    mechanisms = {
        "thickness": partial(SplineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        "image": image_mechanism(),
    }
    return DeepSCM(GRAPH, mechanisms, **settings)


def trainer(folder, **settings):
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=settings.pop("logger", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=settings.pop("max_epochs", 1),
        **settings,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = make(optimizer=partial(torch.optim.Adam, lr=0.003), scheduler=OneCycle)
    fitter = trainer(folder)
    fitter.fit(model, datamodule=TinyDataModule())
    path = folder / "model.ckpt"
    fitter.save_checkpoint(path)
    return model.eval(), path


def test_a_checkpoint_loads_by_its_path_alone(trained):
    model, path = trained
    again = DeepSCM.load_from_checkpoint(path)
    assert not again.training
    assert again.scm.fitted
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    torch.manual_seed(1)
    expected = model.scm.sample(3)["image"]
    torch.manual_seed(1)
    assert torch.equal(again.scm.sample(3)["image"], expected)


def test_checkpoint_is_plain_data(trained):
    """The safe loader reads it, and its settings are JSON."""
    checkpoint = torch.load(trained[1], weights_only=True)
    json.dumps(checkpoint["hyper_parameters"])
    json.dumps(checkpoint["data"])
    assert checkpoint["hyper_parameters"]["graph"].startswith("thickness; thickness -> intensity")
    assert checkpoint["data"]["class_path"] == "tiny.TinyDataModule"


def test_settings_survive_description(trained):
    settings = trained[0].hparams
    assert describe(restore(dict(settings))) == dict(settings)


def test_statistics_are_those_of_the_training_split_only(trained):
    data = TinyDataModule()
    thickness = data.variables("train")["thickness"].double().log()
    constraint = trained[0].scm["thickness"].constraint
    assert constraint.location.item() == pytest.approx(thickness.mean().item(), rel=1e-6)
    assert constraint.scale.item() == pytest.approx(thickness.std(correction=0).item(), rel=1e-6)
    everything = torch.cat([data.variables(s)["thickness"] for s in ("train", "validation")])
    assert constraint.location.item() != pytest.approx(everything.log().mean().item(), rel=1e-6)


def test_a_trained_model_keeps_its_statistics_on_other_data(trained, tmp_path):
    model = DeepSCM.load_from_checkpoint(trained[1])
    before = model.scm["thickness"].constraint.location.clone()
    trainer(tmp_path).fit(model, datamodule=TinyDataModule(validation_size=50))
    assert torch.equal(model.scm["thickness"].constraint.location, before)


def test_training_improves_the_bound_and_does_not_use_pyro(tmp_path):
    model = make(optimizer=partial(torch.optim.Adam, lr=0.003), learning_rates={"thickness": 0.02})
    fitter = trainer(tmp_path, max_epochs=15)
    model.scm.fit(TinyDataModule().variables("train"))
    fitter.validate(model, datamodule=TinyDataModule(), verbose=False)
    before = float(fitter.callback_metrics["validation/bound"])
    fitter.fit(model, datamodule=TinyDataModule())
    after = float(fitter.callback_metrics["validation/bound"])
    assert after > before + 1000
    assert not dict(pyro.get_param_store())


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_model_that_was_never_fitted_is_not_evaluated(tmp_path, stage):
    with pytest.raises(ValueError, match=r"never fitted to data.*--ckpt_path"):
        getattr(trainer(tmp_path), stage)(make(), datamodule=TinyDataModule())


def test_two_models_in_one_process_train_independently(tmp_path):
    models = [make(), make()]
    others = copy.deepcopy(models[1].state_dict())
    trainer(tmp_path).fit(models[0], datamodule=TinyDataModule())
    for name, value in models[1].state_dict().items():
        assert torch.equal(value, others[name])


def test_averages_do_not_depend_on_the_batch_size(trained, tmp_path):
    """Twenty images in batches of 16 and 4 have equal weights."""
    found = []
    for batch_size in (16, 20, 3):
        fitter = trainer(tmp_path)
        data = TinyDataModule(batch_size=batch_size)
        fitter.test(trained[0], datamodule=data, verbose=False)
        found.append(trained[0].association)
    exact = TinyDataModule().variables("test")
    expected = trained[0].scm["thickness"].log_prob(exact["thickness"], {})
    for association in found:
        mean, error = association["log_prob/thickness"]
        assert mean == pytest.approx(expected.mean().item(), rel=1e-6)
        assert error == pytest.approx(expected.std().item() / 20**0.5, rel=1e-6)
    metrics = fitter.callback_metrics
    assert float(metrics["test/log_prob/thickness"]) == pytest.approx(expected.mean().item())


def test_terms_add_up(trained, tmp_path):
    fitter = trainer(tmp_path)
    fitter.test(trained[0], datamodule=TinyDataModule(), verbose=False)
    found = {name: value.mean for name, value in trained[0].association.items()}
    total = found["bound/thickness"] + found["bound/intensity"] + found["bound/image"]
    assert found["bound"] == pytest.approx(total)
    image = found["log_prob/image"] - found["kl/image"]
    assert found["bound/image"] == pytest.approx(image)
    bits = -image / (64 * torch.log(torch.tensor(2.0)).item())
    assert found["bits_per_dimension/image"] == pytest.approx(bits)
    assert 0 < found["mean_absolute_error/image"] < 255
    recorded = found["log_prob_recorded/image"]
    assert recorded > found["bound/image"]
    bits = -recorded / (64 * torch.log(torch.tensor(2.0)).item())
    assert found["recorded_bits_per_dimension/image"] == pytest.approx(bits)
    labels = [
        row.label
        for row in association_rows(trained[0].scm.graph, ("image",), trained[0].association)
    ]
    assert "recorded image, bits per dimension ≤" in labels


def test_loss_is_the_mean_over_images():
    model = make()
    data = TinyDataModule()
    model.scm.fit(data.variables("train"))
    batch = next(iter(data.val_dataloader()))
    doubled = {name: torch.cat([value, value]) for name, value in batch.items()}
    model.log = model.log_dict = lambda *_, **__: None
    with torch.no_grad():
        losses = [float(model.training_step(each, 0)) for each in (batch, doubled)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_each_variable_has_its_learning_rate(tmp_path):
    model = make(
        optimizer=partial(torch.optim.SGD, lr=1e-6),
        learning_rates={"intensity": 1e-3},
        scheduler=partial(StepLR, step_size=1, gamma=0.5),
    )
    fitter = trainer(tmp_path)
    fitter.fit(model, datamodule=TinyDataModule())
    groups = {group["name"]: group for group in fitter.optimizers[0].param_groups}
    steps = fitter.global_step
    assert steps == 4
    assert groups["intensity"]["lr"] == pytest.approx(1e-3 * 0.5**steps)
    assert groups["image"]["lr"] == pytest.approx(1e-6 * 0.5**steps)
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))


def test_one_cycle_spans_a_resumed_run(tmp_path):
    """A run that is resumed for more epochs has the schedule of the longer run."""
    model = make(optimizer=partial(torch.optim.SGD, lr=1e-6), scheduler=OneCycle)
    first = trainer(tmp_path, max_epochs=2)
    first.fit(model, datamodule=TinyDataModule())
    first.save_checkpoint(tmp_path / "two.ckpt")
    model = make(optimizer=partial(torch.optim.SGD, lr=1e-6), scheduler=OneCycle)
    second = trainer(tmp_path, max_epochs=6)
    second.fit(model, datamodule=TinyDataModule(), ckpt_path=tmp_path / "two.ckpt")
    scheduler = second.lr_scheduler_configs[0].scheduler
    assert scheduler.total_steps == 24
    assert scheduler.last_epoch == 24


def test_one_cycle_needs_an_end(tmp_path):
    model = make(scheduler=OneCycle)
    with pytest.raises(ValueError, match="number of training steps"):
        trainer(tmp_path, max_epochs=-1, max_time="00:00:00:01").fit(
            model, datamodule=TinyDataModule()
        )


def test_one_cycle_spans_the_run(tmp_path):
    model = make(optimizer=partial(torch.optim.SGD, lr=1e-6), scheduler=OneCycle)
    rates = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"] / 1e-6)

    trainer(tmp_path, max_epochs=5, callbacks=[Watch()]).fit(model, datamodule=TinyDataModule())
    assert len(rates) == 20
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(1)
    assert rates.index(max(rates)) == 5
    assert rates[-1] < 0.02


def test_training_without_statistics_is_refused(tmp_path):
    loader = TinyDataModule().train_dataloader()
    with pytest.raises(ValueError, match=r"call model\.scm\.fit"):
        trainer(tmp_path).fit(make(), loader)
    model = make()
    model.scm.fit(TinyDataModule().variables("train"))
    trainer(tmp_path).fit(model, loader)


def test_described_settings_must_be_plain():
    with pytest.raises(ValueError, match="pass the class instead"):
        DeepSCM("a", {"a": lambda context: AffineFlow(context)})


def test_attribute_mechanisms_reach_the_limit_of_the_world():
    """Trained a few seconds on true attributes: within 0.025 nats of the world's own density."""
    world = ThicknessIntensityWorld()
    import numpy as np

    train, test = (world.sample(size, np.random.default_rng(size)) for size in (20000, 10000))
    found, own = fit_attributes(train, test)
    limit = log_prob(world, test)
    assert own["thickness"] == pytest.approx(limit["thickness"].mean(), abs=0.015)
    assert own["intensity"] == pytest.approx(limit["intensity"].mean(), abs=0.025)
    assert found.fitted


def test_attribute_mechanisms_on_the_published_attributes(real_data):
    """log p(t) ≥ −0.94 and log p(i | t) ≥ −4.22; the world's own are −0.927 and −4.195."""
    from deepscm_pl.data.morphomnist import read_attributes

    train, test = (
        read_attributes(real_data / "morphomnist" / f"{name}-morpho.csv", ThicknessIntensityWorld())
        for name in ("train", "t10k")
    )
    _, own = fit_attributes(train, test)
    assert own["thickness"] >= -0.94
    assert own["intensity"] >= -4.22


def fit_attributes(train, test):
    """Train both mechanisms of the experiment; the model and its test log-probabilities."""
    model = DeepSCM(
        "thickness -> intensity",
        {
            "thickness": partial(SplineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        },
    )
    scm = model.scm
    train, test = (
        {name: torch.as_tensor(v).float().view(-1, 1) for name, v in values.items()}
        for values in (train, test)
    )
    scm.fit(train)
    optimizer = torch.optim.Adam(scm.parameters(), lr=2e-2)
    schedule = OneCycle(optimizer, total_steps=300)
    for _ in range(300):
        rows = torch.randint(len(train["thickness"]), (1024,))
        loss = -scm.log_prob({name: value[rows] for name, value in train.items()}).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        evidence = scm.elbo(test).evidence
    return scm, {name: each.bound.mean().item() for name, each in evidence.items()}


class Recorder(pl.Callback):
    """Records the quantities of each step, and may stop after one."""

    def __init__(self, patch, stop_after=None):
        self.patch, self.stop_after = patch, stop_after
        self.found, self.seen = {}, {}

    def setup(self, trainer, pl_module, stage):
        def recorded(scm, elbo):
            quantities = bound_quantities(scm, elbo)
            if trainer.training:
                means = {name: each.mean().item() for name, each in quantities.items()}
                self.found[trainer.global_step] = means
            return quantities

        self.patch.setattr(bound, "bound_quantities", recorded)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        step = trainer.global_step - 1
        self.seen[step] = trainer.callback_metrics["train/bound"].item()
        trainer.should_stop = step == self.stop_after


@pytest.mark.parametrize("stop_after", [None, 3, 4])
def test_logged_values_are_those_of_their_step(tmp_path, monkeypatch, stop_after):
    recorder = Recorder(monkeypatch, stop_after)
    logger = CSVLogger(tmp_path)
    settings = {"max_epochs": 3, "log_every_n_steps": 5, "callbacks": [recorder]}
    trainer(tmp_path, logger=logger, **settings).fit(make(), TinyDataModule(batch_size=12))
    with open(f"{logger.log_dir}/metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["train/bound"]]
    logged = {int(row["step"]): row for row in rows}
    assert set(logged) >= ({4, 9} if stop_after is None else {stop_after})
    for step, row in logged.items():
        for name, expected in recorder.found[step].items():
            assert float(row[f"train/{name}"]) == pytest.approx(expected, rel=1e-5), (step, name)
    for step, seen in recorder.seen.items():
        assert seen == pytest.approx(recorder.found[step]["bound"], rel=1e-5)


def test_arguments_of_factories_are_described_by_name():
    found = restore(describe(partial(Interval, 1, high=5)))()
    assert (found.lower, found.upper) == (1, 5)
    with pytest.raises(ValueError, match="Interval: expected its arguments by name, but got 4"):
        describe(partial(Interval, 1, 2, 3, 4))
