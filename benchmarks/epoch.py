"""A whole epoch through a Lightning trainer, against driving the same steps without one.

The trainer loads data, logs every 50 steps and shows a progress bar (on standard error); the other
side only loads data. Prints one JSON line, of the full Morpho-MNIST model; on a GPU with the most
memory and the utilisation of an epoch of the trainer.

    python benchmarks/epoch.py --images 2560 --batch 64 --rounds 5 --device cuda
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory

import pytorch_lightning as pl
import torch
from devices import UsageMeter, add_device_option, clock
from figures import Figures, add_promise_option
from measuring import RandomData, compare, make_model
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader
from train_step import ModelSteps


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2560, help="images of an epoch")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    add_device_option(parser)
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    _measure(figures, arguments)
    figures.check()


def _measure(figures: Figures, arguments: argparse.Namespace) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    data = RandomData(arguments.images, arguments.batch)
    data.setup("fit")
    # A second data module: the trainer keeps its hold of the first one.
    loader = RandomData(arguments.images, arguments.batch)
    loader.setup("fit")
    torch.manual_seed(0)
    device: torch.device = arguments.device
    model = make_model("morphomnist/full.yaml")
    steps = ModelSteps(make_model("morphomnist/full.yaml").to(device), {})
    with TemporaryDirectory() as folder:
        found = compare(
            lambda: _fit(model, data, folder, EpochClock(device)),
            lambda: _drive(steps, loader.train_dataloader()),
            arguments.rounds,
        )
        observed = EpochClock(device, is_observed=True)
        if device.type == "cuda":
            _fit(model, data, folder, observed)
    count = -(-arguments.images // arguments.batch)
    figures.report(
        "epoch_over_steps_alone",
        speed_over_steps_alone=found.ratio,
        images_per_second=arguments.images / found.first,
        images_per_second_by_steps_alone=arguments.images / found.second,
        milliseconds_more_per_step=1000 * (found.first - found.second) / count,
        **observed.usage,
    )


class EpochClock(pl.Callback):
    """Takes the time of training epochs, without what is before and after.

    Args:
        device: Where they are trained.
        is_observed: Whether to look at the use of a GPU, which is not to be timed meanwhile.

    Attributes:
        seconds: Of the last epoch.
        usage: Of a GPU in the last epoch; empty unless it was observed.
    """

    def __init__(self, device: torch.device, is_observed: bool = False) -> None:
        self.device = device
        self.meter = UsageMeter(device) if is_observed else None
        self.seconds = 0.0
        self.usage: dict[str, float | str] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        if self.meter is not None:
            self.meter.start()
        self.seconds = -clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        self.seconds += clock()
        if self.meter is not None:
            self.usage = self.meter.stop()


def _fit(model: pl.LightningModule, data: RandomData, folder: str, timer: EpochClock) -> float:
    """Seconds of an epoch with a trainer."""
    with redirect_stdout(sys.stderr):
        trainer = pl.Trainer(
            accelerator=timer.device.type,
            devices=1,
            max_epochs=1,
            limit_val_batches=0,
            log_every_n_steps=50,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=CSVLogger(folder),
            callbacks=[timer],
        )
        trainer.fit(model, data)
    return timer.seconds


def _drive(steps: ModelSteps, loader: DataLoader[dict[str, torch.Tensor]]) -> float:
    """Seconds of an epoch without."""
    start = clock()
    for batch in loader:
        steps.batch = {n: each.to(steps.device, non_blocking=True) for n, each in batch.items()}
        steps.step()
    return clock() - start


if __name__ == "__main__":
    main()
