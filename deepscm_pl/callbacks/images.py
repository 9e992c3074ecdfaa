"""Callbacks that draw grids of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from deepscm_pl.callbacks.figure_callback import (
    FigureCallback,
    Figures,
    image_count,
    level_count,
    observation_labels,
    pictures,
)
from deepscm_pl.checks import real_number, whole_number
from deepscm_pl.figures import (
    ImageColumn,
    ImagePanel,
    MatrixAxis,
    captions,
    draw_comparison,
    draw_grid,
    draw_image_matrix,
    draw_samples,
)
from deepscm_pl.interventions import check_do, format_do, parse_do
from deepscm_pl.numerals import format_number
from deepscm_pl.overlap import VERDICTS, OverlapEstimator
from deepscm_pl.scm import StructuralCausalModel, summarise
from deepscm_pl.variables import Do, Noise, Variables

__all__ = [
    "ConditionalSampleGrid",
    "CounterfactualGrid",
    "InterventionGrid",
    "ReconstructionGrid",
    "SampleGrid",
]


class _ImageCallback(FigureCallback):
    """A callback that draws a figure of every image variable."""

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that there is an image."""
        return None if pictures(scm) else "the model has no image of 1 or 3 channels."


class _DoGrid(_ImageCallback):
    """A grid of every image variable, with a column for each intervention.

    Captions name the attributes, and answers that extrapolate from the training data, see
    :class:`~deepscm_pl.overlap.OverlapEstimator`.

    Args:
        interventions: A column each, as text: ``thickness=3``, ``thickness+=1, intensity=100``.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of rows.
        num_particles: Particles that an image is averaged over.
        seed: Seed of the noise.
        differences: Whether to draw, under each image, its signed difference from the first column.

    Raises:
        ValueError: If an intervention cannot be parsed, or a number is less than 1; when the run
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
        for text in self.texts:
            check_do(text)
        self.differences = differences

    @abstractmethod
    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Return titles and variables ``(num_images, *event)`` of the columns."""

    @abstractmethod
    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """Return a label for each row."""

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that every intervention fits the model."""
        for do in self.interventions(scm):
            scm.check_do(do)
        return super().check(scm)

    def interventions(self, scm: StructuralCausalModel) -> list[Do]:
        """Parse the interventions for the variables of a model."""
        return [parse_do(text, scm.variables) for text in self.texts]

    def _titles(self, scm: StructuralCausalModel) -> list[str]:
        return [format_do(do, scm.variables) for do in self.interventions(scm)]

    def _captions(
        self, scm: StructuralCausalModel, columns: Sequence[Variables]
    ) -> Iterator[list[str]]:
        """Yield the captions of the answers to each intervention, with their verdict."""
        known = scm.training_distribution.is_known
        estimator = OverlapEstimator(scm) if known else None
        for do, column in zip(self.interventions(scm), columns, strict=True):
            texts = captions(scm, column)
            if texts and estimator is not None:
                verdicts = estimator.estimate(column, do, quantiles=False).verdict
                marks = [
                    "\nextrapolated" if VERDICTS[k] == "extrapolated" else "" for k in verdicts
                ]
                texts = [text + mark for text, mark in zip(texts, marks, strict=True)]
            yield texts

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw a grid of each image variable."""
        titles, columns = self.columns(scm, observations)
        labels = self.row_labels(observations, split)
        # The first column is without intervention.
        texts = [captions(scm, columns[0]), *self._captions(scm, columns[1:])]
        for name in pictures(scm):
            shown = [
                ImageColumn(title, column[name], text)
                for title, column, text in zip(titles, columns, texts, strict=True)
            ]
            levels = level_count(scm, name)
            yield name, draw_grid(shown, labels, differences=self.differences, levels=levels)


