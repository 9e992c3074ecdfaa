"""Trainings on two processes, run as a program that saves the records of each process."""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from deepscm_pl.callbacks import AssociationReport, CounterfactualGrid, RepeatableRun
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.likelihoods import DiscretisedLogisticMixture
from deepscm_pl.mechanisms import (
    AdversarialLoss,
    AdversarialNetworks,
    AffineFlow,
    Bernoulli,
    Categorical,
    ConditionalVAE,
    FlowMatching,
    HierarchicalVAE,
    ImplicitMechanism,
    MultiscaleFlow,
    SplineFlow,
)
from deepscm_pl.mechanisms.latent import GaussianPosterior
from deepscm_pl.nn import (
    ConvolutionalConditioner,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    Ladder,
    Overlay,
    PyramidDecoder,
    PyramidEncoder,
    ResidualClassifier,
    ResidualDecoder,
    ResidualEncoder,
    TemplateDecoder,
    UNet,
)
from deepscm_pl.training import (
    CounterfactualTuning,
    DeepSCM,
    EvidenceLowerBoundObjective,
    ImageClassifier,
)
from deepscm_pl.transforms import ImplicitMidpoint, Interval, Positive

from tiny import draw

BATCH = 16
"""Rows of one step on all processes."""

GRAPH = """
bright; thickness -> intensity; thickness -> width; thickness, bright, width -> image;
intensity -> texture;
thickness -> relief;
thickness, intensity, width -> drawing;
thickness, intensity -> volume;
thickness, bright -> sketch
"""

_TEXTURES = ("texture", "relief", "drawing", "sketch")


class RowsOfAllKinds(CausalDataModule):
    """64 training, 13 validation and 13 test rows: scalars, classes, images, a volume."""

    def __init__(self, batch_size: int = BATCH, validation_size: int = 13) -> None:
        super().__init__(batch_size=batch_size, validation_size=validation_size)

    def load(self) -> SourceSplits:
        return SourceSplits(train=_of_all_kinds(77, seed=1), test=_of_all_kinds(13, seed=2))


def _of_all_kinds(size, seed):
    rows = draw(size, seed)
    texture = rows["image"][..., ::2, ::2]
    volume = rows["image"][:, :, None, ::2, :].expand(-1, -1, 4, -1, -1)[..., ::2].clone()
    bright = (rows["intensity"] > 160).float()
    width = (rows["thickness"] > 3).float() + (rows["thickness"] > 5).float()
    label = (rows["thickness"] > 4).long()
    others = {"bright": bright, "width": width, "label": label}
    return {**rows, **others, "volume": volume} | dict.fromkeys(_TEXTURES, texture)


def attributes():
    """A model without noise in its bound."""
    constraint = partial(Interval, low=64, high=255)
    return DeepSCM(
        "thickness -> intensity",
        {
            "thickness": partial(SplineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=constraint),
        },
        optimizer=partial(torch.optim.SGD, lr=0.05),
    )


class MeanPosterior(GaussianPosterior):
    """A posterior whose draws are its mean."""

    def draw(self, sample_shape):
        latent = self.location.expand(*sample_shape, *self.location.shape)
        return super().draw(sample_shape)._replace(latent=latent)


class NoiseFreeVAE(ConditionalVAE):
    """A VAE that draws the mean of q, from grey levels without a random part."""

    def dequantise(self, value):
        return value + 0.5

    def posterior(self, value, parents):
        found = super().posterior(value, parents)
        return MeanPosterior(found.location, found.log_scale)


def refitted_image():
    """A model without noise, whose posterior is refitted in the second half of the training."""
    image = partial(
        NoiseFreeVAE,
        shape=(1, 8, 8),
        latent=2,
        hidden=4,
        encoder=partial(ConvolutionalEncoder, features=8, channels=(4, 8)),
        decoder=partial(ConvolutionalDecoder, hidden=8, channels=(8, 4)),
    )
    return DeepSCM(
        "image",
        {"image": image},
        optimizer=partial(torch.optim.SGD, lr=1e-6),
        objective=partial(EvidenceLowerBoundObjective, divergence_weight=0.5, refit=0.5),
    )


