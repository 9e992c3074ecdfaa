"""A world of 8×8 images that trains in a second: a bright bar whose width is its thickness."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from deepscm_pl.data import CausalDataModule, SourceSplits


def draw(size: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    thickness = 1 + 5 * torch.rand(size, 1, generator=generator)
    noise = torch.randn(size, 1, generator=generator)
    intensity = 64 + 191 * torch.sigmoid(thickness - 3 + 0.5 * noise)
    columns = torch.arange(8.0).expand(size, 1, 8, 8)
    image = (intensity[..., None, None] * (columns < thickness[..., None, None])).round()
    label = torch.zeros(size, 1, dtype=torch.int64)
    return {
        "thickness": thickness,
        "intensity": intensity,
        "image": image.byte(),
        "label": label,
    }


class TinyDataModule(CausalDataModule):
    """60 training, 20 validation and 20 test rows."""

    def __init__(
        self, batch_size: int = 16, validation_size: int = 20, broken_row: int | None = None
    ) -> None:
        super().__init__(batch_size=batch_size, validation_size=validation_size)
        self.broken_row = broken_row

    def load(self) -> SourceSplits:
        train = draw(80, seed=1)
        if self.broken_row is not None:
            train["thickness"][self.broken_row] = float("nan")
        return SourceSplits(train=train, test=draw(20, seed=2))


CONFIGURATION = {
    "seed_everything": 3,
    "model": {
        "graph": "thickness -> intensity; thickness, intensity -> image",
        "mechanisms": {
            "thickness": {
                "class_path": "deepscm_pl.mechanisms.SplineFlow",
                "init_args": {"constraint": "deepscm_pl.transforms.Positive"},
            },
            "intensity": {
                "class_path": "deepscm_pl.mechanisms.AffineFlow",
                "init_args": {
                    "constraint": {
                        "class_path": "deepscm_pl.transforms.Interval",
                        "init_args": {"low": 64, "high": 255},
                    }
                },
            },
            "image": {
                "class_path": "deepscm_pl.mechanisms.ConditionalVAE",
                "init_args": {
                    "shape": [1, 8, 8],
                    "latent": 2,
                    "hidden": 8,
                    "encoder": {
                        "class_path": "deepscm_pl.nn.ConvolutionalEncoder",
                        "init_args": {"features": 8, "channels": [4, 8]},
                    },
                    "decoder": {
                        "class_path": "deepscm_pl.nn.ConvolutionalDecoder",
                        "init_args": {"hidden": 16, "channels": [8, 4]},
                    },
                    "likelihood": "deepscm_pl.likelihoods.PredictedVarianceGaussian",
                },
            },
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.005}},
        "scheduler": {"class_path": "deepscm_pl.training.OneCycle"},
        "learning_rates": {"thickness": 0.01},
    },
    "data": {"class_path": "tiny.TinyDataModule", "init_args": {"batch_size": 16}},
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "callbacks": [
            {
                "class_path": "deepscm_pl.callbacks.CounterfactualGrid",
                "init_args": {
                    "interventions": ["thickness=2", "intensity+=1"],
                    "every_n_epochs": 1,
                    "num_images": 3,
                },
            },
            {
                "class_path": "deepscm_pl.callbacks.InterventionGrid",
                "init_args": {
                    "interventions": ["thickness=2"],
                    "every_n_epochs": 1,
                    "num_images": 3,
                },
            },
        ],
    },
}


def write_configuration(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    return path


class WideOrNarrowDataModule(TinyDataModule):
    """The same rows; the label says whether the bar is wider than half of the image."""

    def load(self) -> SourceSplits:
        splits = super().load()
        return SourceSplits(train=_labelled(splits.train), test=_labelled(splits.test))


def _labelled(variables):
    return {**variables, "label": (variables["thickness"] > 4).long()}
