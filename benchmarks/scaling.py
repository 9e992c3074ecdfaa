"""How the cost of a training step grows, and what more processes bring.

Prints one JSON line per figure. For batch, particles, size of the latent, pixels of the image (all
of the full Morpho-MNIST model) and number of variables (a chain of affine flows): time and peak
memory of a step at each size, and the exponents of size that fit them best. Then an epoch on one
process against the same images on several (ddp: with gloo on the CPU; with nccl on GPUs, one for
each process).

    python benchmarks/scaling.py --steps 5
    python benchmarks/scaling.py --axes processes --device cuda --processes 1 2 4
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from devices import add_device_option, usage
from epoch import EpochClock
from figures import Figures, add_promise_option
from measuring import (
    RandomData,
    compare,
    exponent,
    make_model,
    median_seconds,
    random_batch,
    seconds,
)
from torch import Tensor
from train_step import ModelSteps

from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.training import DeepSCM

_AXES = ("batch", "particles", "latent", "pixels", "variables", "processes")
_PROCESSES = (1, 2)


class Cost(NamedTuple):
    """Of a training step.

    Attributes:
        seconds: Median time.
        mebibytes: Most memory in use, beyond what was in use before the model was made; on a GPU
            that of its tensors.
        usage: Of a GPU.
    """

    seconds: float
    mebibytes: float
    usage: dict[str, float | str]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", default=_AXES, choices=_AXES, help="what grows")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--steps", type=int, default=5, help="steps at each size")
    parser.add_argument("--doublings", type=int, default=4, help="sizes of what grows")
    parser.add_argument("--images", type=int, default=1024, help="images of an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of epochs")
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        metavar="N",
        help="how many share an epoch; all are compared with the fewest (default: 1 2, or 1 where "
        "there is one GPU)",
    )
    add_device_option(parser)
    add_promise_option(parser)
    arguments = parser.parse_args()
    _check_processes(parser, arguments)
    figures = Figures(arguments.at_least)
    for axis in arguments.axes:
        if axis == "processes":
            _measure_processes(figures, arguments)
        else:
            _measure_axis(figures, axis, arguments)
    figures.check()


def _check_processes(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Puts the numbers of processes in order, and ends the program where one cannot be had."""
    most, reason = arguments.batch, "an image of the batch for each"
    if arguments.device.type == "cuda" and torch.cuda.device_count() < most:
        most, reason = torch.cuda.device_count(), "a GPU for each"
    wanted = arguments.processes or [each for each in _PROCESSES if each <= most]
    for number in wanted:
        if not 1 <= number <= most:
            parser.error(
                f"argument --processes: expected numbers from 1 to {most}, {reason}, but got "
                f"{number}; leave it out"
            )
    arguments.processes = sorted(set(wanted))


def _measure_axis(figures: Figures, axis: str, arguments: argparse.Namespace) -> None:
    start = {"batch": arguments.batch // 2, "particles": 1, "latent": 16, "variables": 2}
    numbers = [start.get(axis, 14) * 2**step for step in range(arguments.doublings)]
    if axis == "pixels":
        numbers = [14 * (step + 1) for step in range(arguments.doublings)]
    device: torch.device = arguments.device
    made = [partial(_make_steps, axis, each, arguments.batch, device) for each in numbers]
    costs = [cost_in_process(each, arguments.steps, device) for each in made]
    sizes = [float(each**2 if axis == "pixels" else each) for each in numbers]
    for size, cost in zip(sizes, costs, strict=True):
        rows = size if axis == "batch" else arguments.batch
        kind = "rows" if axis == "variables" else "images"
        figures.report(
            f"step_{axis}_{size:g}",
            milliseconds=1000 * cost.seconds,
            mebibytes=cost.mebibytes,
            times_the_smallest=cost.seconds / costs[0].seconds,
            **{f"{kind}_per_second": rows / cost.seconds},
            **cost.usage,
        )
    figures.report(
        f"scaling_{axis}",
        exponent_of_time=exponent(sizes, [cost.seconds for cost in costs]),
        exponent_of_memory=exponent(sizes, [max(cost.mebibytes, 1e-3) for cost in costs]),
    )


def cost_in_process(make: Callable[[], ModelSteps], steps: int, device: torch.device) -> Cost:
    """The cost, found in a process of its own, whose memory is that of these steps only.

    Args:
        make: Makes the model and its steps; for a GPU a function that can be pickled.
        steps: How many are timed.
        device: Where they are computed.
    """
    context = multiprocessing.get_context(_start_method())
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_cost, args=(sender, make, steps, device))
    process.start()
    sender.close()
    found: Cost = receiver.recv()
    process.join()
    return found