class NoiseFreeGame(ImplicitMechanism):
    """An implicit mechanism whose generated images have noise and parents of observed ones."""

    def dequantise(self, value):
        return value + 0.5

    def _generated(self, observed):
        noise = 0.5 - observed.noise
        image = self._generate_rows(noise, observed.context)
        return observed._replace(image=image, noise=noise), torch.zeros(len(image))


def adversarial():
    """A model of an image without a likelihood, trained without noise beside its cause."""
    encoder = partial(ConvolutionalEncoder, features=8, channels=(4, 8))
    decoder = partial(ConvolutionalDecoder, hidden=8, channels=(8, 4))
    image = partial(
        NoiseFreeGame,
        shape=(1, 8, 8),
        latent=2,
        hidden=4,
        networks=AdversarialNetworks(encoder, decoder, encoder),
        # Both are of the rows of a process: the penalty of one in four, moments of all together.
        loss=AdversarialLoss(penalty=0, moments=0),
    )
    mechanisms = {"thickness": partial(SplineFlow, constraint=Positive), "image": image}
    optimizer = partial(torch.optim.SGD, lr=0.01)
    return DeepSCM("thickness -> image", mechanisms, optimizer=optimizer)


def drawing():
    """An image whose parents scale the grey levels, place it, and grow a layer."""
    small = partial(ResidualDecoder, channels=(4,), hidden=8, embedding=4)
    layer = partial(Overlay, field=small, hidden=4)
    structure = {"place": ["thickness"], "overlay": ["width"], "layer": layer}
    return partial(
        ConditionalVAE,
        shape=(1, 4, 4),
        latent=2,
        hidden=8,
        encoder=partial(ResidualEncoder, features=4, channels=(4,), embedding=4),
        decoder=partial(TemplateDecoder, decoder=small, hidden=4, **structure),
        likelihood=partial(DiscretisedLogisticMixture, num_components=3, brightness=["intensity"]),
    )


def all_kinds(kind=DeepSCM):
    """A model with every kind of mechanism."""
    decoder = partial(PyramidDecoder, channels=(4, 2), convolutions=1)
    image = partial(
        ConditionalVAE,
        shape=(1, 8, 8),
        latent=2,
        hidden=8,
        encoder=partial(ConvolutionalEncoder, features=8, channels=(4, 8)),
        decoder=partial(TemplateDecoder, decoder=decoder, hidden=4),
    )
    volume = partial(
        ConditionalVAE,
        shape=(1, 4, 4, 4),
        latent=2,
        hidden=4,
        encoder=partial(PyramidEncoder, features=4, channels=(2,), convolutions=1),
        decoder=partial(PyramidDecoder, channels=(2,), convolutions=1),
    )
    texture = partial(
        MultiscaleFlow,
        shape=(1, 4, 4),
        steps=(2, 2),
        conditioner=partial(ConvolutionalConditioner, hidden=4),
    )
    relief = partial(
        FlowMatching,
        shape=(1, 4, 4),
        network=partial(UNet, channels=(4, 4), blocks=1, embedding=4),
        solver=ImplicitMidpoint(steps=3),
    )
    mechanisms = {
        "thickness": partial(SplineFlow, constraint=Positive),
        "intensity": partial(AffineFlow, constraint=partial(Interval, low=64, high=255)),
        "bright": Bernoulli,
        "width": partial(Categorical, categories=3),
        "image": image,
        "texture": texture,
        "relief": relief,
        "drawing": drawing(),
        "volume": volume,
        "sketch": partial(
            HierarchicalVAE,
            shape=(1, 4, 4),
            ladder=partial(Ladder, channels=(4, 4), latents=(1, 2), embedding=4),
            prior="conditional",
        ),
    }
    return kind(GRAPH, mechanisms)


