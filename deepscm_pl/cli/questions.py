"""``sample``, ``intervene`` and ``counterfactual``: the three kinds of question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.changes import Changes, affected_by, as_lines
from deepscm_pl.checkpoints import StoredObservations, TrainedModel, load
from deepscm_pl.checks import whole_number
from deepscm_pl.cli.answers import Column, Output, Part, write_answers
from deepscm_pl.cli.batches import Batches, Request
from deepscm_pl.cli.commands import (
    AnswerOptions,
    DrawOptions,
    InterventionOptions,
    ObservationOptions,
    OverlapOptions,
    ParticleOptions,
)
from deepscm_pl.cli.do_tables import read_interventions
from deepscm_pl.cli.intervals import interval_sentences, read_calibration
from deepscm_pl.cli.missing import MissingCount
from deepscm_pl.cli.observations import (
    ObservedRows,
    choose_formats,
    observations_from_csv,
    observations_from_test_split,
)
from deepscm_pl.cli.overlap import OverlapCount
from deepscm_pl.cli.reaction import reaction_sentences
from deepscm_pl.data import CausalData
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.escaping import for_terminal
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.interventions import format_do
from deepscm_pl.likelihoods import Likelihood
from deepscm_pl.mechanisms.latent import couple_pixel_noise
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.suggestions import Asked
from deepscm_pl.variables import Do, Variables

__all__ = [
    "announced_test_data",
    "answer_by_drawing",
    "answer_counterfactual",
    "find_observations",
    "load_models",
]

_PARTICLES = 16
"""Particles of a suggested question about the uncertainty of an answer."""
_PRINTED = 20
"""Variables of which the output describes the change."""


def answer_by_drawing(
    options: AnswerOptions,
    drawing: DrawOptions,
    interventions: InterventionOptions | None = None,
    overlap: OverlapOptions | None = None,
) -> None:
    """Draw observations, under interventions if there are any, into a new folder.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint, an intervention or an option is not valid, the answers do not
            fit the memory or the disk, or the output folder is not empty or cannot be written.
    """
    question = _Question.read(options, interventions, overlap or OverlapOptions())
    question.write(_draw_parts(question, drawing), question.columns("sample"))
    if interventions and interventions.do and question.asked.has_data:
        print(f"\nAsk about rows:      {question.asked.counterfactual(interventions.do[0])}")
    else:
        print(f"\nAsk what if:         {question.asked.intervene()}")


def answer_counterfactual(
    options: AnswerOptions,
    interventions: InterventionOptions,
    observed: ObservationOptions,
    overlap: OverlapOptions,
    uncertainty: ParticleOptions,
) -> None:
    """Write observations and their counterfactuals into a new folder.

    Raises:
        FileNotFoundError: If the checkpoint, or a file of observations, does not exist.
        ValueError: As of :func:`answer_by_drawing`, and if an observation is not valid.
    """
    question = _Question.read(options, interventions, overlap)
    asked = question.model.particles(uncertainty.num_particles)
    particles = asked or 1
    calibration = read_calibration(question.model, uncertainty.calibration)
    for member in question.ensemble.members:
        couple_pixel_noise(member, uncertainty.coupling)
    columns = [
        Column("factual", "factual", is_observed=True),
        *question.columns("counterfactual", particles),
    ]
    found = find_observations(question.model, question.scm, observed, overlap.root)
    missing = MissingCount(question.scm)
    parts = missing.watch(_counterfactual_parts(question, found, asked, uncertainty.resample))
    question.write(parts, columns, found, calibration)
    for sentence in missing.sentences():
        print(for_terminal(f"{sentence}."))
    if question.scm.image_variables and any(question.dos):
        for sentence in interval_sentences(question.scm, calibration, columns[1:]):
            print(for_terminal(sentence))
    _suggest_after(question, interventions, observed, particles, calibration)


def _suggest_after(
    question: _Question,
    interventions: InterventionOptions,
    observed: ObservationOptions,
    particles: int,
    calibration: Calibration | None,
) -> None:
    """Print a question that follows on a counterfactual."""
    asked = question.asked
    if question.scm.image_variables and particles == 1:
        rows = (
            ["--index", *map(str, observed.index)]
            if observed.index is not None
            else ["--observations", str(observed.observations), *["--prepare"][: observed.prepare]]
        )
        count = _PARTICLES if calibration is None else calibration.particles
        words = [*interventions.words, *rows, "--num_particles", str(count)]
        print(f"\nSee its uncertainty: {asked.command('counterfactual', *words)}")
    elif interventions.do and (effect := asked.effect(interventions.do[0])) is not None:
        print(f"\nAsk for its average: {effect}")
    elif asked.has_data:
        print(f"\nCheck the model:     {asked.command('test', out='')}")
    else:
        print(f"\nAsk what if:         {asked.intervene()}")


@dataclass(frozen=True)
class _Question:
    """A model, options and parsed interventions; without any, one that changes nothing."""

    model: TrainedModel
    options: AnswerOptions
    dos: Sequence[Do]
    overlap: OverlapOptions

    @classmethod
    def read(
        cls,
        options: AnswerOptions,
        interventions: InterventionOptions | None,
        overlap: OverlapOptions,
    ) -> _Question:
        model = load_models(options.ckpt_path, options.weights, options.trust, overlap.root)
        whole_number("seed", options.seed, least=0, most=2**32 - 1)
        choose_formats(model.scm, options.image_format)
        dos = [{}] if interventions is None else read_interventions(interventions, model.scm)
        if overlap.read_training_data and not model.scm.training_distribution.is_known:
            data = model.data(overlap.root)
            data.prepare_data()
            data.setup("fit")
            model.scm.training_distribution.fit(data.variables("train"))
        return cls(model, options, dos, overlap)

    @property
    def scm(self) -> StructuralCausalModel:
        return self.model.scm

    @property
    def ensemble(self) -> Ensemble:
        return self.model.ensemble

    @property
    def asked(self) -> Asked:
        """The model for suggestions of further questions."""
        files = self.model.checkpoints
        has_data = files[0].content.get("data") is not None
        return Asked(self.scm, self.options.ckpt_path, self.options.trust, None, has_data)

    @property
    def affected(self) -> list[str]:
        """The numbers and images that an intervention affects."""
        nodes = {name for do in self.dos for name in self.scm.graph.descendants(*do)}
        numbers = [name for name, each in self.scm.variables.items() if not each.domain.categories]
        return [name for name in numbers if name in nodes]

    @property
    def changed(self) -> list[str]:
        """The numbers that an intervention sets, changes or affects."""
        names = {name for do in self.dos for name in affected_by(self.scm.graph, do)}
        scalars = [n for n, each in self.scm.variables.items() if each.domain.shape == (1,)]
        return [n for n in scalars if n in names and not self.scm.variables[n].domain.categories]

    def columns(self, kind: str, particles: int = 1) -> list[Column]:
        """A column of answers for each intervention."""
        variables = self.scm.variables
        without_units = {name: replace(each, unit="") for name, each in variables.items()}
        columns = []
        for do in self.dos:
            title = format_do(do, without_units)
            about = f"{kind} under {title}" if do else kind
            heading = format_do(do, variables)
            columns.append(Column(title or kind, about, heading, particles, changed=tuple(do)))
        return columns

    def batches(self, request: Request, option: str) -> Batches:
        """Divide a request that fits the memory and the disk into batches."""
        batches = Batches.of(self.scm, request)
        batches.check(self.scm, request, self.options.out, option)
        return batches

    def write(
        self,
        parts: Iterator[Part],
        columns: Sequence[Column],
        observed: ObservedRows | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Write the answers, and print the names of their files and what has changed."""
        options = self.options
        overlap = OverlapCount(self.scm, self.dos, self.overlap.refused)
        output = Output(
            options.out,
            columns,
            options.npz,
            options.image_format,
            observed is not None,
            overlap.quantiles if any(self.dos) else None,
            self.overlap.refused,
            len(self.ensemble.members),
            self.affected if observed else (),
            calibration,
            observed.others if observed else (),
            self.changed if observed else (),
        )
        with torch.no_grad():
            # A question that is refused before its first answer leaves no folder behind. The answer
            # is taken out of the list, so that its memory is free before the second one.
            parts = overlap.watch(parts)
            first = [next(parts)]
            written = write_answers(self.scm, chain((first.pop() for _ in range(1)), parts), output)
        for path, note in written.files.items():
            print(f"written: {for_terminal(path)}{note and f', {note}'}")
        for name, image_format in choose_formats(self.scm, options.image_format).items():
            if image_format == "nifti" and name in written.unplaced:
                print(
                    f"{name}: the position of the images in a scanner is not known; their files "
                    "have voxels of 1 mm, the first at the origin."
                )
        if len(self.model.checkpoints) > 1:
            pairs = zip(self.model.checkpoints, self.ensemble.weights, strict=True)
            for k, (checkpoint, weight) in enumerate(pairs, 1):
                print(for_terminal(f"member {k}, weight {weight:.3g}: {checkpoint.path}"))
            if sum(weight > 0 for weight in self.ensemble.weights) == 1:
                print("disagreement: unknown, because only one model has a weight above 0.")
        for heading, changes in written.changes:
            _print_changes(heading, changes)
        members = self.ensemble.members
        reactions = dict.fromkeys(s for each in members for s in reaction_sentences(each, self.dos))
        for sentence in [*written.disagreements, *overlap.sentences(), *reactions]:
            print(for_terminal(f"{sentence}."))


