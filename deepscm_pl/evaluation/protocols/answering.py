"""Counterfactuals of many rows under interventions with values of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import whole_number
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.protocols.drawing import DrawnDo
from deepscm_pl.evaluation.protocols.judging import Judge, errors_of, estimate_of
from deepscm_pl.evaluation.protocols.results import Figure, mean_over_seeds

__all__ = ["ProtocolSettings", "Task", "effectiveness_figures"]


@dataclass(frozen=True)
class ProtocolSettings:
    """Settings of a protocol.

    Args:
        seeds: Seeds of the interventions; a figure is the mean over them.
        batch_size: Rows per batch.
        workers: Processes that measure and draw images; None for one per processor.
        progress: Whether to show a progress bar.
        cycles: Number of repetitions of null interventions and of cycles there and back.
        particles: Draws of the noise, where a protocol reports coverage.
        detail_rows: Rows, the first ones, of figures that need particles or many answers: coverage
            and cycles.
        asked: Interventions by constants, such as ``thickness=5``, whose truth a protocol compares
            with in addition.

    Raises:
        ValueError: If a number is out of range, or there is no seed.
    """

    seeds: Sequence[int] = (0, 1, 2)
    batch_size: int = 256
    workers: int | None = None
    progress: bool = True
    cycles: Sequence[int] = (1, 10)
    particles: int = 20
    detail_rows: int = 500
    asked: Sequence[str] = ()

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size, least=1)
        whole_number("particles", self.particles, least=2)
        whole_number("detail_rows", self.detail_rows, least=1)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: expected different whole numbers, but got {list(self.seeds)}; give at "
                "least one."
            )


@dataclass(frozen=True)
class Task:
    """A model on data, with the judges and the settings of a protocol.

    Attributes:
        model: The model on test rows.
        judges: The judges of its causes.
        settings: The settings.
        training: All variables of the training split, images as bytes.
        features: A feature network of the Fréchet and kernel distances; None to leave them out.
        embedding: Mean and log-scale ``(N, D)`` of an unconditional latent of images; None to leave
            out the latent divergence.
        perceptual: A perceptual distance of pairs of images; None to leave it out.
    """

    model: ModelOnData
    judges: Sequence[Judge]
    settings: ProtocolSettings
    training: Mapping[str, Tensor] = field(default_factory=dict)
    features: torch.nn.Module | None = None
    embedding: torch.nn.Module | None = None
    perceptual: torch.nn.Module | None = None

    @property
    def image(self) -> str:
        """The name of the image."""
        return self.model.scm.image_variables[0]

    @property
    def causes(self) -> list[str]:
        """The scalar causes of the image that it has as parents."""
        parents = self.model.scm.graph.parents[self.image]
        return [name for name in parents if name in self.model.scalars]

    @property
    def categories(self) -> dict[str, int | None]:
        """The number of classes of each scalar variable; None for numbers."""
        return {name: self.model.scm[name].domain.categories for name in self.model.scalars}

    def column(self, name: str) -> Tensor:
        """Return the known values of a variable in the training split, ``(n, 1)``.

        Raises:
            ValueError: If there is none.
        """
        values = self.training.get(name, torch.empty(0, 1))
        known = values[~values.isnan().flatten()]
        if not len(known):
            raise ValueError(
                f"training: expected values of {name} in the training split, from which values are "
                "drawn, but got none; test on the data of the model."
            )
        return known

    def factual(self) -> dict[str, Tensor]:
        """Return the recorded rows, images in grey levels, in the precision of the model."""
        dtype = self.model.scm.dtype
        return {name: value.to("cpu", dtype) for name, value in self.model.variables.items()}

    def first(self, rows: int) -> Task:
        """Return the task on the first rows of the model."""
        model, size = self.model, min(rows, len(self.model))
        some = replace(
            model,
            variables={name: value[:size] for name, value in model.variables.items()},
            originals=None if model.originals is None else model.originals[:size],
            other_attributes={name: each[:size] for name, each in model.other_attributes.items()},
        )
        return replace(self, model=some)

    def answer(self, do: DrawnDo, factual: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return one counterfactual of each row, ``(N, *event)`` for every variable.

        Args:
            do: The intervention.
            factual: Rows with other values than the recorded ones.
        """
        rows = self.factual() if factual is None else factual
        size, parts = len(rows[self.image]), []
        for start in self._starts(size, do.title):
            some = slice(start, start + self.settings.batch_size)
            parts.append(self._answer_batch(do, {n: v[some] for n, v in rows.items()}, some, size))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _starts(self, size: int, title: str) -> tqdm[int]:
        starts = range(0, size, self.settings.batch_size)
        return tqdm(
            starts, unit="batch", desc=title, disable=None if self.settings.progress else True
        )

    def _answer_batch(
        self, do: DrawnDo, rows: Mapping[str, Tensor], some: slice, size: int
    ) -> dict[str, Tensor]:
        """Answer for a batch: rows in which the same variables are changed are asked together."""
        scm = self.model.scm
        device, dtype = scm.fitted.device, scm.dtype
        found = {name: value.clone() for name, value in rows.items()}
        names = list(do.values)
        pattern = torch.stack([do.mask(name, size)[some] for name in names], dim=1)
        for changed in pattern.unique(dim=0):
            chosen = (pattern == changed).all(dim=1)
            asked = [name for name, flag in zip(names, changed.tolist(), strict=True) if flag]
            values = {name: do.values[name][some][chosen].to(device, dtype) for name in asked}
            given = {name: value[chosen].to(device, dtype) for name, value in rows.items()}
            # Without a change, a counterfactual infers the noise and predicts from it.
            drawn = scm.counterfactual(given, values) if values else scm.predict(scm.abduct(given))
            for name in found:
                found[name][chosen] = drawn[name][0].to(found[name])
        return found


