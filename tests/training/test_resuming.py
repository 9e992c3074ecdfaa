"""An interrupted training is exactly equal to an uninterrupted one."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from test_deep_scm import make as make_model
from torch.optim.lr_scheduler import ReduceLROnPlateau

from deepscm_pl.training import (
    CounterfactualObjective,
    EvidenceLowerBoundObjective,
    OneCycle,
)

from tiny import TinyDataModule

EPOCHS = 3
"""Epochs of 60 rows in batches of 16: four steps each."""


class Curves(Logger):
    """Records the logged values in their order."""

    def __init__(self):
        super().__init__()
        self.points = []

    name, version = "curves", 0

    def log_metrics(self, metrics, step=None):
        kept = {name: value for name, value in metrics.items() if name != "epoch"}
        self.points += [(step, name, value) for name, value in sorted(kept.items())]

    def log_hyperparams(self, *_, **__):
        pass


def make(scheduler=OneCycle, objective=EvidenceLowerBoundObjective):
    torch.manual_seed(0)
    return make_model(scheduler=scheduler, objective=objective)


def train(folder, checkpoint=None, *, workers=0, saving=(), model=(), **settings):
    """The state after a training, and its curves."""
    curves = Curves()
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=curves,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=EPOCHS,
        log_every_n_steps=1,
        callbacks=[EMAWeightAveraging(decay=0.8, use_buffers=False), *saving],
        **settings,
    )
    data = TinyDataModule()
    data.num_workers = workers
    torch.rand(3)  # what is drawn before does not matter
    trainer.fit(make(**dict(model)), datamodule=data, ckpt_path=checkpoint, weights_only=True)
    path = folder / f"end-{checkpoint is None}.ckpt"
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True), curves.points


def saver(**settings):
    return ModelCheckpoint(filename="{step}", save_top_k=-1, **settings)


STEPS = partial(saver, every_n_train_steps=1)
VALIDATIONS = partial(saver, save_on_train_epoch_end=False)
EPOCH_ENDS = partial(saver, save_on_train_epoch_end=True)


def assert_same(found, expected, where=""):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for position, value in enumerate(expected):
            assert_same(found[position], value, f"{where}/{position}")
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (STEPS, {}),
        (VALIDATIONS, {}),
        (EPOCH_ENDS, {}),
        (STEPS, {"workers": 2}),
        (VALIDATIONS, {"workers": 2}),
        (STEPS, {"accumulate_grad_batches": 2}),
        (STEPS, {"val_check_interval": 2}),
        (VALIDATIONS, {"val_check_interval": 2}),
        (EPOCH_ENDS, {"limit_val_batches": 0}),
        (VALIDATIONS, {"limit_train_batches": 3}),
        # Lightning does not look at a plateau whose epoch was saved between its last batch and
        # validation; so this one is saved in mid-epoch.
        (partial(saver, every_n_train_steps=3), {"model": {"scheduler": ReduceLROnPlateau}}),
        (
            STEPS,
            {"model": {"objective": partial(CounterfactualObjective, variables=[["thickness"]])}},
        ),
        (
            STEPS,
            {
                "model": {
                    "objective": partial(
                        EvidenceLowerBoundObjective, divergence_weight=0.5, refit=0.5
                    )
                }
            },
        ),
    ],
)
def test_an_interrupted_training_equals_an_uninterrupted_one(tmp_path, monkeypatch, kind, settings):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    saving = kind(dirpath=tmp_path / "saved")
    expected, curve = train(tmp_path, saving=[saving], **settings)
    checkpoints = sorted((tmp_path / "saved").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert len(checkpoints) >= EPOCHS
    for path in checkpoints[:-1]:
        found, points = train(tmp_path, str(path), **settings)
        for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
            assert_same(found[part], expected[part], f"{path.name}: {part}")
        assert found["global_step"] == expected["global_step"]
        step = torch.load(path, weights_only=True)["global_step"]
        logged = [point for point in points if point[0] >= step]
        assert logged == [point for point in curve if point[0] >= step], path.name
