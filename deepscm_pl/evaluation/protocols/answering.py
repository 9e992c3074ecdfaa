"""Counterfactuals of many rows under interventions with values of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from deepscm_pl.checks import whole_number
from deepscm_pl.evaluation.cycles import possible_rows, replace_rows
from deepscm_pl.evaluation.model_on_data import ModelOnData
from deepscm_pl.evaluation.protocols.drawing import DrawnDo
from deepscm_pl.evaluation.protocols.judging import Judge
from deepscm_pl.mechanisms.latent import LatentImageMechanism
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Noise

__all__ = ["PUBLISHED_SCALE", "ProtocolSettings", "Task", "repeated_images"]

PUBLISHED_SCALE = 0.1
"""The scale of latent and pixel noise in the published code of causal-gen and benchmark."""


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

    Several models answer together: their median, of classes the most frequent one.

    Attributes:
        model: The model on test rows.
        judges: The judges of its causes.
        settings: The settings.
        training: All variables of the training split, images as bytes.
        features: A feature network of the Fréchet and kernel distances; None to leave them out.
        embedding: Mean and log-scale ``(N, D)`` of an unconditional latent of images; None to leave
            out the latent divergence.
        perceptual: A perceptual distance ``(N,)`` of pairs of images, such as
            :class:`~deepscm_pl.metrics.PerceptualDistance` takes; None to leave it out.
        training_seconds: Seconds of the training of the model, or of all; None if unknown.
    """

    model: ModelOnData
    judges: Sequence[Judge]
    settings: ProtocolSettings
    training: Mapping[str, Tensor] = field(default_factory=dict)
    features: torch.nn.Module | None = None
    embedding: torch.nn.Module | None = None
    perceptual: torch.nn.Module | None = None
    training_seconds: float | None = None

    @property
    def members(self) -> Sequence[StructuralCausalModel]:
        """The models that answer together; usually one."""
        ensemble = self.model.ensemble
        return (self.model.scm,) if ensemble is None else ensemble.members

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
        """Return the counterfactual of each row with the likeliest noise, ``(N, *event)`` each.

        Args:
            do: The intervention; one that changes nothing is a null intervention, which infers all
                noise and predicts from it.
            factual: Rows with other values than the recorded ones.
        """
        return self._answers(do, factual, [1.0])[0]

    def published_answer(
        self, do: DrawnDo, factual: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return counterfactuals as published code computes them, with noise scaled by 0.1.

        They equal those of :meth:`answer` unless :attr:`has_published_answers`.
        """
        return self._answers(do, factual, [PUBLISHED_SCALE])[0]

    def both_answers(self, do: DrawnDo) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return counterfactuals as defined and as published."""
        if not self.has_published_answers:
            answer = self.answer(do)
            return answer, answer
        defined, published = self._answers(do, None, [1.0, PUBLISHED_SCALE])
        return defined, published

    @property
    def has_published_answers(self) -> bool:
        """Whether published code would scale noise of the image: that of a latent and of pixels."""
        return isinstance(self.model.scm[self.image], LatentImageMechanism)

    def _answers(
        self, do: DrawnDo, factual: Mapping[str, Tensor] | None, scales: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        rows = self.factual() if factual is None else factual
        size, parts = len(rows[self.image]), []
        for start in self._starts(size, do.title):
            some = slice(start, start + self.settings.batch_size)
            batch = {name: value[some] for name, value in rows.items()}
            parts.append(self._answer_batch(do, batch, some, size, scales))
        return [
            {name: torch.cat([part[k][name] for part in parts]) for name in rows}
            for k in range(len(scales))
        ]

    def _starts(self, size: int, title: str) -> tqdm[int]:
        starts = range(0, size, self.settings.batch_size)
        return tqdm(
            starts, unit="batch", desc=title, disable=None if self.settings.progress else True
        )

    def _answer_batch(
        self,
        do: DrawnDo,
        rows: Mapping[str, Tensor],
        some: slice,
        size: int,
        scales: Sequence[float],
    ) -> list[dict[str, Tensor]]:
        """Answer for a batch: rows in which the same variables are changed are asked together."""
        scm = self.model.scm
        device, dtype = scm.fitted.device, scm.dtype
        found = [{name: value.clone() for name, value in rows.items()} for _ in scales]
        for asked, chosen in do.groups(size, some):
            values = {name: do.values[name][some][chosen].to(device, dtype) for name in asked}
            given = {name: value[chosen].to(device, dtype) for name, value in rows.items()}
            for answers, drawn in zip(found, self._drawn(given, values, scales), strict=True):
                for name in answers:
                    answers[name][chosen] = drawn[name].to(answers[name])
        return found

    def _drawn(
        self, given: Mapping[str, Tensor], values: Mapping[str, Tensor], scales: Sequence[float]
    ) -> list[dict[str, Tensor]]:
        found = []
        for scale in scales:
            answers = [self._answer_of(each, given, values, scale) for each in self.members]
            found.append(self._joined(answers))
        return found

    def _answer_of(
        self,
        scm: StructuralCausalModel,
        given: Mapping[str, Tensor],
        values: Mapping[str, Tensor],
        scale: float,
    ) -> dict[str, Tensor]:
        reached = scm.graph.descendants(*values) | values.keys() if values else None
        # Published code draws the noise that it scales.
        drawn = scm.abduct(given, None if scale == 1.0 else 1, names=reached)
        noise = {name: {k: v[0] for k, v in parts.items()} for name, parts in drawn.items()}
        scaled = noise if scale == 1.0 else self._scaled(given, noise, scale)
        # Without a change, noise is inferred, and every variable predicted from it.
        return scm.answer(given, scaled, values) if values else scm.predict(scaled)

    def _joined(self, answers: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The median of the answers of several models; of classes, the most frequent one."""
        if len(answers) == 1:
            return answers[0]
        found = {}
        for name in answers[0]:
            values = torch.stack([each[name] for each in answers])
            domain = self.model.scm[name].domain
            if domain.categories is not None:
                found[name] = values.mode(dim=0).values
            else:
                median = values.quantile(0.5, dim=0)
                found[name] = median.round() if len(domain.shape) > 1 else median
        return found

    def _scaled(
        self, given: Mapping[str, Tensor], noise: Mapping[str, Noise], scale: float
    ) -> dict[str, Noise]:
        """Scale the pixel noise of the image, and the deviation of its latent from the mean."""
        mechanism = self.model.scm[self.image]
        if self.image not in noise or not isinstance(mechanism, LatentImageMechanism):
            return dict(noise)
        parents = {name: given[name] for name in self.model.scm.graph.parents[self.image]}
        mean = mechanism.posterior(given[self.image] + 0.5, parents).location
        own = dict(noise[self.image])
        own["z"] = mean + scale * (own["z"] - mean)
        own |= {name: scale * own[name] for name in ("u", "new") if name in own}
        return {**noise, self.image: own}


def repeated_images(
    task: Task,
    steps: Sequence[DrawnDo],
    counts: Sequence[int],
    is_published: bool = False,
) -> tuple[dict[int, Tensor], Tensor]:
    """Repeat interventions one after another, each on the answer before.

    Args:
        task: The task.
        steps: The interventions of one repetition.
        counts: Numbers of repetitions.
        is_published: Whether answers are those of published code.

    Returns:
        The images ``(N, *event)`` after each number of repetitions, and the rows ``(N,)`` that were
        possible throughout: rounding can move a value onto a bound, where no noise can be inferred.
    """
    answer = task.published_answer if is_published else task.answer
    recorded = values = task.factual()
    kept, found = torch.ones(len(task.model), dtype=torch.bool), {}
    for count in range(1, max(counts) + 1):
        for step in steps:
            changed = answer(step, values)
            kept = kept & possible_rows(task.model.scm, changed)
            values = replace_rows(kept, changed, recorded)
        if count in counts:
            found[count] = values[task.image]
    return found, kept