def effectiveness_figures(
    task: Task, dos: Mapping[str, Sequence[DrawnDo]], published: bool = False
) -> list[Figure]:
    """Judge every cause of the image in the counterfactuals under several interventions.

    The target of an intervened variable is its value, that of another one its counterfactual value.

    Args:
        task: The task.
        dos: For each title an intervention for each seed.
        published: Whether means over batches are reported, too, which weigh the images of a small
            last batch more.
    """
    floors = floor_errors(task)
    figures = []
    for title, drawn in dos.items():
        seeds: list[dict[tuple[str, str], Tensor]] = []
        for do in drawn:
            answer = task.answer(do)
            seeds.append(judged_errors(task, answer[task.image], answer))
        for key in seeds[0]:
            figures.append(
                _figure(task, title, key, [each[key] for each in seeds], floors, published)
            )
    return figures


def judged_errors(
    task: Task, images: Tensor, targets: Mapping[str, Tensor]
) -> dict[tuple[str, str], Tensor]:
    """Return the errors ``(N,)`` of each cause by each judge, by (variable, kind of judge)."""
    found: dict[tuple[str, str], Tensor] = {}
    for judge in task.judges:
        errors = errors_of(judge, images, targets, task.categories)
        found |= {(name, judge.kind): each for name, each in errors.items() if name in task.causes}
    return found


def floor_errors(task: Task) -> dict[tuple[str, str], float]:
    """Return the mean errors of the judges on recorded images."""
    rows = task.factual()
    errors = judged_errors(task, rows[task.image], rows)
    return {key: estimate_of(each).mean for key, each in errors.items()}


def mean_over_batches(errors: Tensor, batch: int) -> float:
    """Return the mean of the means of batches.

    Example:
        >>> mean_over_batches(torch.tensor([1.0, 1.0, 4.0]), batch=2)
        2.5
    """
    return float(torch.stack([part.double().nanmean() for part in errors.split(batch)]).mean())


def _figure(
    task: Task,
    title: str,
    key: tuple[str, str],
    errors: Sequence[Tensor],
    floors: Mapping[tuple[str, str], float],
    published: bool,
) -> Figure:
    name, kind = key
    is_class = task.categories[name] is not None
    defined, deviation = mean_over_seeds([estimate_of(each) for each in errors])
    batches = [mean_over_batches(each, task.settings.batch_size) for each in errors]
    return Figure(
        title,
        name,
        "accuracy" if is_class else "mean absolute error",
        "" if is_class else task.model.unit(name),
        kind,
        defined,
        deviation,
        sum(batches) / len(batches) if published else None,
        floors[key],
    )
