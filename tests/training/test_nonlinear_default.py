"""Mechanisms learn curves without being asked to, and a training says how well they fit."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.evaluation import ModelOnData
from deepscm_pl.evaluation.mechanism_fit import evaluate_mechanisms
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.training import DeepSCM, OneCycle


class Curve(CausalDataModule):
    """y = x² + noise."""

    def __init__(self) -> None:
        super().__init__(batch_size=64, validation_size=100)

    def load(self) -> SourceSplits:
        generator = torch.Generator().manual_seed(0)
        x, noise = torch.randn(2, 1000, 1, generator=generator)
        rows = {"x": x, "y": x**2 + 0.3 * noise}
        return SourceSplits(
            {name: each[:800] for name, each in rows.items()},
            {name: each[800:] for name, each in rows.items()},
        )


def quiet(**settings) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    pl.seed_everything(0)
    model = DeepSCM(
        "x -> y",
        {"x": AffineFlow, "y": AffineFlow},
        optimizer=partial(torch.optim.Adam, lr=2e-2),
        scheduler=OneCycle,
    )
    trainer = quiet(max_epochs=40)
    data = Curve()
    trainer.fit(model, datamodule=data)
    return model.eval(), data, trainer


def test_the_effect_of_x_is_the_curve(trained):
    model, _, _ = trained
    torch.manual_seed(0)
    with torch.no_grad():
        means = [float(model.scm.intervene({"x": x}, 2000)["y"].mean()) for x in (-2.0, 0.0, 2.0)]
    assert means == pytest.approx([4, 0, 4], abs=0.35)


def test_the_course_and_the_fit_are_described(trained):
    model, data, _ = trained
    history = model.validation_history
    assert {name: len(each) for name, each in history.items()} == {"x": 40, "y": 40}
    on_data = ModelOnData.of(model.scm, data, split="validation")
    found = {f.variable: f for f in evaluate_mechanisms(on_data, history, progress=False)}
    assert found["y"].sentence.startswith("y: converged, uses its parents (gains ")
    assert found["y"].over_linear.mean > 0.8


def test_the_course_is_resumed(trained, tmp_path):
    model, _, trainer = trained
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    found = torch.load(tmp_path / "last.ckpt", weights_only=True)["validation_history"]
    assert found == model.validation_history
    again = DeepSCM.load_from_checkpoint(tmp_path / "last.ckpt")
    again.on_load_checkpoint({"validation_history": found, "variables": {}})
    assert again.validation_history == found
    # An earlier checkpoint, such as the best one, does not shorten it.
    again.on_load_checkpoint({"validation_history": {"y": [-1.0]}, "variables": {}})
    assert again.validation_history == found
    for wrong in ([1.0], {"y": 3.0}, {"y": ["a"]}):
        with pytest.raises(ValueError, match="validation_history: expected lists"):
            again.on_load_checkpoint({"validation_history": wrong, "variables": {}})