class CounterfactualGrid(_DoGrid):
    """A grid of observations in rows and counterfactuals in columns, with difference maps.

    The first column is the factual; the maps below are signed differences from it.
    """

    name = "counterfactual"

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Return the factual, and every counterfactual averaged over particles."""
        factual = {name: observations[name] for name in scm.graph.nodes}
        answers = scm.counterfactual(factual, self.interventions(scm), self.num_particles)
        columns = [
            {name: summarise(value[:, k])[0] for name, value in answers.items()}
            for k in range(len(self.texts))
        ]
        return ["factual", *self._titles(scm)], [
            factual,
            *columns,
        ]

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """Return the split and row of each observation."""
        count = len(next(iter(observations.values())))
        return observation_labels(observations, split, count)


class InterventionGrid(_DoGrid):
    """A grid of draws of the noise in rows and interventions in columns, with difference maps.

    All columns have the same noise. The first column is without intervention; the maps below are
    signed differences from it.
    """

    name = "intervention"

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check every intervention; draws have no factual values to refer to."""
        for do in self.interventions(scm):
            scm.check_do(do, drawn=True)
        return super().check(scm)

    def columns(
        self, scm: StructuralCausalModel, observations: Variables
    ) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Return a sample, and the same noise under every intervention."""
        questions = [{}, *self.interventions(scm)]
        draws = [scm.intervene(questions, self.num_images) for _ in range(self.num_particles)]
        # Particles, interventions, images.
        means = {n: summarise(torch.stack([each[n] for each in draws]))[0] for n in draws[0]}
        columns = [{n: mean[k] for n, mean in means.items()} for k in range(len(questions))]
        return ["sample", *self._titles(scm)], columns

    def row_labels(self, observations: Variables, split: str) -> list[str]:
        """Return the number of each draw."""
        return [f"noise {k}" for k in range(self.num_images)]


class SampleGrid(_ImageCallback):
    """Samples of the model from the same noise in every epoch, with their attributes as captions.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of samples.
        seed: Seed of the noise.
    """

    name = "sample"

    def __init__(self, every_n_epochs: int = 10, num_images: int = 16, seed: int = 0) -> None:
        self.num_images = image_count(num_images)
        super().__init__(every_n_epochs, num_observations=1, seed=seed)

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw a grid of each image variable."""
        values = scm.sample(self.num_images)
        texts = captions(scm, values)
        for name in pictures(scm):
            yield name, draw_samples(values[name], texts, level_count(scm, name))