class BatchNormalised(nn.Module):
    """An encoder with batch normalisation."""

    def __init__(self, image_shape, condition_features):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(image_shape[0]), nn.Flatten())
        self.out_features = math.prod(image_shape)

    def forward(self, image, condition):
        return self.layers(image)


class FitIsKept(DeepSCM):
    """Records the fitted statistics before Lightning copies them between processes."""

    def setup(self, stage):
        super().setup(stage)
        if stage == "fit":
            self.after_fit = {name: each.clone() for name, each in self.named_buffers()}


class Seen(pl.Callback):
    """Records the rows, the seeds and missing gradients."""

    def __init__(self):
        self.rows, self.seeds, self.missing = [], [], set()
        self.validation_seeds, self.test_seeds = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.named_parameters()
        self.missing |= {name for name, each in named if each.grad is None}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append(batch["index"].flatten().tolist())
        self.seeds.append(torch.initial_seed())

    def on_validation_batch_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.validation_seeds.append(torch.initial_seed())

    def on_test_batch_end(self, *_):
        self.test_seeds.append(torch.initial_seed())


def trainer_in(folder, **settings):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    common = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1}
    return pl.Trainer(default_root_dir=folder, **{**quiet, **common, **settings})


def train_attributes(folder, batch_size, checkpoint=None, **settings):
    """Parameters after a training without noise, and the quantities of 13 rows."""
    torch.manual_seed(0)
    model = attributes()
    data = RowsOfAllKinds(batch_size)
    saving = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = trainer_in(folder, callbacks=[saving], enable_checkpointing=True, **settings)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    steps = trainer.global_step
    measured = trainer.validate(model, data, verbose=False) + trainer.test(
        model, data, verbose=False
    )
    return {"parameters": model.state_dict(), "measured": measured, "steps": steps}


def train_refitted(folder, batch_size, **settings):
    """Parameters before the phase of refitting and at the end, of a training without noise."""
    torch.manual_seed(0)
    model = refitted_image()
    trainer = trainer_in(folder, callbacks=[AtHalf()], **settings)
    trainer.fit(model, datamodule=RowsOfAllKinds(batch_size))
    parameters = {name: each.detach().clone() for name, each in model.named_parameters()}
    return {"before": model.at_half, "parameters": parameters, "steps": model.refit_steps}