def _print_changes(heading: str, changes: Changes) -> None:
    """Print a small table of what an intervention changes."""
    rows, several = changes.lines(), changes.observations > 1
    if rows:
        means = f", means over {changes.observations:,} observations" if several else ""
        print(for_terminal(f"{heading}{means}"))
        for line in as_lines(rows[:_PRINTED], ("variable", "factual", "counterfactual", "change")):
            print(f"  {line}")
        if len(rows) > _PRINTED:
            print(f"  … and {len(rows) - _PRINTED} more variables, see answers.csv")


def load_models(
    paths: Sequence[Path], weights: Sequence[str], trust: Sequence[str], root: Path | None
) -> TrainedModel:
    """Load models, with their weights as of the command line.

    Raises:
        FileNotFoundError: If a checkpoint does not exist.
        ValueError: If a checkpoint or a weight is not valid.
    """
    is_stacked = list(weights) == ["validation"]
    try:
        numbers = [float(each) for each in weights if not is_stacked]
    except ValueError:
        raise ValueError(
            f"weights: expected {len(paths)} numbers, or validation, but got {' '.join(weights)}."
        ) from None
    model = load(paths, trust=trust, weights=numbers or None)
    return model.stacked(root) if is_stacked else model


def _draw_parts(question: _Question, drawing: DrawOptions) -> Iterator[Part]:
    """Draw with the same noise under every intervention."""
    ensemble, total = question.ensemble, whole_number("size", drawing.size, least=1)
    if drawing.temperature is not None:
        for scm in ensemble.members:
            _set_temperature(scm, drawing.temperature)
    request = Request(total, len(question.dos), npz=question.options.npz)
    batches = question.batches(request, "size")
    # All batches have one size, so that the first draws do not depend on how many follow.
    size, turns = min(batches.rows, total), ensemble.turns()
    with _progress_bar(total) as bar:
        for batch, first in enumerate(range(0, total, size)):
            torch.manual_seed(batches.seed(question.options.seed, batch))
            members = torch.tensor(list(islice(turns, size)))
            shares = members.bincount(minlength=len(ensemble.members)).tolist()
            drawn = ensemble.intervene(question.dos, size, shares)
            count = min(size, total - first)
            place = members.argsort(stable=True).argsort()[:count]
            values = [
                {name: value[k, None, place] for name, value in drawn.items()}
                for k in range(len(question.dos))
            ]
            names = [f"noise {first + k}" for k in range(count)]
            yield Part(names, values, first, members=members[None, :count])
            bar.update(count)


