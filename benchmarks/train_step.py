"""A training step of the full Morpho-MNIST model, against a plain loop written by hand.

Prints one JSON line per figure: how many times as fast as the plain loop ``DeepSCM`` trains the
same network with the same loss and optimiser. Both are checked to find the same loss first. On a
GPU also the most memory that ``DeepSCM`` takes beside the plain model, and the utilisation.

    python benchmarks/train_step.py --batch 256 --rounds 15 --device cuda
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import torch
from devices import add_device_option, usage
from figures import Figures, add_promise_option
from measuring import compare, make_model, random_batch, repeat
from plain import PlainModel, PlainVAE
from pytorch_lightning.trainer.states import RunningStage, TrainerFn, TrainerState
from torch import Tensor, nn

from deepscm_pl.training import DeepSCM
from deepscm_pl.training.objectives import TrainingProgress


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement")
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--precisions", nargs="+", default=["32", "bf16"], choices=["32", "bf16"])
    add_device_option(parser)
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    for particles in arguments.particles:
        for precision in arguments.precisions:
            _measure(figures, arguments, particles, precision == "bf16")
    figures.check()


def _measure(
    figures: Figures, arguments: argparse.Namespace, particles: int, is_mixed: bool
) -> None:
    torch.manual_seed(0)
    model = make_model("morphomnist/full.yaml", particles).to(arguments.device)
    plain = PlainModel(model, PlainVAE).to(arguments.device)
    batch = {
        name: each.to(arguments.device) for name, each in random_batch(arguments.batch).items()
    }
    figure = f"train_step_{particles}_particles_{'bf16_mixed' if is_mixed else 'float32'}"
    ours = ModelSteps(model, batch, is_mixed)
    theirs = PlainSteps(plain, batch, particles, is_mixed)
    report_steps(figures, figure, ours, theirs, arguments)


def report_steps(
    figures: Figures,
    figure: str,
    ours: ModelSteps,
    theirs: PlainSteps,
    arguments: argparse.Namespace,
    **numbers: float,
) -> None:
    """Compares steps of ``DeepSCM`` and of a plain loop, and prints a line.

    Args:
        figures: Where to print.
        figure: The name of the line.
        ours: Steps of ``DeepSCM``.
        theirs: Steps of a plain loop with the same weights.
        arguments: With the numbers of ``rounds`` and of ``steps`` in each.
        numbers: More numbers of the line.

    Raises:
        RuntimeError: If their losses differ.
    """
    difference = _difference(ours, theirs)
    found = compare(
        lambda: repeat(ours.step, arguments.steps),
        lambda: repeat(theirs.step, arguments.steps),
        arguments.rounds,
    )
    images = len(next(iter(ours.batch.values()))) * arguments.steps
    figures.report(
        figure,
        speed_over_plain=found.ratio,
        images_per_second=images / found.first,
        plain_images_per_second=images / found.second,
        relative_difference_of_losses=difference,
        **numbers,
        **usage(lambda: repeat(ours.step, arguments.steps), ours.device),
    )


def _difference(ours: ModelSteps, theirs: PlainSteps) -> float:
    """Of the losses of both with the same weights and noise, relative.

    Raises:
        RuntimeError: If it is more than 1e-4.
    """
    model = ours.model
    torch.manual_seed(7)
    first = -model.objective(model.scm, ours.batch, _START).objective.item()
    torch.manual_seed(7)
    second = theirs.model.loss(theirs.batch, theirs.particles).item()
    difference = abs(first - second) / abs(first)
    if not difference < 1e-4:
        raise RuntimeError(f"expected the same losses, but got {first} and {second}.")
    return difference


_START = TrainingProgress(0, 0)


class ModelSteps:
    """Steps of ``DeepSCM`` as a trainer does them, without the trainer and without logging.

    Args:
        model: The model, on the device to compute on.
        batch: The same for every step, on that device.
        is_mixed: Whether networks compute in bfloat16.
    """

    def __init__(self, model: DeepSCM, batch: dict[str, Tensor], is_mixed: bool = False) -> None:
        self.model, self.batch, self.is_mixed = model, batch, is_mixed
        self.device = next(model.parameters()).device
        self.trainer = StandInTrainer()
        model.trainer = self.trainer  # type: ignore[assignment]
        self.callbacks: Any = model.configure_callbacks()
        self.optimizer = _make_optimizer(
            [list(model.scm[name].parameters()) for name in model.scm.graph.nodes]
        )
        for name in ("log", "log_dict"):
            setattr(model, name, lambda *_, **__: None)

    def step(self) -> None:
        """One of them."""
        for callback in self.callbacks:
            callback.on_train_batch_start(self.trainer, self.model, self.batch, 1)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
            loss = self.model.training_step(self.batch, 1)
        for callback in self.callbacks:
            callback.on_before_backward(self.trainer, self.model, loss)
        loss.backward()
        for callback in self.callbacks:
            callback.on_before_optimizer_step(self.trainer, self.model, self.optimizer)
        self.optimizer.step()


class StandInTrainer:
    """As much of a trainer as a training step asks for."""

    def __init__(self) -> None:
        self.global_step = self.current_epoch = self.global_rank = 0
        self.should_stop = self.predicting = False
        self.state = TrainerState(fn=TrainerFn.FITTING, stage=RunningStage.TRAINING)
        self.callbacks: list[object] = []
        self.precision_plugin = SimpleNamespace(scaler=None)
        progress = SimpleNamespace(is_last_batch=False)
        steps = SimpleNamespace(batch_progress=progress, val_loop=SimpleNamespace())
        self.fit_loop = SimpleNamespace(epoch_loop=steps)
        self.log_every_n_steps = 50


class PlainSteps:
    """Steps of a loop as one would write it.

    Args:
        model: The network with its loss, on the device to compute on.
        batch: The same for every step, on that device.
        particles: Draws of the latent.
        is_mixed: Whether networks compute in bfloat16.
    """

    def __init__(
        self, model: PlainModel, batch: dict[str, Tensor], particles: int, is_mixed: bool
    ) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        self.particles, self.is_mixed = particles, is_mixed
        self.optimizer = _make_optimizer(model.groups())

    def step(self) -> None:
        """One of them."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
            loss = self.model.loss(self.batch, self.particles)
        loss.backward()
        self.optimizer.step()


def _make_optimizer(groups: list[list[nn.Parameter]]) -> torch.optim.Optimizer:
    """Adam with the learning rates of the experiment: that of the last variable is the image's."""
    return torch.optim.Adam(
        [
            *({"params": group, "lr": 1e-2} for group in groups[:-1]),
            {"params": groups[-1], "lr": 2e-3},
        ],
        fused=True,
    )


if __name__ == "__main__":
    main()
