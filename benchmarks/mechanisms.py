"""Every mechanism: its training step, its counterfactuals, its memory and its solver.

Prints one JSON line per figure, with the number of parameters of the mechanism. The networks of
images are those of the experiments, with weights as they are made; the images are random.

- memory: time and peak memory of a training step with images of each size;
- steps: how many times as fast as a plain loop ``DeepSCM`` trains the same networks with the same
  loss and optimiser, both of which are checked to find the same loss first; of attributes, rows per
  second;
- counterfactuals: abductions and predictions per second, of images and of attributes;
- solver: of flow matching, the time of a counterfactual and its error in grey levels by the number
  of steps, against many steps and, of the null intervention, against the image. Images are drawn
  from the model. Without a checkpoint, its velocity is random.

    python benchmarks/mechanisms.py --batch 64 --rounds 5
    python benchmarks/mechanisms.py --parts solver --ckpt_path runs/morphomnist/flow_matching
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from devices import add_device_option
from figures import Figures, add_promise_option
from measuring import make_model, median_seconds, random_batch
from plain import (
    PlainAdversary,
    PlainExposureVAE,
    PlainFlowMatching,
    PlainImage,
    PlainImageFlow,
    PlainLadderVAE,
    PlainModel,
)
from scaling import cost_in_process, steps_on
from torch import Tensor, nn
from train_step import ModelSteps, PlainSteps, report_steps

from deepscm_pl.mechanisms import (
    AffineFlow,
    AutoregressiveFlow,
    CouplingFlow,
    FlowMatching,
    Mechanism,
    SplineFlow,
)
from deepscm_pl.nn.modulated import Modulation
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import DeepSCM
from deepscm_pl.training.objectives import make_objective

_PARTS = ("memory", "steps", "counterfactuals", "solver")
_ENTRIES = 4  # of vectors
_MANY = 64  # steps of the solver


class Image(NamedTuple):
    """An experiment with a mechanism of images, and the same in plain PyTorch."""

    experiment: str
    plain: Callable[[Any], PlainImage]


_IMAGES = {
    "vae": Image("morphomnist/exposure.yaml", PlainExposureVAE),
    "hierarchical": Image("morphomnist/hierarchical.yaml", PlainLadderVAE),
    "flow_matching": Image("morphomnist/flow_matching.yaml", PlainFlowMatching),
    "implicit": Image("morphomnist/implicit.yaml", PlainAdversary),
    "image_flow": Image("morphomnist/full_flow.yaml", PlainImageFlow),
}
_ATTRIBUTES: dict[str, tuple[Any, int]] = {
    "affine": (AffineFlow, 1),
    "spline": (SplineFlow, 1),
    "autoregressive": (partial(AutoregressiveFlow, size=_ENTRIES), _ENTRIES),
    "coupling": (partial(CouplingFlow, size=_ENTRIES), _ENTRIES),
}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*_IMAGES, *_ATTRIBUTES]
    parser.add_argument("--mechanisms", nargs="+", default=names, choices=names)
    parser.add_argument("--parts", nargs="+", default=_PARTS, choices=_PARTS)
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--rows", type=int, default=1024, help="rows of attributes")
    parser.add_argument("--images", type=int, default=8, help="images asked about")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=2, help="training steps per measurement")
    parser.add_argument(
        "--pixels",
        type=int,
        nargs="+",
        default=[28, 56],
        help="heights of images; all parts but memory use the first one (default: 28 56)",
    )
    parser.add_argument(
        "--solver-steps", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N"
    )
    parser.add_argument("--ckpt_path", help="a trained model with a FlowMatching image")
    add_device_option(parser)
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    # Memory first: what this process has freed would be used again by those that it makes.
    for part in (each for each in _PARTS if each in arguments.parts):
        if part == "solver":
            measure_solver(figures, arguments)
        for name in arguments.mechanisms if part != "solver" else ():
            _measure(part, figures, name, arguments)
    figures.check()


def _measure(part: str, figures: Figures, name: str, arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    if part == "memory" and name in _IMAGES:
        _measure_memory(figures, name, arguments)
    elif part == "steps" and name in _IMAGES:
        _measure_image_steps(figures, name, arguments)
    elif part == "steps":
        _measure_attribute_steps(figures, name, arguments)
    elif part == "counterfactuals":
        _measure_counterfactuals(figures, name, arguments)


def _measure_memory(figures: Figures, name: str, arguments: argparse.Namespace) -> None:
    for pixels in arguments.pixels:
        make = partial(_image_steps, name, pixels, arguments.batch, arguments.device)
        cost = cost_in_process(make, arguments.steps, arguments.device)
        figures.report(
            f"memory_{name}_{pixels}_pixels",
            mebibytes=cost.mebibytes,
            milliseconds=1000 * cost.seconds,
            parameters=_parameters(_image_model(name, pixels).scm["image"]),
            **cost.usage,
        )


def _image_steps(name: str, pixels: int, batch: int, device: torch.device) -> ModelSteps:
    shape = (1, pixels, pixels)
    return steps_on(device, _image_model(name, pixels), random_batch(batch, shape))


def _image_model(name: str, pixels: int) -> DeepSCM:
    """The model of the experiment, trained by its evidence lower bound or its loss."""
    model = make_model(_IMAGES[name].experiment, shape=[1, pixels, pixels])
    model.objective = make_objective(None, 1)
    return model


def _measure_image_steps(figures: Figures, name: str, arguments: argparse.Namespace) -> None:
    ours = _image_steps(name, arguments.pixels[0], arguments.batch, arguments.device)
    plain = PlainModel(ours.model, _IMAGES[name].plain).to(arguments.device)
    theirs = PlainSteps(plain, ours.batch, 1, is_mixed=False)
    parameters = _parameters(ours.model.scm["image"])
    report_steps(figures, f"step_{name}", ours, theirs, arguments, parameters=parameters)


def _measure_attribute_steps(figures: Figures, name: str, arguments: argparse.Namespace) -> None:
    model, rows = _attribute_model(name, arguments.rows)
    steps = steps_on(arguments.device, model, rows)
    taken = median_seconds(steps.step, arguments.rounds)
    figures.report(
        f"step_{name}",
        milliseconds=1000 * taken,
        rows_per_second=arguments.rows / taken,
        parameters=_parameters(model.scm["effect"]),
    )


def _attribute_model(name: str, rows: int) -> tuple[DeepSCM, dict[str, Tensor]]:
    """A model of a cause and its effect, and fitted random values."""
    mechanism, size = _ATTRIBUTES[name]
    model = DeepSCM("cause -> effect", {"cause": AffineFlow, "effect": mechanism})
    cause = torch.randn(rows, 1)
    values = {"cause": cause, "effect": cause + torch.randn(rows, size)}
    model.scm.fit(values)
    return model, values


@torch.no_grad()
def _measure_counterfactuals(figures: Figures, name: str, arguments: argparse.Namespace) -> None:
    """Of one image or row each, by one draw of the noise."""
    if name in _IMAGES:
        pixels = arguments.pixels[0]
        model = _image_model(name, pixels)
        rows, cause, effect = (
            random_batch(arguments.images, (1, pixels, pixels)),
            "thickness",
            "image",
        )
    else:
        model, rows = _attribute_model(name, arguments.rows)
        cause, effect = "cause", "effect"
    scm = model.scm.eval().to(arguments.device)
    factual = {each: rows[each].to(arguments.device) for each in scm.graph.nodes}
    do = {cause: factual[cause].flip(0)}
    taken = median_seconds(lambda: scm.counterfactual(factual, do), arguments.rounds)
    count = len(factual[cause])
    figures.report(
        f"counterfactual_{name}",
        milliseconds_each=1000 * taken / count,
        counterfactuals_per_second=count / taken,
        parameters=_parameters(scm[effect]),
    )


def _parameters(mechanism: Mechanism) -> int:
    return sum(each.numel() for each in mechanism.parameters())


@torch.no_grad()
def measure_solver(figures: Figures, arguments: argparse.Namespace) -> None:
    """Prints the cost and the errors of counterfactual images by the steps of the solver."""
    torch.manual_seed(0)
    scm = _flow_model(arguments).eval().to(arguments.device)
    name = _flow_variable(scm)
    mechanism: Any = scm[name]
    many = replace(mechanism.solver, steps=_MANY)
    mechanism.solver = many
    factual = scm.sample(arguments.images)
    parents = {each: factual[each] for each in scm.graph.parents[name]}
    question = Question(
        mechanism,
        mechanism.dequantise(factual[name]),
        parents,
        {each: value.flip(0) for each, value in parents.items()},
    )
    best = question.counterfactual()
    change = (best - question.image).abs().mean().item()
    for steps in arguments.solver_steps:
        mechanism.solver = replace(many, steps=steps)
        figures.report(
            f"solver_{steps}_steps",
            **_of_solver(question, best, arguments.rounds),
            change_in_grey_levels=change,
            parameters=_parameters(mechanism),
        )


class Question(NamedTuple):
    """Images in continuous grey levels, their parents, and others."""

    mechanism: FlowMatching
    image: Tensor
    parents: dict[str, Tensor]
    changed: dict[str, Tensor]

    def counterfactual(self) -> Tensor:
        """The images under the other parents."""
        return self.mechanism(self.mechanism.abduct(self.image, self.parents), self.changed)

    def null(self) -> Tensor:
        """The images under their own parents."""
        return self.mechanism(self.mechanism.abduct(self.image, self.parents), self.parents)


def _of_solver(question: Question, best: Tensor, rounds: int) -> dict[str, float]:
    """The numbers of a line; only that it does not converge where it does not."""
    calls: list[int] = []
    network = question.mechanism.network
    handle = network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    try:
        answer, null = question.counterfactual(), question.null()
    except ValueError as error:
        if not str(error).startswith("solver:"):
            raise
        return {"converges": 0}
    finally:
        handle.remove()
    count = len(question.image)
    taken = median_seconds(question.counterfactual, rounds, warmup=0)
    return {
        "converges": 1,
        "milliseconds_each": 1000 * taken / count,
        "counterfactuals_per_second": count / taken,
        "network_calls": sum(calls) / 2 / count,
        "mean_error_in_grey_levels": (answer - best).abs().mean().item(),
        "largest_error_in_grey_levels": (answer - best).abs().max().item(),
        "largest_null_error_in_grey_levels": (null - question.image).abs().max().item(),
    }


def _flow_model(arguments: argparse.Namespace) -> StructuralCausalModel:
    """The model of the checkpoint, or one with a random velocity."""
    if arguments.ckpt_path:
        from deepscm_pl.checkpoints import load

        return load(arguments.ckpt_path).scm
    scm = _image_model("flow_matching", arguments.pixels[0]).scm
    # Not the weights as they are made, with which the velocity is small and ignores the parents.
    for each in scm["image"].modules():
        if isinstance(each, nn.Conv2d):
            each.weight.mul_(2)
        elif isinstance(each, Modulation) and each.affine is not None:
            each.affine.weight.mul_(8)
    return scm


def _flow_variable(scm: StructuralCausalModel) -> str:
    """The name of the image."""
    for name in scm.graph.nodes:
        if isinstance(scm[name], FlowMatching):
            return name
    raise SystemExit(
        f"ckpt_path: expected a model with a FlowMatching image, but got mechanisms "
        f"{', '.join(type(scm[name]).__name__ for name in scm.graph.nodes)}; choose another one."
    )


if __name__ == "__main__":
    main()