class ReconstructionGrid(_ImageCallback):
    """Observations, their reconstructions and the signed differences, one below the other.

    A reconstruction is the image of the most likely noise: for a VAE, that of the posterior mean
    of z without pixel noise.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of observations.
        seed: Seed of the random numbers.
    """

    name = "reconstruction"

    def __init__(self, every_n_epochs: int = 10, num_images: int = 8, seed: int = 0) -> None:
        self.num_images = image_count(num_images)
        super().__init__(every_n_epochs, num_images, seed)

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw a comparison of each image variable."""
        for name in pictures(scm):
            observed = observations[name]
            parents = {parent: observations[parent] for parent in scm.graph.parents[name]}
            labels = observation_labels(observations, split, len(observed))
            reconstructed = scm[name].reconstruct(observed, parents)
            yield name, draw_comparison(observed, reconstructed, labels, level_count(scm, name))


class ConditionalSampleGrid(FigureCallback):
    """Images under do(a, b), with a from left to right and b from bottom to top.

    All cells of a panel have the same noise, so that they differ only in effects of the parents.

    Args:
        parents: One or two scalar parents of the image, the first from left to right. Without,
            each image's first two.
        values: Values of each parent; by default its ``quantiles``, or all of its categories.
        quantiles: Quantiles of the observations, between 0 and 1.
        units: Deprecated; the data give variables their units.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of panels.
        num_observations: Number of observations to compute quantiles from.
        seed: Seed of the noise.

    Raises:
        ValueError: If a number or quantile is out of range; when the run starts, if a parent is
            unknown, not a scalar or no cause of an image, or a value is outside of its domain.

    Example:
        >>> grid = ConditionalSampleGrid(["thickness"], values={"thickness": [1.0, 2.0, 3.0]})
        >>> grid.parents
        ('thickness',)
    """

    name = "conditional_sample"

    def __init__(
        self,
        parents: list[str] | None = None,
        values: dict[str, list[float]] | None = None,
        quantiles: list[float] | None = None,
        units: dict[str, str] | None = None,
        every_n_epochs: int = 10,
        num_images: int = 2,
        num_observations: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs, num_observations, seed, units)
        self.num_images = image_count(num_images)
        self.parents = tuple(parents or ())
        self.values = {name: list(numbers) for name, numbers in (values or {}).items()}
        self.quantiles = list(quantiles) if quantiles is not None else [0.02, 0.25, 0.5, 0.75, 0.98]
        if len(self.parents) > 2 or len(set(self.parents)) < len(self.parents):
            raise ValueError(
                f"parents: expected one or two different variables, but got {self.parents}."
            )
        if not self.quantiles:
            raise ValueError("quantiles: expected numbers between 0 and 1, but got none.")
        for quantile in self.quantiles:
            real_number("quantiles", quantile, least=0, most=1)
        for name, numbers in self.values.items():
            if not numbers:
                raise ValueError(f"values: expected at least one value of {name}, but got none.")
            for number in numbers:
                real_number(f"values.{name}", number)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that images have these parents, and that values are in their domains."""
        axes = {parent for name in pictures(scm) for parent in self.axes(scm, name)}
        possible = {name for image in pictures(scm) for name in _scalar_parents(scm, image)}
        for argument, names in (("parents", self.parents), ("values", self.values)):
            for name in names:
                if name not in (possible if argument == "parents" else axes):
                    raise ValueError(
                        f"{argument}: {name!r} is not a scalar parent of an image that is drawn; "
                        f"expected some of {', '.join(sorted(possible)) or 'none'}."
                    )
        for name, numbers in self.values.items():
            scm.act({name: _as_column(scm, numbers)})
        return None if axes else "no image of the model has a scalar parent."

    def axes(self, scm: StructuralCausalModel, image: str) -> tuple[str, ...]:
        """Return the varying parents of ``image``: from left to right, and from bottom to top."""
        possible = _scalar_parents(scm, image)
        return tuple(name for name in self.parents or possible[:2] if name in possible)

    def needed(self, scm: StructuralCausalModel) -> Sequence[str]:
        """Return the scalar variables."""
        return scm.scalar_variables

    def grid(
        self, scm: StructuralCausalModel, image: str, observations: Variables
    ) -> dict[str, Tensor]:
        """Return the values ``(K,)`` of each varying parent of ``image``."""
        found = {}
        for name in self.axes(scm, image):
            categories = scm[name].domain.categories
            if name in self.values:
                found[name] = _as_column(scm, self.values[name])[:, 0]
            elif categories is not None:
                found[name] = torch.arange(categories).to(observations[name])
            else:
                levels = torch.tensor(self.quantiles).to(observations[name])
                found[name] = observations[name].flatten().quantile(levels)
        return found

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw a panel for each noise of each image."""
        noise = {name: scm[name].sample_noise((self.num_images,)) for name in scm.graph.nodes}
        for image in pictures(scm):
            grid = self.grid(scm, image, observations)
            if not grid:
                continue
            cells = images_over_grid(scm, image, grid, noise).flip(0)
            panels = [ImagePanel(f"noise {k}", cells[:, :, k]) for k in range(self.num_images)]
            described = self.described(scm)
            columns, *rows = [
                MatrixAxis(described[name].label, list(map(format_number, values.tolist())))
                for name, values in grid.items()
            ]
            # As in any plot, values rise from bottom to top.
            upward = [MatrixAxis(axis.label, axis.ticks[::-1]) for axis in rows]
            down = upward[0] if upward else MatrixAxis("", [""])
            yield image, draw_image_matrix(panels, columns, down, level_count(scm, image))


def images_over_grid(
    scm: StructuralCausalModel, image: str, grid: Mapping[str, Tensor], noise: Mapping[str, Noise]
) -> Tensor:
    """Predict images of the same noise under do(a = a_k, b = b_j) for all k and j.

    Args:
        scm: The model.
        image: Name of the image variable.
        grid: One or two variables with their values, ``(K,)`` and ``(J,)``.
        noise: The noise of each variable, with one batch dimension N.

    Returns:
        ``(J, K, N, *event)``; J is 1 for a single variable.
    """
    part = scm.restrict([image])
    first, *second = grid.items()
    do = {first[0]: first[1].view(1, -1, 1, 1)}
    do |= {name: values.view(-1, 1, 1, 1) for name, values in second}
    images = part.act(do).predict(noise)[image]
    rows = len(second[0][1]) if second else 1
    event = scm[image].domain.shape
    size = next(len(value) for parts in noise.values() for value in parts.values())
    return images.expand(rows, len(first[1]), size, *event)


def _scalar_parents(scm: StructuralCausalModel, image: str) -> tuple[str, ...]:
    return tuple(name for name in scm.graph.parents[image] if name in scm.scalar_variables)


def _as_column(scm: StructuralCausalModel, numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=scm.dtype, device=scm.fitted.device)[:, None]
