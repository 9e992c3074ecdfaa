"""Features of Lightning's trainer work with these models."""

from __future__ import annotations

import pytest
import torch
from on_processes import BATCH, RowsOfAllKinds, attributes, train_attributes, trainer_in
from pytorch_lightning.callbacks import BatchSizeFinder, EarlyStopping, LearningRateFinder

from tiny import TinyDataModule


def train(folder, data=None, **settings):
    torch.manual_seed(0)
    model = attributes()
    trainer = trainer_in(folder, **settings)
    data = RowsOfAllKinds() if data is None else data
    trainer.fit(model, datamodule=data)
    return model, trainer


def test_gradients_accumulate_to_those_of_the_whole_batch(tmp_path):
    whole = train_attributes(tmp_path, BATCH)
    parts = train_attributes(tmp_path, BATCH // 4, accumulate_grad_batches=4)
    assert parts["steps"] == whole["steps"] == 8
    for name, value in whole["parameters"].items():
        torch.testing.assert_close(parts["parameters"][name], value, rtol=0, atol=1e-5, msg=name)


def test_gradients_are_clipped(tmp_path):
    torch.manual_seed(0)
    start = {name: each.detach().clone() for name, each in attributes().named_parameters()}
    model, _ = train(tmp_path, gradient_clip_val=1e-3, max_steps=1)
    moved = [each.detach() - start[name] for name, each in model.named_parameters()]
    distance = torch.cat([each.flatten() for each in moved]).norm()
    assert distance == pytest.approx(0.05 * 1e-3, rel=1e-2), "the learning rate times the bound"


def test_the_batch_size_finder_works(tmp_path):
    data = TinyDataModule(batch_size=2)
    finder = BatchSizeFinder(mode="power", steps_per_trial=1, init_val=2, max_trials=3)
    model, trainer = train(tmp_path, data, callbacks=[finder], enable_checkpointing=True)
    assert data.batch_size == finder.optimal_batch_size == 8
    assert trainer.global_step == 2 * 8
    assert all(torch.isfinite(each).all() for each in model.parameters())


def test_the_learning_rate_finder_works(tmp_path):
    finder = LearningRateFinder(
        max_lr=0.1, num_training_steps=40, early_stop_threshold=None, update_attr=False
    )
    data = RowsOfAllKinds(batch_size=2)
    _, trainer = train(tmp_path, data, callbacks=[finder], enable_checkpointing=True)
    assert finder.optimal_lr is not None
    assert finder.optimal_lr.suggestion() > 0
    assert trainer.global_step == 2 * 32


def test_early_stopping_works(tmp_path):
    stopping = EarlyStopping("validation/bound", mode="max", patience=1, min_delta=1e6)
    _, trainer = train(tmp_path, callbacks=[stopping], max_epochs=9)
    assert trainer.current_epoch == 2


def test_the_profiler_works(tmp_path, caplog):
    with caplog.at_level("INFO"):
        train(tmp_path, profiler="simple", max_steps=1)
    assert "training_step" in caplog.text
    assert "FIT Profiler Report" in caplog.text
