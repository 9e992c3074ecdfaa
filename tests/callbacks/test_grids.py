"""Grids leave the training alone and show what was asked."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from deepscm_pl.callbacks import CounterfactualGrid, InterventionGrid
from deepscm_pl.configuration import restore
from deepscm_pl.training import DeepSCM

from tiny import CONFIGURATION, TinyDataModule


def make():
    torch.manual_seed(0)
    settings = {k: v for k, v in CONFIGURATION["model"].items() if k in ("graph", "mechanisms")}
    settings["mechanisms"] = {
        "thickness": {
            "class_path": "deepscm_pl.SplineFlow",
            "init_args": {"constraint": {"class_path": "deepscm_pl.Positive"}},
        },
        "intensity": settings["mechanisms"]["intensity"],
        "image": {
            **settings["mechanisms"]["image"],
            "init_args": {
                **settings["mechanisms"]["image"]["init_args"],
                "likelihood": {"class_path": "deepscm_pl.FixedVarianceGaussian"},
            },
        },
    }
    return DeepSCM(**restore(settings))


def fit(folder, callbacks):
    model = make()
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(7)
    trainer.fit(model, datamodule=TinyDataModule())
    return model


def test_drawing_does_not_change_the_training(tmp_path):
    grid = CounterfactualGrid(["thickness=2"], every_n_epochs=1, num_images=2)
    with_grid = fit(tmp_path / "a", [grid])
    without = fit(tmp_path / "b", [])
    for name, value in with_grid.state_dict().items():
        assert torch.equal(value, without.state_dict()[name]), name
    assert len(grid.written) == 3
    assert grid.written[0].parent.name == "checkpoints"


def test_epochs_are_chosen_and_the_last_is_drawn(tmp_path):
    grid = InterventionGrid(["thickness=2"], every_n_epochs=2, num_images=2)
    fit(tmp_path, [grid])
    assert [path.name for path in grid.written] == [
        "intervention-image-epoch=1.png",
        "intervention-image-epoch=2.png",
    ]


def test_columns_are_the_interventions():
    model = make()
    data = TinyDataModule().variables("test")
    model.scm.fit(data)
    observations = {name: value[:4].float() for name, value in data.items()}
    grid = CounterfactualGrid(["thickness=2", "intensity+=5"], num_images=4, num_particles=3)
    titles, columns = grid.columns(model.scm, observations)
    assert titles == ["factual", "do(thickness = 2)", "do(intensity + 5)"]
    assert torch.equal(columns[0]["image"], observations["image"])
    assert (columns[1]["thickness"] == 2).all()
    torch.testing.assert_close(columns[2]["intensity"], observations["intensity"] + 5)
    assert torch.equal(columns[2]["thickness"], observations["thickness"])
    titles, columns = InterventionGrid(["intensity=100"], num_images=4).columns(model.scm, {})
    torch.testing.assert_close(columns[0]["thickness"], columns[1]["thickness"])
    assert (columns[1]["intensity"] == 100).all()


@pytest.mark.parametrize("grid", [CounterfactualGrid, InterventionGrid])
def test_extrapolated_answers_are_marked(grid):
    """Below the values of the row; the first column is no answer."""
    model = make()
    data = TinyDataModule().variables("train")
    model.scm.fit(data)
    observations = {name: value[:3].float() for name, value in data.items()}
    asked = grid(["thickness=30", "thickness=3"], num_images=3)
    ((_, figure),) = asked.draw(model.scm, observations, "validation")
    texts = [text.get_text() for text in figure.axes[0].texts if "\nintensity" in text.get_text()]
    beyond = [text for text in texts if text.startswith("thickness 30")]
    assert len(beyond) == 3
    assert all(text.endswith("\nextrapolated") for text in beyond)
    within = [text for text in texts if text.split("\n")[0] == "thickness 3"]
    assert len(within) == 3
    if grid is CounterfactualGrid:
        factual = [text for text in texts if text not in (*beyond, *within)]
        assert len(factual) == 3
        assert not any("extrapolated" in text for text in factual)


def test_models_without_training_distribution_are_drawn_without_marks():
    model = make()
    data = TinyDataModule().variables("train")
    observations = {name: value[:3].float() for name, value in data.items()}
    grid = CounterfactualGrid(["thickness=30"], num_images=3)
    ((_, figure),) = grid.draw(model.scm.eval(), observations, "validation")
    assert not any("extrapolated" in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interventions": []}, "number of interventions"),
        ({"interventions": ["thickness"]}, "cannot read"),
        ({"interventions": ["thickness=2"], "every_n_epochs": 0}, "every_n_epochs"),
        ({"interventions": ["thickness=2"], "num_images": 0}, "num_images"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CounterfactualGrid(**settings)
