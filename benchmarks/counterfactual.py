"""Counterfactuals under several interventions at once, against one call for each.

Prints one JSON line per figure, for the full model and the best model of Morpho-MNIST, with weights
as they are made. Also checks that the encoder runs once for all interventions.

    python benchmarks/counterfactual.py --images 8 --particles 32 --interventions 6
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from figures import Figures, add_promise_option
from measuring import compare, make_model, random_batch
from torch import Tensor

from deepscm_pl.scm import StructuralCausalModel


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8, help="images asked about")
    parser.add_argument("--particles", type=int, default=32, help="draws of the noise")
    parser.add_argument("--interventions", type=int, default=6, help="how many at once")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    for name in ("full", "best"):
        torch.manual_seed(0)
        scm = make_model(f"morphomnist/{name}.yaml").scm.eval()
        with torch.no_grad():
            _measure(figures, name, scm, arguments)
    figures.check()


def _measure(
    figures: Figures, name: str, scm: StructuralCausalModel, arguments: argparse.Namespace
) -> None:
    factual = random_batch(arguments.images)
    questions = [{"thickness": 1.5 + number / 2} for number in range(arguments.interventions)]
    particles = arguments.particles
    stacked = {"thickness": torch.stack([_value(each) for each in questions])}

    def at_once() -> object:
        return scm.counterfactual(factual, stacked, particles)

    def in_sequence() -> object:
        return scm.counterfactual(factual, questions, particles)

    def one_by_one() -> object:
        return [scm.counterfactual(factual, each, particles) for each in questions]

    runs = _encoder_rows(scm, in_sequence) / arguments.images
    if runs != 1 or _encoder_rows(scm, at_once) != arguments.images:
        raise RuntimeError(f"expected the encoder to run once per image, but it ran {runs} times.")
    count = arguments.images * particles * len(questions)
    for way, operation in (("at_once", at_once), ("in_sequence", in_sequence)):
        found = compare(operation, one_by_one, arguments.rounds)
        figures.report(
            f"counterfactual_{name}_{way}",
            speed_over_single_calls=found.ratio,
            counterfactuals_per_second=count / found.first,
            counterfactuals_per_second_by_single_calls=count / found.second,
            encoder_runs_per_image=runs,
        )


def _value(question: dict[str, float]) -> Tensor:
    """A value with a dimension for the observations."""
    return torch.tensor([[question["thickness"]]])


def _encoder_rows(scm: StructuralCausalModel, operation: Callable[[], object]) -> int:
    """How many images the encoder sees in ``operation``."""
    rows: list[int] = []
    encoder = scm["image"].get_submodule("encoder")
    handle = encoder.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    operation()
    handle.remove()
    return sum(rows)


if __name__ == "__main__":
    main()
