"""Grids of counterfactual and interventional images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepscm_pl.callbacks.figure_callback import FigureCallback, image_count
from deepscm_pl.callbacks.variables import (
    NO_PICTURES,
    grey_levels,
    observation_labels,
    pictures,
)
from deepscm_pl.checks import whole_number
from deepscm_pl.figures import ImageColumn, captions, draw_grid
from deepscm_pl.interventions import format_do, parse_do, with_class_indices
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.types import Variables

__all__ = ["CounterfactualGrid", "InterventionGrid"]


class _DoGrid(FigureCallback):
    """A grid of every image variable, with a column for each intervention.

    Args:
        interventions: A column each, as text: ``thickness=3``, ``thickness+=1, intensity=100``.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of rows.
        num_particles: Particles that an image is averaged over.
        seed: Seed of the noise.
        differences: Whether to draw, under each image, its signed difference to the first column.

    Attributes:
        texts: The interventions as they were given.
        written: The PNG files written so far.

    Raises:
        ValueError: If an intervention cannot be read, or a number is less than 1; when the run
            starts, if an intervention does not fit the model.
    """

    def __init__(
        self,
        interventions: list[str],
        every_n_epochs: int = 10,
        num_images: int = 8,
        num_particles: int = 1,
        seed: int = 0,
        differences: bool = True,
    ) -> None:
        self.num_images = image_count(num_images)
        super().__init__(every_n_epochs, num_images, seed)
        self.num_particles = whole_number("num_particles", num_particles, least=1)
        whole_number("number of interventions", len(interventions), least=1)
        self.texts = list(interventions)
        self.interventions: list[Mapping[str, Any]] = [parse_do(text) for text in interventions]
        self.differences = differences

    @abstractmethod
    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Titles and variables ``(num_images, *event)`` of the columns."""

    @abstractmethod
    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """A label for each row."""

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Whether every intervention fits the model."""
        self.interventions = [with_class_indices(do, self.class_names) for do in self.interventions]
        for do in self.interventions:
            scm.act(do)
        return None if pictures(scm) else NO_PICTURES

    def _titles(self) -> list[str]:
        """What stands over the columns of interventions."""
        return [format_do(do, self.known_units) for do in self.interventions]

    def draw(
        self, scm: StructuralCausalModel, observations: Variables, split: str
    ) -> Iterator[tuple[str, Figure]]:
        """A grid for each image variable."""
        titles, columns = self.columns(scm, observations)
        labels = self.row_labels(observations, split)
        for name in pictures(scm):
            shown = [
                ImageColumn(
                    title,
                    column[name],
                    captions(scm, column, self.known_units, self.class_names),
                )
                for title, column in zip(titles, columns, strict=True)
            ]
            levels = grey_levels(scm, name)
            yield name, draw_grid(shown, labels, differences=self.differences, levels=levels)


class CounterfactualGrid(_DoGrid):
    """Rows are observations, columns are counterfactuals, with signed difference maps below.

    The first column is the factual. See the base class for the arguments.
    """

    name = "counterfactual"

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """The factual, then every counterfactual, averaged over particles."""
        factual = {name: observations[name] for name in scm.graph.nodes}
        answers = scm.counterfactual(factual, self.interventions, self.num_particles)
        columns = [
            {name: summarise(value[:, k])[0] for name, value in answers.items()}
            for k in range(len(self.interventions))
        ]
        return ["factual", *self._titles()], [factual, *columns]

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """The row of the data that the observation is."""
        count = len(next(iter(observations.values())))
        return observation_labels(observations, split, count)


class InterventionGrid(_DoGrid):
    """Rows are draws of the noise, columns are interventions that all see the same noise.

    The first column is without intervention; the difference maps below show what each
    intervention changes of it. See the base class for the arguments.
    """

    name = "intervention"

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """A sample, then the same noise under every intervention."""
        draws = [
            {name: scm[name].sample_noise((self.num_images,)) for name in scm.graph.nodes}
            for _ in range(self.num_particles)
        ]
        columns = []
        for do in ({}, *self.interventions):
            acted = scm.act(do)
            values = [_spread(scm, acted.predict(noise), self.num_images) for noise in draws]
            columns.append(
                {name: summarise(torch.stack([v[name] for v in values]))[0] for name in values[0]}
            )
        return ["sample", *self._titles()], columns

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """The number of the draw."""
        return [f"noise {k}" for k in range(self.num_images)]


def _spread(scm: StructuralCausalModel, values: Variables, size: int) -> dict[str, Tensor]:
    return {name: value.expand(size, *scm[name].domain.shape) for name, value in values.items()}