def _progress_bar(total: int | None) -> tqdm[NoReturn]:
    return tqdm(total=total, unit="observation", disable=None)  # on a terminal only


def _set_temperature(scm: StructuralCausalModel, temperature: float) -> None:
    likelihoods = [module for module in scm.modules() if isinstance(module, Likelihood)]
    if not likelihoods:
        raise ValueError(
            f"temperature: expected a model with a likelihood of pixels, such as a ConditionalVAE "
            f"has, but got {temperature:g} for a model without one; leave the option out."
        )
    for likelihood in likelihoods:
        likelihood.temperature = temperature


def _counterfactual_parts(
    question: _Question, found: ObservedRows, asked: int | None, resample: int | None
) -> Iterator[Part]:
    """Give the observations, then their counterfactuals under each intervention."""
    particles = asked or 1
    if resample is not None:
        whole_number("resample", resample, least=2)
    request = Request(found.count, len(question.dos), particles, True, question.options.npz)
    batches = question.batches(request, found.option)
    first = 0
    with _progress_bar(found.count if found.is_exact else None) as bar:
        for batch, rows in enumerate(found.read(batches.rows)):
            for particle, count in batches.chunks(particles):
                torch.manual_seed(batches.seed(question.options.seed, batch, particle))
                # All batches have one size, so that draws do not depend on how many follow.
                values = rows.values if batch == 0 else _padded(rows.values, batches.rows)
                shares = question.ensemble.share(particles, particle, count)
                members = torch.repeat_interleave(torch.tensor(shares))
                draws = None if asked is None else count
                answers = question.ensemble.counterfactual(
                    values, question.dos, draws, resample, shares
                )
                counterfactuals: list[dict[str, Tensor]] = [
                    {name: value[:, k, : len(rows.rows)] for name, value in answers.items()}
                    for k in range(len(question.dos))
                ]
                factual = {name: value[None] for name, value in rows.values.items()}
                yield Part(
                    rows.rows,
                    [factual, *counterfactuals],
                    first,
                    particle,
                    rows.placements,
                    members=members[:, None].expand(-1, len(rows.rows)),
                    others=rows.others,
                )
            first += len(rows.rows)
            bar.update(len(rows.rows))