def _start_method() -> Literal["spawn", "fork"]:
    """How processes are made: a process that has used a GPU cannot be forked."""
    return "spawn" if torch.cuda.is_available() else "fork"


def _send_cost(
    sender: Connection, make: Callable[[], ModelSteps], count: int, device: torch.device
) -> None:
    before = _peak(device)
    steps = make()
    steps.step()
    times = [seconds(steps.step) for _ in range(count)]
    sender.send(Cost(median(times), _peak(device) - before, usage(steps.step, device)))


def _make_steps(axis: str, number: int, batch: int, device: torch.device) -> ModelSteps:
    if axis == "variables":
        return _steps_of_chain(number, batch, device)
    shape = (1, number, number) if axis == "pixels" else (1, 28, 28)
    latent = number if axis == "latent" else 16
    particles = number if axis == "particles" else 1
    model = make_model("morphomnist/full.yaml", particles, shape=list(shape), latent=latent)
    return steps_on(device, model, random_batch(number if axis == "batch" else batch, shape))


def _steps_of_chain(number: int, batch: int, device: torch.device) -> ModelSteps:
    """Steps of a model in which every variable has the one before as its parent."""
    names = [f"x{position}" for position in range(number)]
    model = DeepSCM(" -> ".join(names), dict.fromkeys(names, AffineFlow))
    columns: dict[str, Tensor] = {name: torch.randn(batch, 1) for name in names}
    model.scm.fit(columns)
    return steps_on(device, model, columns)


def steps_on(device: torch.device, model: DeepSCM, batch: dict[str, Tensor]) -> ModelSteps:
    """Steps of a model with a batch, on a device."""
    return ModelSteps(model.to(device), {name: each.to(device) for name, each in batch.items()})


def _peak(device: torch.device) -> float:
    """Most memory that this process has had in use, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def _measure_processes(figures: Figures, arguments: argparse.Namespace) -> None:
    """Epochs of the same steps, by the fewest processes and shared by more."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    fewest, *others = arguments.processes
    by_fewest = partial(_seconds_of_epoch, fewest, arguments)
    if not others:
        figures.report(
            f"processes_{fewest}",
            images_per_second=arguments.images / median_seconds(by_fewest, arguments.rounds),
            **_usage_of_epoch(fewest, arguments),
        )
    for number in others:
        by_more = partial(_seconds_of_epoch, number, arguments)
        found = compare(by_more, by_fewest, arguments.rounds)
        figures.report(
            f"processes_{number}_over_{fewest}",
            speed_over_fewer=found.ratio,
            images_per_second=arguments.images / found.first,
            images_per_second_by_fewer=arguments.images / found.second,
            **_usage_of_epoch(number, arguments),
        )


def _usage_of_epoch(processes: int, arguments: argparse.Namespace) -> dict[str, float | str]:
    """Of the first GPU; nothing on the CPU."""
    if arguments.device.type != "cuda":
        return {}
    found: dict[str, float | str] = _epoch(processes, arguments, is_observed=True)["usage"]
    return found


def _seconds_of_epoch(processes: int, arguments: argparse.Namespace) -> float:
    found: float = _epoch(processes, arguments)["seconds"]
    return found


def _epoch(
    processes: int, arguments: argparse.Namespace, is_observed: bool = False
) -> dict[str, Any]:
    """Seconds of an epoch and the use of a GPU, as the first process sees them."""
    torch.manual_seed(0)
    device: torch.device = arguments.device
    model = make_model("morphomnist/full.yaml")
    data = RandomData(arguments.images, arguments.batch // processes)
    with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        timer = WritingClock(Path(folder) / "found.json", device, is_observed)
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=processes,
            # Lightning takes nccl for GPUs and gloo otherwise.
            strategy=f"ddp_{_start_method()}" if processes > 1 else "auto",
            max_epochs=1,
            limit_val_batches=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            callbacks=[timer],
        )
        trainer.fit(model, data)
        found: dict[str, Any] = json.loads(timer.path.read_text())
    return found


class WritingClock(EpochClock):
    """A clock whose time is read in another process.

    Args:
        path: A file that the first process writes to.
        device: Where epochs are trained.
        is_observed: Whether to look at the use of a GPU.
    """

    def __init__(self, path: Path, device: torch.device, is_observed: bool = False) -> None:
        super().__init__(device, is_observed)
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, and write."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self.path.write_text(json.dumps({"seconds": self.seconds, "usage": self.usage}))


if __name__ == "__main__":
    main()
