"""What the benchmarks share: models of the experiments, random images, and alternating timers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from devices import clock
from torch import Tensor

from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.configuration import restore, with_classes
from deepscm_pl.data import CausalDataModule
from deepscm_pl.data.base import SourceSplits
from deepscm_pl.training import DeepSCM

__all__ = [
    "Comparison",
    "RandomData",
    "build_model",
    "compare",
    "exponent",
    "make_model",
    "median_seconds",
    "random_batch",
    "read_experiment",
    "repeat",
    "seconds",
]

_EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@dataclass(frozen=True)
class Comparison:
    """Two operations, timed in turns.

    Attributes:
        ratio: Median over rounds of the time of the second over that of the first: how many times
            as fast the first one is.
        first: Median time of the first, in seconds.
        second: Median time of the second, in seconds.
    """

    ratio: float
    first: float
    second: float


def compare(
    first: Callable[[], object], second: Callable[[], object], rounds: int, warmup: int = 1
) -> Comparison:
    """Times two operations in turns, in changing order, after ``warmup`` runs of both.

    An operation that returns a float has taken its own time. What an operation leaves a GPU to do
    is part of its time.
    """
    for _ in range(warmup):
        first()
        second()
    pairs = []
    for number in range(rounds):
        order = (first, second) if number % 2 == 0 else (second, first)
        times = {operation: seconds(operation) for operation in order}
        pairs.append((times[first], times[second]))
    ratio = median(after / before for before, after in pairs)
    return Comparison(ratio, median(a for a, _ in pairs), median(b for _, b in pairs))


def median_seconds(operation: Callable[[], object], rounds: int, warmup: int = 1) -> float:
    """Median time of an operation that has nothing to be compared with, after ``warmup`` runs."""
    repeat(operation, warmup)
    return median(seconds(operation) for _ in range(rounds))


def seconds(operation: Callable[[], object]) -> float:
    """Time that ``operation`` takes, or says that it has taken."""
    start = clock()
    found = operation()
    return found if isinstance(found, float) else clock() - start


def repeat(operation: Callable[[], object], count: int) -> None:
    """Runs ``operation`` so many times, for what is too short to be timed once."""
    for _ in range(count):
        operation()


def read_experiment(experiment: str) -> dict[str, Any]:
    """The contents of a file in ``experiments``, such as ``morphomnist/full.yaml``."""
    return Configuration.read([str(_EXPERIMENTS / experiment)]).settings


def make_model(experiment: str, num_particles: int = 1, **image: Any) -> DeepSCM:
    """As :func:`build_model`, fitted to random images."""
    made = build_model(experiment, num_particles, **image)
    made.scm.fit(random_batch(512, tuple(made.scm["image"].domain.shape), seed=1))
    return made


def build_model(experiment: str, num_particles: int = 1, **image: Any) -> DeepSCM:
    """The model of a file in ``experiments``, not fitted to any data.

    Args:
        experiment: The file, such as ``morphomnist/full.yaml``.
        num_particles: Draws of the latents in training.
        image: Arguments of the mechanism of the image, instead of those in the file.
    """
    model = read_experiment(experiment)["model"]
    model["mechanisms"]["image"]["init_args"].update(image)
    for name in ("mechanisms", "optimizer", "scheduler", "objective"):
        if name in model:
            model[name] = restore(with_classes(model[name]))
    return DeepSCM(**{**model, "num_particles": num_particles})


def random_batch(
    size: int, shape: tuple[int, ...] = (1, 28, 28), seed: int = 0
) -> dict[str, Tensor]:
    """Thicknesses, intensities, classes and noisy blobs, two thirds of them black as digits are."""
    generator = torch.Generator().manual_seed(seed)
    thickness = 1 + 5 * torch.rand(size, 1, generator=generator)
    intensity = 65 + 189 * torch.rand(size, 1, generator=generator)
    share = (3 * torch.rand(size, *shape, generator=generator) - 2).clamp(min=0)
    image = (share * intensity.view(-1, *[1] * len(shape))).round()
    digit = torch.randint(10, (size, 1), generator=generator).float()
    return {"thickness": thickness, "intensity": intensity, "digit": digit, "image": image}


class RandomData(CausalDataModule):
    """Random images, held in memory.

    Args:
        size: Training images.
        batch_size: Images per batch.
    """

    def __init__(self, size: int, batch_size: int = 256) -> None:
        super().__init__(batch_size=batch_size, validation_size=1)
        self.size = size

    def load(self) -> SourceSplits:
        """Random images of both splits."""
        train = random_batch(self.size + 1)
        train["image"] = train["image"].byte()
        return SourceSplits(train=train, test={name: each[:1] for name, each in train.items()})


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The slope of log cost over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return products / sum((a - x_mean) ** 2 for a in x)
