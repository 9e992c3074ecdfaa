"""How long a training of the full Morpho-MNIST model takes until its bound is the paper's.

Trains ``experiments/morphomnist/full.yaml`` with its network, likelihood, optimiser, schedule and
seed, but without pictures and checkpoints, until ``validation/bound`` exceeds ``--bound`` after an
epoch. Prints one JSON line. Its seconds begin before the data are read, and end with the validation
in which the bound was exceeded, or with the last one.

The bound is in nats per image of grey levels 0 to 255, as the paper's figure is: they are compared
as they are. The paper's is a mean over test images of Morpho-MNIST, and is not meant for the digits
that serve as a trial without ``--root``. The learning rate has a schedule over ``--max_epochs``.

    python benchmarks/time_to_bound.py --root data/morphomnist --device cuda --precision bf16-mixed
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from contextlib import redirect_stdout
from typing import Any

import pytorch_lightning as pl
from devices import add_device_option, clock, device_name
from measuring import build_model, read_experiment
from pytorch_lightning.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason

from deepscm_pl.data import CausalDataModule, DigitsDataModule, MorphoMNISTDataModule

_EXPERIMENT = "morphomnist/full.yaml"
_QUANTITY = "validation/bound"


def main() -> None:
    """Runs the benchmark."""
    experiment = read_experiment(_EXPERIMENT)
    arguments = _parse_arguments(experiment)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with redirect_stdout(sys.stderr):
        pl.seed_everything(experiment["seed_everything"])
        try:
            found = _train(arguments, experiment["data"]["init_args"]["batch_size"])
        except (OSError, ValueError) as error:
            sys.exit(str(error))
    shown = {"bound": arguments.bound, "device": device_name(arguments.device)}
    print(json.dumps({"benchmark": "time_to_bound", **found, **shown}), flush=True)


def _parse_arguments(experiment: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bound",
        type=float,
        default=experiment["association"]["reference"]["bound"],
        help="of the joint, in nats per image (default: the paper's, %(default)s)",
    )
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--max_epochs", type=int, default=experiment["trainer"]["max_epochs"])
    parser.add_argument(
        "--root",
        help="a folder made by `deepscm data morphomnist` (default: the digits of scikit-learn)",
    )
    add_device_option(parser)
    arguments = parser.parse_args()
    if arguments.max_epochs < 1:
        parser.error(
            "argument --max_epochs: expected at least 1, after which there is a bound to look at, "
            f"but got {arguments.max_epochs}; leave it out"
        )
    return arguments


def _train(arguments: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """The seconds, whether the bound was reached, the last bound and the number of epochs."""
    stop = StopAtBound(arguments.bound, arguments.max_epochs)
    trainer = pl.Trainer(
        accelerator=arguments.device.type,
        devices=1,
        precision=arguments.precision,
        max_epochs=arguments.max_epochs,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        callbacks=[stop],
    )
    start = clock()
    trainer.fit(build_model(_EXPERIMENT), _make_data(arguments.root, batch_size))
    return {
        "seconds": round(stop.time - start, 3),
        "reached": stop.is_reached,
        "last_bound": round(float(trainer.callback_metrics[_QUANTITY]), 2),
        "epochs": trainer.current_epoch,
    }


def _make_data(root: str | None, batch_size: int) -> CausalDataModule:
    if root is None:
        return DigitsDataModule(batch_size)
    return MorphoMNISTDataModule(root, batch_size)


class StopAtBound(EarlyStopping):
    """Ends a training after the validation that exceeds a bound, and never before for another.

    Args:
        bound: What is to be exceeded.
        max_epochs: How many validations there will be.

    Attributes:
        time: By the clock, at the end of the last validation.
    """

    def __init__(self, bound: float, max_epochs: int) -> None:
        super().__init__(
            _QUANTITY,
            mode="max",
            stopping_threshold=bound,
            patience=max_epochs,
            check_on_train_epoch_end=False,
        )
        self.time = 0.0

    @property
    def is_reached(self) -> bool:
        """Whether the bound was exceeded."""
        return self.stopping_reason == EarlyStoppingReason.STOPPING_THRESHOLD

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, and take the time."""
        super().on_validation_end(trainer, pl_module)
        self.time = clock()


if __name__ == "__main__":
    main()
