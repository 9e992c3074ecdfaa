"""How the cost of a training step grows, and what a second process brings.

Prints one JSON line per figure. For batch, particles, size of the latent, pixels of the image (all
of the full Morpho-MNIST model) and number of variables (a chain of affine flows): time and peak
memory of a step at each size, and the exponents of size that fit them best. Then an epoch on one
process against the same images on two (ddp with gloo, on the CPU).

    python benchmarks/scaling.py --steps 5
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import warnings
from contextlib import redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from epoch import EpochClock
from measuring import (
    RandomData,
    compare,
    exponent,
    make_model,
    random_batch,
    report,
    seconds,
)
from torch import Tensor
from train_step import ModelSteps

from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.training import DeepSCM

_AXES = ("batch", "particles", "latent", "pixels", "variables", "processes")


class Cost(NamedTuple):
    """Of a training step.

    Attributes:
        seconds: Median time.
        mebibytes: Most memory in use, beyond what was in use before the model was made.
    """

    seconds: float
    mebibytes: float


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", default=_AXES, choices=_AXES, help="what grows")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--steps", type=int, default=5, help="steps at each size")
    parser.add_argument("--doublings", type=int, default=4, help="sizes of what grows")
    parser.add_argument("--images", type=int, default=1024, help="images of an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of epochs")
    arguments = parser.parse_args()
    for axis in arguments.axes:
        if axis == "processes":
            _measure_processes(arguments)
        else:
            _measure_axis(axis, arguments)


def _measure_axis(axis: str, arguments: argparse.Namespace) -> None:
    start = {"batch": arguments.batch // 2, "particles": 1, "latent": 16, "variables": 2}
    numbers = [start.get(axis, 14) * 2**step for step in range(arguments.doublings)]
    if axis == "pixels":
        numbers = [14 * (step + 1) for step in range(arguments.doublings)]
    costs = [_cost_in_process(axis, each, arguments) for each in numbers]
    sizes = [float(each**2 if axis == "pixels" else each) for each in numbers]
    for size, cost in zip(sizes, costs, strict=True):
        report(
            f"step_{axis}_{size:g}",
            milliseconds=1000 * cost.seconds,
            mebibytes=cost.mebibytes,
            times_the_smallest=cost.seconds / costs[0].seconds,
        )
    report(
        f"scaling_{axis}",
        exponent_of_time=exponent(sizes, [cost.seconds for cost in costs]),
        exponent_of_memory=exponent(sizes, [max(cost.mebibytes, 1e-3) for cost in costs]),
    )


def _cost_in_process(axis: str, number: int, arguments: argparse.Namespace) -> Cost:
    """The cost, found in a process of its own, whose memory is that of this size only."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_cost, args=(sender, axis, number, arguments))
    process.start()
    sender.close()
    found: Cost = receiver.recv()
    process.join()
    return found


def _send_cost(sender: Connection, axis: str, number: int, arguments: argparse.Namespace) -> None:
    before = _peak()
    steps = _make_steps(axis, number, arguments.batch)
    steps.step()
    times = [seconds(steps.step) for _ in range(arguments.steps)]
    sender.send(Cost(median(times), _peak() - before))


def _make_steps(axis: str, number: int, batch: int) -> ModelSteps:
    if axis == "variables":
        return _steps_of_chain(number, batch)
    shape = (1, number, number) if axis == "pixels" else (1, 28, 28)
    latent = number if axis == "latent" else 16
    particles = number if axis == "particles" else 1
    model = make_model("morphomnist/full.yaml", particles, shape=list(shape), latent=latent)
    return ModelSteps(model, random_batch(number if axis == "batch" else batch, shape))


def _steps_of_chain(number: int, batch: int) -> ModelSteps:
    """Steps of a model in which every variable has the one before as its parent."""
    names = [f"x{position}" for position in range(number)]
    model = DeepSCM(" -> ".join(names), dict.fromkeys(names, AffineFlow))
    columns: dict[str, Tensor] = {name: torch.randn(batch, 1) for name in names}
    model.scm.fit(columns)
    return ModelSteps(model, columns)


def _peak() -> float:
    """Most memory that this process has had in use, in MiB."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def _measure_processes(arguments: argparse.Namespace) -> None:
    """Epochs of the same steps, on one process and shared by two."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    one, two = (partial(_epoch, processes, arguments) for processes in (1, 2))
    found = compare(two, one, arguments.rounds, warmup=0)
    report(
        "two_processes",
        speed_over_one_process=found.ratio,
        images_per_second=arguments.images / found.first,
        images_per_second_by_one_process=arguments.images / found.second,
    )


def _epoch(processes: int, arguments: argparse.Namespace) -> float:
    """Seconds of an epoch, as the first process sees it."""
    torch.manual_seed(0)
    model = make_model("morphomnist/full.yaml")
    data = RandomData(arguments.images, arguments.batch // processes)
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        clock = WritingClock(Path(folder) / "seconds.json")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=processes,
            strategy="ddp_fork" if processes > 1 else "auto",
            max_epochs=1,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            callbacks=[clock],
        )
        trainer.fit(model, data)
        found: float = json.loads(clock.path.read_text())
    return found


class WritingClock(EpochClock):
    """A clock whose time is read in another process.

    Args:
        path: A file that the first process writes to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, and write."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(self.seconds))


if __name__ == "__main__":
    main()
