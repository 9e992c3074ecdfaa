"""Counterfactuals of a model trained with missing values, against one of the complete data.

A share of the intensities of Morpho-MNIST is removed at random from the training and the validation
split. Prints one JSON line per model: the mean absolute error of its counterfactual images against
the known world, in grey levels, and that of the intensities it infers.

    python benchmarks/missing_values.py --root data/morphomnist --steps 2000
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor

from deepscm_pl.data import MorphoMNISTDataModule, SourceSplits
from deepscm_pl.evaluation.counterfactuals import true_images
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.questions import Question
from deepscm_pl.likelihoods import DiscretisedLogisticMixture, PredictedVarianceGaussian
from deepscm_pl.mechanisms import AffineFlow, ConditionalVAE, SplineFlow
from deepscm_pl.nn import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.training import DeepSCM, EvidenceLowerBoundObjective, OneCycle
from deepscm_pl.transforms import Interval, Positive

QUESTIONS = ("thickness=1.5", "thickness=4", "intensity=100", "intensity=230", "thickness+=0.5")


class Incomplete(MorphoMNISTDataModule):
    """Morpho-MNIST without some of the intensities of the rows that are not for tests."""

    def __init__(self, root: str, share: float, rows: int, how: str = "infer") -> None:
        super().__init__(root, batch_size=128, validation_size=500)
        self.share, self.rows, self.how = share, rows, how

    def load(self) -> SourceSplits:
        """Read the first rows, and remove intensities, or the rows without them."""
        source = super().load()
        train = {name: value[: self.rows] for name, value in source.train.items()}
        generator = torch.Generator().manual_seed(0)
        removed = torch.rand(len(train["label"]), generator=generator) < self.share
        if self.how == "drop":
            train = {name: value[~removed] for name, value in train.items()}
        else:
            intensity = train["intensity"].clone()
            intensity[removed] = torch.nan
            train["intensity"] = intensity
        return SourceSplits(train, source.test)


def model(image_rate: float, has_brightness: bool = False) -> DeepSCM:
    """A small full model.

    Args:
        image_rate: Learning rate of the image.
        has_brightness: Whether the intensity scales the grey levels and does nothing else.
    """
    mixture = partial(DiscretisedLogisticMixture, num_components=2, brightness=["intensity"])
    image = partial(
        ConditionalVAE,
        latent=16,
        hidden=64,
        encoder=partial(ConvolutionalEncoder, channels=(16, 32), features=64),
        decoder=partial(ConvolutionalDecoder, channels=(32, 16), hidden=128),
        likelihood=mixture if has_brightness else PredictedVarianceGaussian,
    )
    return DeepSCM(
        "thickness -> intensity; thickness, intensity -> image",
        {
            "thickness": partial(SplineFlow, constraint=Positive),
            "intensity": partial(AffineFlow, constraint=partial(Interval, 64, 255)),
            "image": image,
        },
        optimizer=partial(torch.optim.Adam, lr=image_rate),
        scheduler=OneCycle,
        objective=partial(EvidenceLowerBoundObjective, warmup_steps=500 if has_brightness else 0),
        learning_rates={"thickness": 1e-2, "intensity": 1e-2},
    )


def errors(trained: DeepSCM, data: MorphoMNISTDataModule, rows: int) -> dict[str, float]:
    """Mean absolute errors against the truth in grey levels, by question."""
    scm = trained.scm.eval()
    on_data = ModelOnData.of(scm, data, rows)
    questions = [Question(text, scm.variables) for text in QUESTIONS]
    truths = true_images(on_data, questions, workers=1, progress=False)
    factual = on_data.rows(0, rows)
    found = {}
    torch.manual_seed(0)
    with torch.no_grad():
        for question, truth in zip(questions, truths, strict=True):
            answer = scm.counterfactual(factual, question.do, 8)["image"].mean(dim=0)
            error = (answer - truth.images).abs().flatten(1).mean(dim=1)
            found[question.text] = float(error[truth.possible].mean())
        hidden: dict[str, Tensor] = {**factual, "intensity": factual["intensity"] * torch.nan}
        inferred = scm.infer_missing(hidden, 8)["intensity"].mean(dim=0)
        found["inferred intensity"] = float((inferred - factual["intensity"]).abs().mean())
    found["images"] = sum(found[text] for text in QUESTIONS) / len(QUESTIONS)
    return found


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data/morphomnist", help="folder of Morpho-MNIST")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--rows", type=int, default=20_000, help="rows for training, validation")
    parser.add_argument("--test-rows", type=int, default=300, help="test rows")
    parser.add_argument("--share", type=float, default=0.3, help="share of intensities removed")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument(
        "--brightness", action="store_true", help="let the intensity scale the grey levels only"
    )
    known = ("complete", "missing", "dropped")
    parser.add_argument("--cases", nargs="+", choices=known, default=known, help="what to train on")
    arguments = parser.parse_args()
    for name in arguments.cases:
        share = 0.0 if name == "complete" else arguments.share
        how = "drop" if name == "dropped" else "infer"
        pl.seed_everything(0, verbose=False)
        data = Incomplete(arguments.root, share, arguments.rows, how)
        trained = model(arguments.rate, arguments.brightness)
        start = time.perf_counter()
        trainer = pl.Trainer(
            max_steps=arguments.steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(trained, data)
        seconds = time.perf_counter() - start
        found = {
            key: round(value, 3)
            for key, value in errors(trained, data, arguments.test_rows).items()
        }
        print(json.dumps({"data": name, "seconds": round(seconds), **found}), flush=True)


if __name__ == "__main__":
    main()
