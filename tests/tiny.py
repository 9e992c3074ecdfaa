"""A world of 8×8 images of a bright bar, with models that train in a second."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.distributions import AffineTransform, CumulativeDistributionTransform, Normal

from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.mechanisms import ConditionalVAE, Known, Logistic
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Domain
from deepscm_pl.worlds import KnownWorld, Renderer


def image_mechanism(shape=(1, 8, 8), **settings) -> partial[ConditionalVAE]:
    """Factory of a small VAE for images of :class:`TinyDataModule` or of another shape."""
    return partial(
        ConditionalVAE,
        shape=shape,
        latent=2,
        hidden=8,
        encoder=partial(ConvolutionalEncoder, features=8, channels=(4, 8)),
        decoder=partial(ConvolutionalDecoder, hidden=16, channels=(8, 4)),
        **settings,
    )


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
    """Bars: 60 training, 20 validation and 20 test rows."""

    def __init__(
        self,
        batch_size: int = 16,
        validation_size: int = 20,
        broken_row: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, validation_size=validation_size, num_workers=num_workers
        )
        self.broken_row = broken_row

    def load(self) -> SourceSplits:
        train = draw(80, seed=1)
        if self.broken_row is not None:
            train["thickness"][self.broken_row] = float("inf")
        return SourceSplits(train=train, test=draw(20, seed=2))


class IncompleteDataModule(TinyDataModule):
    """Bars of which every third has no intensity, in every split, and the first no thickness."""

    def __init__(self, batch_size: int = 16, validation_size: int = 20) -> None:
        super().__init__(batch_size, validation_size)

    def load(self) -> SourceSplits:
        source = super().load()
        for split in (source.train, source.test):
            split["intensity"][::3] = float("nan")
            split["thickness"][0] = float("nan")
        return source


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


UNEVALUATED = ("--evaluation.enabled", "false", "--association.num_importance_samples", "0")
"""Options of a training or a test without the evaluation, which takes most of its time."""


def write_configuration(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    return path


class WideOrNarrowDataModule(TinyDataModule):
    """The same rows with a label that is 1 if the bar is wider than half of the image."""

    def load(self) -> SourceSplits:
        splits = super().load()
        return SourceSplits(train=_labelled(splits.train), test=_labelled(splits.test))


def _labelled(variables):
    return {**variables, "label": (variables["thickness"] > 4).long()}


class TinyRenderer(Renderer):
    """The first row of pixels is a ruler of thickness and intensity; below it is a texture.

    The thickness determines how many columns of the texture are visible. The others are hidden, so
    that a factual image does not determine its counterfactual: the particles of a perfect model
    and the truth are exchangeable.
    """

    attributes = ("thickness", "intensity")

    def shape(self, originals, attributes):
        thickness, intensity = (attributes[name][:, None] for name in ("thickness", "intensity"))
        columns = np.arange(8.0)
        images = np.where(columns < thickness[..., None], originals, 0)
        images[:, 0] = np.rint(intensity * np.clip(thickness - columns, 0, 1))
        return images.astype(np.uint8)

    def measure(self, images):
        ruler = np.asarray(images, dtype=np.float64)[:, 0]
        with np.errstate(invalid="ignore"):
            thickness = ruler.sum(axis=1) / ruler[:, 0]
        return {"thickness": thickness, "intensity": np.where(ruler[:, 0] > 0, ruler[:, 0], np.nan)}


def _uniform(parents):
    """1 + 5·Φ(u)."""
    return [CumulativeDistributionTransform(Normal(0.0, 1.0)), AffineTransform(1.0, 5.0)]


def _intensity(parents):
    return [AffineTransform(parents["thickness"] - 3, 0.5), Logistic(64.0, 255.0)]


class TinyWorld(KnownWorld):
    """What :class:`TinyRenderer` draws; ``brightest`` is the largest intensity of a drawing."""

    name = "tiny"

    def __init__(self, brightest: float = 255.0) -> None:
        thickness = partial(Known, layers=_uniform, domain=Domain(lower=1.0, upper=8.0))
        domain = Domain(lower=0.0, upper=brightest)
        intensity = partial(Known, layers=_intensity, domain=domain)
        scm = StructuralCausalModel(
            "thickness -> intensity", {"thickness": thickness, "intensity": intensity}
        )
        units = {"thickness": "pixels", "intensity": "grey levels"}
        super().__init__("tiny", scm, TinyRenderer(), units)


class KnownTinyDataModule(CausalDataModule):
    """Images of :class:`TinyWorld`: 60 training, 20 validation and ``test_size`` test rows.

    The label is 1 if the top left pixel of the texture is bright.
    """

    def __init__(
        self,
        batch_size: int = 16,
        validation_size: int = 20,
        test_size: int = 24,
        has_originals: bool = True,
    ) -> None:
        super().__init__(batch_size=batch_size, validation_size=validation_size)
        self.test_size = test_size
        self.has_originals = has_originals

    @property
    def world(self):
        return TinyWorld()

    def load(self) -> SourceSplits:
        return SourceSplits(train=self._draw("train"), test=self._draw("test"))

    def load_originals(self, split):
        if not self.has_originals:
            raise ValueError("there are no originals here.")
        size, seed = (80, 3) if split == "train" else (self.test_size, 4)
        return np.random.default_rng(seed).integers(1, 256, (size, 8, 8), dtype=np.uint8)

    def _draw(self, split):
        size, seed = (80, 5) if split == "train" else (self.test_size, 6)
        originals = KnownTinyDataModule(test_size=self.test_size).load_originals(split)
        sample = self.world.sample(size, np.random.default_rng(seed))
        recorded = {name: column.astype(np.float32) for name, column in sample.items()}
        return {
            **{name: torch.from_numpy(column)[:, None] for name, column in recorded.items()},
            "image": torch.from_numpy(self.world.render(originals, recorded))[:, None],
            "label": torch.from_numpy((originals[:, 1, 0] >= 128).astype(np.int64))[:, None],
        }
