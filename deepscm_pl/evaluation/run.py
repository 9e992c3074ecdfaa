"""The whole evaluation of a model that answers questions of all three kinds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch

from deepscm_pl.checks import whole_number
from deepscm_pl.evaluation.counterfactuals import (
    Classifier,
    CounterfactualResult,
    Truth,
    evaluate_counterfactuals,
    true_counterfactuals,
)
from deepscm_pl.evaluation.cycles import evaluate_composition, evaluate_reversibility
from deepscm_pl.evaluation.densities import DensityResult, evaluate_densities
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.examples import Example, take_examples
from deepscm_pl.evaluation.noise import NoiseResult, evaluate_noise
from deepscm_pl.evaluation.questions import Question, check_possible, default_questions
from deepscm_pl.evaluation.subject import Subject
from deepscm_pl.model_memory import require_memory_for
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["DETAIL_ROWS", "Evaluation", "check_questions", "evaluate"]

DETAIL_ROWS = 500
"""Rows for the costlier quantities, unless another number is asked for."""

_EXAMPLES = 4


@dataclass
class Evaluation:
    """What was found of a model.

    Attributes:
        rows: Rows of the test split that it was evaluated on.
        detail_rows: The first of them, on which the costlier quantities were computed.
        particles: Draws of the noise of each detail row.
        world: Name of the known world; None without one.
        available: How many rows the test split has; None where that is not known.
        individuals: How many different ones the rows are of, where several may be of one.
        densities: Rung 2.
        counterfactuals: Rung 3, for each intervention.
        composition: After null interventions.
        noise: Abducted noise of each variable.
        examples: The first rows, to look at.
        left_out: What could not be evaluated, and why.
        seconds: How long each part took.
    """

    rows: int
    detail_rows: int
    particles: int
    world: str | None
    available: int | None = None
    individuals: int | None = None
    densities: list[DensityResult] = field(default_factory=list)
    counterfactuals: list[CounterfactualResult] = field(default_factory=list)
    composition: Mapping[str, Estimate] = field(default_factory=dict)
    noise: list[NoiseResult] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def check_questions(subject: Subject, texts: Sequence[str] | None) -> list[Question]:
    """The interventions to ask about; low and high values of every cause if none are given.

    Raises:
        ValueError: If an intervention cannot be read or asked of the model and the world.
    """
    if texts is None:
        questions = default_questions(subject)
    else:
        questions = [Question(text, subject.scm.variables) for text in texts]
    for question in questions:
        question.check(subject)
    for first, second in combinations(questions, 2):
        if first.do == second.do:
            raise ValueError(
                f"interventions: expected each once, but {first.text!r} and {second.text!r} are "
                "the same; leave one out."
            )
    return questions


def check_numbers(
    subject: Subject,
    num_particles: int,
    detail_rows: int | None,
    batch_size: int,
    density_size: int,
) -> None:
    """Raise unless the numbers of an evaluation, see :func:`evaluate`, are in their ranges.

    Raises:
        ValueError: Naming the number, what was expected and what came.
    """
    whole_number("num_particles", num_particles, least=1)
    whole_number("batch_size", batch_size, least=1)
    whole_number("density_size", density_size, least=2)
    features = sum(subject.scm[name].domain.features for name in subject.scm.image_variables)
    rows = min(batch_size, DETAIL_ROWS if detail_rows is None else detail_rows, len(subject))
    require_memory_for("num_particles", num_particles, 4 * num_particles * rows * features)
    require_memory_for("density_size", density_size, 8 * density_size * len(subject.scalars))
    if detail_rows is not None and not 2 <= detail_rows <= len(subject):
        raise ValueError(
            f"detail_rows: expected from 2 to {len(subject)}, the rows of the test split, but got "
            f"{detail_rows}; leave it out to take as many as there are."
        )


def check_density_values(
    subject: Subject, density_values: Mapping[str, Sequence[float]] | None
) -> None:
    """Raise unless densities can be computed at the given values.

    Raises:
        ValueError: If a variable is no scalar of the model, or the world, if it is known, lacks it;
            or if a value is impossible.
    """
    where = "model" if subject.world is None else "model and world"
    for name, values in (density_values or {}).items():
        if name not in subject.distributed:
            known = ", ".join(subject.distributed) or "none, for there is nothing to ask about"
            raise ValueError(
                f"density_values: there is no attribute {name!r} in {where}; expected {known}."
            )
        for value in values:
            subject.scm.act({name: value})
            check_possible(subject, name, value)


def evaluate(
    subject: Subject,
    interventions: Sequence[str] | None = None,
    num_particles: int = 19,
    detail_rows: int | None = None,
    batch_size: int = 256,
    density_values: Mapping[str, list[float]] | None = None,
    density_size: int = 10_000,
    classifier: Classifier | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    cache_dir: Path | None = None,
) -> Evaluation:
    """Evaluate a model on the second and the third rung, and its noise.

    Comparisons with the truth, of densities and of counterfactuals, need a known world; what else
    there is to say of them does not.

    Args:
        subject: The model, the rows, and the world if it is known.
        interventions: As text, such as ``thickness=3``; None chooses some.
        num_particles: P, draws of the noise of each detail row; others get one. They tell
            intervals up to the level (P − 1)/(P + 1) apart, 19 up to 90 %.
        detail_rows: D, the first rows, on which particles, cycles and pixel noise
            are evaluated; None for 500, or all if there are fewer.
        batch_size: Rows at a time.
        density_values: For each attribute the values of rung 2; None chooses some.
        density_size: Draws for each density.
        classifier: From images to class indices, for the identity.
        seed: Of all randomness; the generators of the program are left as they were.
        workers: Processes to render and measure with; None takes one for each processor.
        progress: Whether to show progress bars.
        cache_dir: Where rendered truth is kept; None keeps nothing.

    Raises:
        ValueError: If a number is out of range, an intervention cannot be asked, or originals and
            images do not belong together.
    """
    check_numbers(subject, num_particles, detail_rows, batch_size, density_size)
    questions = check_questions(subject, interventions)
    check_density_values(subject, density_values)
    detail = min(DETAIL_ROWS, len(subject)) if detail_rows is None else detail_rows
    world = None if subject.world is None else subject.world.name
    result = Evaluation(
        len(subject), detail, num_particles, world, subject.available, subject.individuals
    )
    devices = [subject.scm.fitted.device] if subject.scm.fitted.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode(), _evaluation_mode(subject.scm):
        with _part(result, "densities", seed):
            result.densities = evaluate_densities(
                subject, density_values, density_size, seed, progress
            )
        with _part(result, "truth", seed):
            truths = _find_truth(result, subject, questions, detail, workers, progress, cache_dir)
        if len(subject.scm.image_variables) == 1 and questions:
            with _part(result, "counterfactuals", seed):
                result.counterfactuals = evaluate_counterfactuals(
                    subject, questions, truths, num_particles, detail, batch_size, classifier,
                    workers, progress,
                )  # fmt: skip
            with _part(result, "reversibility", seed):
                _evaluate_reversibility(result, subject, questions, detail, batch_size, progress)
            with _part(result, "examples", seed):
                rows = min(_EXAMPLES, len(subject))
                result.examples = take_examples(subject, questions, truths, rows)
        if len(subject.scm.image_variables) == 1:
            with _part(result, "composition", seed):
                result.composition = evaluate_composition(
                    subject, detail, batch_size=batch_size, progress=progress
                )
        with _part(result, "noise", seed):
            result.noise = evaluate_noise(subject, detail, batch_size, progress)
    return result


def _find_truth(
    result: Evaluation,
    subject: Subject,
    questions: Sequence[Question],
    detail: int,
    workers: int | None,
    progress: bool,
    cache_dir: Path | None,
) -> list[Truth] | None:
    images = len(subject.scm.image_variables)
    if subject.world is None:
        result.left_out.append(
            "The truth of rungs 2 and 3: the data set is of no world that is known."
        )
        if effects := [n for n in subject.scalars if n not in subject.distributed]:
            result.left_out.append(f"Rung 2 of {', '.join(effects)}: what an image causes.")
    if images != 1:
        result.left_out.append(
            f"Rung 3: it is about one image variable, but the model has {images}."
        )
    elif not questions:
        result.left_out.append(
            "Rung 3: there is no intervention to ask about; name some as `interventions`."
        )
    elif subject.world is not None and subject.originals is None:
        result.left_out.append(f"The truth of rung 3: {subject.why_no_originals}")
    elif subject.world is not None:
        return true_counterfactuals(subject, questions, detail, workers, progress, cache_dir)
    return None


def _evaluate_reversibility(
    result: Evaluation,
    subject: Subject,
    questions: Sequence[Question],
    detail: int,
    batch_size: int,
    progress: bool,
) -> None:
    found = evaluate_reversibility(
        subject, questions, detail, batch_size=batch_size, progress=progress
    )
    for answered, quantities in zip(result.counterfactuals, found, strict=True):
        answered.quantities.update(quantities)


@contextmanager
def _part(result: Evaluation, part: str, seed: int) -> Iterator[None]:
    """One part, timed, with randomness that does not depend on the parts before it."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    yield
    result.seconds[part] = time.perf_counter() - start


@contextmanager
def _evaluation_mode(scm: StructuralCausalModel) -> Iterator[None]:
    """Without dropout and the like; every module is left in the mode that it was in."""
    modes = [(module, module.training) for module in scm.modules()]
    scm.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
