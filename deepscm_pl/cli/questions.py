"""``sample``, ``intervene`` and ``counterfactual``: the three kinds of question."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checkpoints import TrainedModel, load
from deepscm_pl.checks import whole_number
from deepscm_pl.cli.answers import Column, Output, Part, write_answers
from deepscm_pl.cli.batches import Batches, Request
from deepscm_pl.cli.observations import (
    ObservedRows,
    choose_formats,
    observations_from_csv,
    observations_from_test_split,
)
from deepscm_pl.escaping import for_terminal
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.likelihoods import Likelihood
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Variables

__all__ = ["run_question"]


@dataclass(frozen=True)
class _Question:
    """What is asked of a model.

    Attributes:
        model: The model and its data.
        options: Of the command line.
        dos: The interventions; one that does nothing for samples.
    """

    model: TrainedModel
    options: argparse.Namespace
    dos: Sequence[Do]

    @property
    def scm(self) -> StructuralCausalModel:
        """The causal model."""
        return self.model.scm

    def request(self, observations: int, **settings: Any) -> Request:
        """How much is asked for of so many observations."""
        return Request(observations, len(self.dos), npz=self.options.npz, **settings)

    def batches(self, request: Request, option: str) -> Batches:
        """How it is divided, once it is known to fit."""
        batches = Batches.of(self.scm, request)
        batches.check(self.scm, request, self.options.out, option)
        return batches


def run_question(question: str, options: argparse.Namespace) -> None:
    """Answer a question from a checkpoint, in a new folder of images and a table.

    Raises:
        FileNotFoundError: If the checkpoint, or a file of observations, does not exist.
        ValueError: If the checkpoint, an intervention or an observation is not valid, the answers
            do not fit the memory or the disk, or the output folder is not empty or cannot be
            written.
    """
    model = load(options.ckpt_path, trust=options.trust)
    scm = model.scm
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"seed: expected a number from 0 to 2³² − 1, but got {options.seed}.")
    formats = choose_formats(scm, options.format)
    dos = [parse_do(text, scm.variables) for text in getattr(options, "do", [])] or [{}]
    asked = _Question(model, options, dos)
    is_counterfactual = question == "counterfactual"
    output = Output(
        options.out,
        list(_columns(asked, is_counterfactual)),
        options.npz,
        options.format,
        differences=is_counterfactual,
    )
    with torch.no_grad():
        parts = _counterfactual(asked) if is_counterfactual else _draw(asked)
        written = write_answers(scm, _begun(parts), output)
    for path, note in written.files.items():
        print(f"written: {for_terminal(path)}{note and f', {note}'}")
    for name, each in formats.items():
        if each == "nifti" and name in written.unplaced:
            print(
                f"{name}: it is not known where the images lie in a scanner; their files have "
                "elements of 1 mm, the first at the origin."
            )


def _columns(question: _Question, is_counterfactual: bool) -> Iterator[Column]:
    """What is done: nothing, if that is asked for or compared with, and every intervention."""
    if is_counterfactual:
        yield Column("factual", "factual")
    variables = question.scm.variables
    plain = {name: replace(each, unit="") for name, each in variables.items()}
    for do in question.dos:
        title, heading = format_do(do, plain), format_do(do, variables)
        if is_counterfactual:
            about = f"counterfactual under {title}"
            yield Column(title, about, heading, question.options.num_particles)
        elif do:
            yield Column(title, f"sample under {title}", heading)
        else:
            yield Column("sample", "sample")


def _draw(question: _Question) -> Iterator[Part]:
    """The same noise under every intervention."""
    scm, options = question.scm, question.options
    if options.size < 1:
        raise ValueError(f"size: expected at least 1, but got {options.size}.")
    if options.temperature is not None:
        _set_temperature(scm, options.temperature)
    batches = question.batches(question.request(options.size), "size")
    # All are of one size, so that the first draws do not depend on how many follow.
    size = min(batches.rows, options.size)
    with _progress(options.size) as bar:
        for batch, first in enumerate(range(0, options.size, size)):
            torch.manual_seed(batches.seed(options.seed, batch))
            drawn = scm.intervene(question.dos, size)
            count = min(size, options.size - first)
            values = [
                _first({name: value[k][None] for name, value in drawn.items()}, count)
                for k in range(len(question.dos))
            ]
            yield Part([f"noise {first + k}" for k in range(count)], values, first)
            bar.update(count)


def _first(values: Variables, count: int) -> dict[str, Tensor]:
    """The first observations of ``(particles, observations, *event)``."""
    return {name: value[:, :count] for name, value in values.items()}


def _begun(parts: Iterator[Part]) -> Iterator[Part]:
    """The same, after the first is there: what is refused then leaves no folder behind."""
    first = [next(parts)]

    def again() -> Iterator[Part]:
        yield first.pop()  # which no one else holds
        yield from parts

    return again()


def _progress(total: int | None) -> tqdm[NoReturn]:
    """A bar of observations, on a terminal only."""
    return tqdm(total=total, unit="observation", disable=None)


def _set_temperature(scm: StructuralCausalModel, temperature: float) -> None:
    """Draw the pixel noise of every likelihood at this temperature."""
    likelihoods = [module for module in scm.modules() if isinstance(module, Likelihood)]
    if not likelihoods:
        raise ValueError(
            f"temperature: expected a model with a likelihood of pixels, such as a ConditionalVAE "
            f"has, but got {temperature:g} for a model without one; leave the option out."
        )
    for likelihood in likelihoods:
        likelihood.temperature = temperature


def _counterfactual(question: _Question) -> Iterator[Part]:
    """The factual, then a counterfactual for each intervention."""
    observed, particles = _observe(question), question.options.num_particles
    if particles < 1:
        raise ValueError(f"num_particles: expected at least 1, but got {particles}.")
    if question.options.resample is not None:
        whole_number("resample", question.options.resample, least=2)
    request = question.request(observed.count, particles=particles, factual=True)
    option = "observations" if question.options.index is None else "index"
    batches = question.batches(request, option)
    first = 0
    with _progress(observed.count if observed.is_exact else None) as bar:
        for batch, some in enumerate(observed.read(batches.rows)):
            for particle, count in batches.chunks(particles):
                torch.manual_seed(batches.seed(question.options.seed, batch, particle))
                # All are of one size, so that what is drawn does not depend on how many follow.
                values = some.values if batch == 0 else _filled(some.values, batches.rows)
                answers = question.scm.counterfactual(
                    values, question.dos, count, question.options.resample
                )
                chosen = [
                    _first({name: value[:, k] for name, value in answers.items()}, len(some.rows))
                    for k in range(len(question.dos))
                ]
                factual = {name: value[None] for name, value in some.values.items()}
                yield Part(some.rows, [factual, *chosen], first, particle, some.placements)
            first += len(some.rows)
            bar.update(len(some.rows))


def _filled(values: Variables, size: int) -> dict[str, Tensor]:
    """Values of ``size`` observations, those that are missing like the first."""
    rows = torch.arange(size)
    return {name: value[rows * (rows < len(value))] for name, value in values.items()}


def _observe(question: _Question) -> ObservedRows:
    """The observations that the options name."""
    scm, options = question.scm, question.options
    if options.index is not None:
        if options.prepare:
            raise ValueError(
                "prepare: expected with --observations alone, for the test split is prepared; "
                "leave it out."
            )
        data = question.model.data(options.root)
        return observations_from_test_split(scm, data, options.index)
    prepare = None
    if options.prepare:
        prepare = question.model.data().prepare_file
    return observations_from_csv(scm, options.observations, prepare)
