"""A whole epoch through a Lightning trainer, against driving the same steps without one.

The trainer loads data, logs every 50 steps and shows a progress bar (on standard error); the other
side only loads data. Prints one JSON line, of the full Morpho-MNIST model.

    python benchmarks/epoch.py --images 2560 --batch 64 --rounds 5
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory
from time import perf_counter

import pytorch_lightning as pl
import torch
from measuring import RandomData, compare, make_model, report
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader
from train_step import ModelSteps


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2560, help="images of an epoch")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    data = RandomData(arguments.images, arguments.batch)
    data.setup("fit")
    # A second data module: the trainer keeps its hold of the first one.
    loader = RandomData(arguments.images, arguments.batch)
    loader.setup("fit")
    torch.manual_seed(0)
    model = make_model("morphomnist/full.yaml")
    steps = ModelSteps(make_model("morphomnist/full.yaml"), {})
    with TemporaryDirectory() as folder:
        found = compare(
            lambda: _fit(model, data, folder),
            lambda: _drive(steps, loader.train_dataloader()),
            arguments.rounds,
        )
    count = -(-arguments.images // arguments.batch)
    report(
        "epoch_over_steps_alone",
        speed_over_steps_alone=found.ratio,
        images_per_second=arguments.images / found.first,
        images_per_second_by_steps_alone=arguments.images / found.second,
        milliseconds_more_per_step=1000 * (found.first - found.second) / count,
    )


class EpochClock(pl.Callback):
    """Takes the time of training epochs, without what is before and after.

    Attributes:
        seconds: Of the last epoch.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.seconds = -perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds += perf_counter()


def _fit(model: pl.LightningModule, data: RandomData, folder: str) -> float:
    """Seconds of an epoch with a trainer."""
    clock = EpochClock()
    with redirect_stdout(sys.stderr):
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_val_batches=0,
            log_every_n_steps=50,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=CSVLogger(folder),
            callbacks=[clock],
        )
        trainer.fit(model, data)
    return clock.seconds


def _drive(steps: ModelSteps, loader: DataLoader[dict[str, torch.Tensor]]) -> float:
    """Seconds of an epoch without."""
    start = perf_counter()
    for batch in loader:
        steps.batch = batch
        steps.step()
    return perf_counter() - start


if __name__ == "__main__":
    main()