def train_adversarial(folder, batch_size, **settings):
    """Parameters after a training by a game, with half of the batch at a time."""
    torch.manual_seed(0)
    model, seen = adversarial(), Seen()
    common = {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2}
    trainer = trainer_in(folder, callbacks=[seen], **common, **settings)
    trainer.fit(model, datamodule=RowsOfAllKinds(batch_size // 2))
    parameters = {name: each.detach().clone() for name, each in model.named_parameters()}
    missing = sorted(seen.missing)
    return {"parameters": parameters, "steps": trainer.global_step, "missing": missing}


class Brightness(nn.Module):
    """The mean grey level, as a predictor of the intensity."""

    def forward(self, image):
        return image.flatten(1).mean(dim=1)


def train_tuned(folder, **settings):
    """Parameters before and after a tuning of an image that is fitted, but not trained."""
    torch.manual_seed(0)
    encoder = partial(ConvolutionalEncoder, features=8, channels=(4, 8))
    decoder = partial(ConvolutionalDecoder, hidden=8, channels=(8, 4))
    parts = {"encoder": encoder, "decoder": decoder, "hidden": 4}
    image = partial(ConditionalVAE, shape=(1, 8, 8), latent=2, **parts)
    mechanisms = {"intensity": AffineFlow, "image": image}
    model = DeepSCM(
        "intensity -> image",
        mechanisms,
        objective=partial(CounterfactualTuning, predictors={"intensity": Brightness}),
    )
    data = RowsOfAllKinds(BATCH // 2)
    data.setup()
    model.scm.fit(data.variables("train"))
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    trainer_in(folder, **{**settings, "max_epochs": 1}).fit(model, datamodule=data)
    return {"before": before, "state": model.state_dict()}


class AtHalf(pl.Callback):
    """Keeps the parameters after the first of two epochs."""

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            named = pl_module.named_parameters()
            pl_module.at_half = {name: each.detach().clone() for name, each in named}


def measure_classifier(folder, **settings):
    """The results of an untrained classifier for 13 rows in uneven shares."""
    torch.manual_seed(0)
    model = ImageClassifier((1, 8, 8), 2, partial(ResidualClassifier, channels=(8,)))
    data = RowsOfAllKinds(batch_size=4)
    trainer = trainer_in(folder, **settings)
    measured = trainer.validate(model, data, verbose=False)
    return measured + trainer.test(model, data, verbose=False)


def train_all_kinds(folder, **settings):
    """The records of one process that trains every kind of mechanism."""
    model = all_kinds(FitIsKept)
    seen = Seen()
    callbacks = [
        seen,
        ModelCheckpoint(save_last=True),
        CounterfactualGrid(["thickness=2"], every_n_epochs=1, num_images=2),
        AssociationReport(num_importance_samples=2, importance_rows=4),
    ]
    trainer = trainer_in(
        folder,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder),
        enable_checkpointing=True,
        **settings,
    )
    data = RowsOfAllKinds(BATCH // 2)
    trainer.fit(model, datamodule=data)
    parameters = {name: each.clone() for name, each in model.state_dict().items()}
    trainer.test(model, data, verbose=False)
    return {
        "after_fit": model.after_fit,
        "rows": seen.rows,
        "seeds": seen.seeds,
        "validation seeds": seen.validation_seeds,
        "test seeds": seen.test_seeds,
        "seed of the run": next(
            each.seed for each in trainer.callbacks if isinstance(each, RepeatableRun)
        ),
        "missing": sorted(seen.missing),
        "parameters": parameters,
    }


def refusal_of_common_statistics(folder, **settings):
    """The error of a training that would normalise over the batches of all processes."""
    image = partial(ConditionalVAE, shape=(1, 8, 8), latent=2, encoder=BatchNormalised)
    trainer = trainer_in(folder, sync_batchnorm=True, **settings)
    try:
        trainer.fit(DeepSCM("image", {"image": image}), datamodule=RowsOfAllKinds(BATCH // 2))
    except ValueError as error:
        return str(error)
    return f"none: it did {trainer.global_step} steps"


def watch_writing(folder):
    """Record the files and folders below ``folder`` that Python writes, makes or renames."""
    written = []

    def note(event, arguments):
        if event not in ("open", "os.mkdir", "os.rename", "os.remove"):
            return
        path, flags = arguments[0], arguments[-1]
        reads = event == "open" and not (isinstance(flags, int) and flags & _WRITING)
        if not reads and isinstance(path, str | os.PathLike) and str(path).startswith(folder):
            written.append(f"{event} {path}")

    sys.addaudithook(note)
    return written


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main(folder, checkpoint):
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    written = watch_writing(str(folder / "files"))
    two = {"devices": 2, "strategy": "ddp"}
    torch.manual_seed(rank)  # processes start with different parameters
    found = {"all kinds": train_all_kinds(folder / "files", **two)}
    found["written"] = list(written)
    pl.seed_everything(3)
    found["attributes"] = train_attributes(folder / "two", BATCH // 2, **two)
    found["resumed"] = train_attributes(folder / "resumed", BATCH // 4, checkpoint, **two)
    found["refitted"] = train_refitted(folder / "refitted", BATCH // 2, **two)
    found["adversarial"] = train_adversarial(folder / "game", BATCH // 2, **two)
    found["tuned"] = train_tuned(folder / "tuned", **two)
    found["classifier"] = measure_classifier(folder, **two)
    found["refusal"] = refusal_of_common_statistics(folder / "refused", **two)
    torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
