"""Numbers that are not finite are detected and named; steps with them may be left out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from test_deep_scm import make, trainer

from deepscm_pl.callbacks import FiniteCheck, SkipSteps
from deepscm_pl.runs.finite import BatchRecord, problem_of

from tiny import TinyDataModule

NAN, INF = float("nan"), float("inf")


class Poison(pl.Callback):
    """Inserts NaN into the third batch of every epoch."""

    def __init__(self, what):
        self.what = what

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2 and self.what == "parameter":
            pl_module.scm["image"].encoder.convolutions[0].bias.data[:] = NAN
        elif batch_idx == 2 and self.what == "data":
            batch["thickness"][3] = NAN

    def on_after_backward(self, trainer, pl_module):
        if trainer.fit_loop.epoch_loop.batch_idx == 2 and self.what == "gradient":
            next(pl_module.scm["intensity"].parameters()).grad[:] = INF


class Named(TinyDataModule):
    """Rows with identifiers."""

    def identifiers(self, split):
        return [f"sub-{row}" for row in self.variables(split)["index"].flatten().tolist()]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "data",
            r"log_prob/thickness is not finite for 1 of 16 images in batch 2 of epoch 3",
        ),
        ("parameter", r"(log_prob|kl)/image is not finite for 16 of 16.*no longer finite"),
        ("gradient", r"the gradient of intensity is not finite for 16 of 16 images in batch 2"),
    ],
)
def test_training_stops_with_the_term_and_the_batch(tmp_path, what, message):
    saving = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "saved", save_last=True)
    fitter = trainer(tmp_path, max_epochs=3, callbacks=[saving])
    model = make()
    fitter.fit(model, datamodule=TinyDataModule())
    fitter = trainer(tmp_path, max_epochs=4, callbacks=[saving, Poison(what)])
    last = tmp_path / "saved" / "last.ckpt"
    with pytest.raises(FloatingPointError, match=message) as stop:
        fitter.fit(model, datamodule=TinyDataModule(), ckpt_path=last, weights_only=True)
    assert f"The last good checkpoint is {last}." in str(stop.value)
    saved = torch.load(last, weights_only=True)["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in saved.values())


def test_images_are_named_by_their_identifiers(tmp_path):
    with pytest.raises(FloatingPointError, match=r"\(rows (\d+) \(sub-\1\) of the data\)"):
        trainer(tmp_path, callbacks=[Poison("data")]).fit(make(), datamodule=Named())


def test_validation_stops_too(tmp_path):
    class Broken(pl.Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
            batch["thickness"][4] = float("inf")

    with pytest.raises(FloatingPointError, match=r"log_prob/thickness .* 1 of 16 .*\(sub-\d+\)"):
        trainer(tmp_path, callbacks=[Broken()]).fit(make(), datamodule=Named())


def logged(logger, name):
    """The logged values of a quantity."""
    with Path(logger.log_dir, "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("what", ["data", "gradient"])
def test_unfit_steps_are_left_out(tmp_path, what):
    """Weights and the optimiser's state stay those of the step before."""
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights = [each.detach().clone() for each in pl_module.parameters()]
            moments = [state["exp_avg"].clone() for state in trainer.optimizers[0].state.values()]
            seen.append((weights, moments))

    skip, logger = SkipSteps(), CSVLogger(tmp_path)
    settings = {"max_epochs": 2, "callbacks": [skip, Poison(what), Watch()]}
    fitter = trainer(tmp_path, logger=logger, log_every_n_steps=1, **settings)
    with pytest.warns(UserWarning, match="skipped step 2, whose gradient has the norm (nan|inf)"):
        fitter.fit(make(), datamodule=TinyDataModule())
    assert skip.skipped == 2
    assert logged(logger, "train/skipped_steps") == [0, 0, 1, 1, 1, 1, 2, 2]
    for before, after, is_same in ((1, 2, True), (2, 3, False), (5, 6, True)):
        for old, new in zip(seen[before], seen[after], strict=True):
            same = [torch.equal(*pair) for pair in zip(old, new, strict=True)]
            assert all(same) if is_same else not any(same)


def test_long_gradients_are_left_out_and_too_many_stop_the_training(tmp_path):
    skip = SkipSteps(largest_norm=1e-9, most_in_a_row=3)
    with pytest.raises(FloatingPointError, match=r"4 steps in a row .* norm above 1e-09"):
        trainer(tmp_path, max_epochs=2, callbacks=[skip]).fit(make(), datamodule=TinyDataModule())
    for settings in ({"largest_norm": 0}, {"largest_norm": NAN}, {"most_in_a_row": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            SkipSteps(**settings)


def record(values, number=0):
    return BatchRecord(0, number, values.sum(), {"log_prob/x": values}, None)


def test_results_on_their_way_are_read_later(monkeypatch):
    """As on a GPU, where the result of a step arrives while the next ones are queued."""

    class Arrival:
        waited = 0

        def synchronize(self):
            Arrival.waited += 1

    from deepscm_pl.runs import finite

    check = finite._check
    monkeypatch.setattr(
        finite, "_check", lambda *arguments: check(*arguments)._replace(arrival=Arrival())
    )
    checker = FiniteCheck(delay=2)
    found = []
    for number, value in enumerate([1.0, NAN, 1.0, 1.0, 1.0]):
        checker.note(record(torch.tensor([1.0, value]), number))
        found.append(checker.step({}))
        if found[-1] is not None:
            break
    assert [each is None for each in found] == [True, True, True, False]
    assert found[-1].batch.number == 1
    assert checker.finish() is None
    checker.note(record(torch.tensor([NAN]), 9))
    assert checker.step({}) is None
    assert checker.finish().batch.number == 9


def test_all_batches_of_an_accumulated_step_are_checked():
    checker = FiniteCheck()
    for number in range(3):
        checker.note(record(torch.tensor([NAN if number == 1 else 0.0]), number))
    assert checker.step({}).batch.number == 1


def test_a_step_left_out_is_forgotten(tmp_path):
    class Remove(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.fit_loop.epoch_loop.batch_idx == 2:
                for parameter in pl_module.parameters():
                    parameter.grad = None

    callbacks = [Poison("data"), Remove()]
    fitter = trainer(tmp_path, max_epochs=1, callbacks=callbacks)
    fitter.fit(make(), datamodule=TinyDataModule())
    assert fitter.global_step == 4


def test_an_overflowing_sum_is_named():
    values = {
        "bound": torch.tensor([-INF]),
        "log_prob/thickness": torch.tensor([-1.0]),
        "log_prob/image": torch.tensor([-3e38]),
        "kl/image": torch.tensor([3e37]),
    }
    found = problem_of(BatchRecord(0, 0, values["bound"].sum(), values, None))
    assert found.term == "log_prob/image"