def _padded(values: Variables, size: int) -> dict[str, Tensor]:
    """Repeat the first observation until there are ``size``."""
    rows = torch.arange(size)
    return {name: value[rows * (rows < len(value))] for name, value in values.items()}


def find_observations(
    model: TrainedModel,
    scm: StructuralCausalModel,
    observed: ObservationOptions,
    root: Path | None,
) -> ObservedRows:
    """Find the observations of a question: rows of the test split, or of a table.

    Args:
        model: The model, whose data module has the test split.
        scm: The model of the variables that the question needs.
        observed: The options that select them.
        root: Current folder of the run's data.

    Raises:
        FileNotFoundError: If the table or an image does not exist.
        ValueError: If an option or a cell is not valid.
    """
    if observed.prepare:
        print("prepare: images are prepared like those of the run by default; leave it out.")
    if observed.index is not None:
        if observed.prepared:
            raise ValueError(
                "prepared: expected with --observations only, because the test split is prepared; "
                "leave it out."
            )
        data = announced_test_data(model, root, observed.index)
        return observations_from_test_split(scm, data, observed.index)
    if observed.observations is None:
        raise ValueError("observations: expected a table, or rows of the test split in index.")
    source = None if observed.prepared else _data_from_files(model, scm, root)
    table_format = model.checkpoint.table_format
    return observations_from_csv(scm, observed.observations, source, table_format)


def announced_test_data(
    model: TrainedModel, root: Path | None, rows: Sequence[int] | None
) -> CausalData:
    """The data with rows of the test split; print it if they lack some of the data of the run.

    Raises:
        FileNotFoundError: As of :meth:`TrainedModel.test_data`.
        ValueError: As of :meth:`TrainedModel.test_data`.
    """
    data = model.test_data(root, rows)
    if isinstance(data, StoredObservations) and not (data.is_complete and data.has(rows)):
        print(
            f"index: the data of the run are not here; the first {data.count:,} rows of its test "
            "split travel with the model."
        )
    return data


def _data_from_files(
    model: TrainedModel, scm: StructuralCausalModel, root: Path | None
) -> CausalData | None:
    """The data of the model if its images are made from files."""
    if not scm.image_variables:
        return None
    try:
        return model.checkpoint.data_from_files(root)
    except ValueError as error:
        raise ValueError(
            f"{error} Or give images that are already prepared, with --prepared."
        ) from None
