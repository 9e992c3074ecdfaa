"""What options bring: a step of the full Morpho-MNIST model with each, against one without.

Prints one JSON line per option: a fused kernel for the optimiser, networks in bfloat16, images and
filters with their channels last, and encoder and decoder through ``torch.compile``, in single
precision and in bfloat16.

    python benchmarks/options.py --batch 256 --rounds 9
"""

from __future__ import annotations

import argparse

import torch
from figures import Figures, add_promise_option
from measuring import compare, make_model, random_batch, repeat
from torch import nn
from train_step import ModelSteps

from deepscm_pl.training import DeepSCM

_OPTIONS = ("fused", "bf16", "channels_last", "compiled")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement")
    parser.add_argument("--options", nargs="+", default=_OPTIONS, choices=_OPTIONS)
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    for option in arguments.options:
        for is_mixed in (False,) if option == "bf16" else (False, True):
            _measure(figures, arguments, option, is_mixed)
    figures.check()


def _measure(figures: Figures, arguments: argparse.Namespace, option: str, is_mixed: bool) -> None:
    torch.manual_seed(0)
    batch = random_batch(arguments.batch)
    sides = []
    for chosen in (option, ""):
        model = make_model("morphomnist/full.yaml")
        _prepare(model, chosen)
        steps = ModelSteps(model, batch, is_mixed or chosen == "bf16")
        if option == "fused":
            for group in steps.optimizer.param_groups:
                group["fused"] = chosen == "fused"
        sides.append(steps)
    with_it, without = sides
    found = compare(
        lambda: repeat(with_it.step, arguments.steps),
        lambda: repeat(without.step, arguments.steps),
        arguments.rounds,
    )
    images = arguments.batch * arguments.steps
    figures.report(
        f"{option}_{'bf16_mixed' if is_mixed else 'float32'}",
        speed_over_without=found.ratio,
        images_per_second=images / found.first,
        images_per_second_without=images / found.second,
    )


def _prepare(model: DeepSCM, option: str) -> None:
    networks: list[nn.Module] = [model.scm["image"].encoder, model.scm["image"].decoder]  # type: ignore[assignment]
    for network in networks:
        if option == "channels_last":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif option == "compiled":
            network.compile()


if __name__ == "__main__":
    main()
