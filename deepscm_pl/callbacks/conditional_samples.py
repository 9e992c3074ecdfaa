"""Images over a grid of their parents' values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepscm_pl.callbacks.figure_callback import FigureCallback, image_count
from deepscm_pl.callbacks.variables import (
    grey_levels,
    label_with_unit,
    pictures,
    restrict,
    scalars,
)
from deepscm_pl.checks import real_number
from deepscm_pl.figures import ImagePanel, MatrixAxis, draw_image_matrix
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Noise, Variables

__all__ = ["ConditionalSampleGrid"]


class ConditionalSampleGrid(FigureCallback):
    """Images under do(a, b), a from left to right and b from bottom to top.

    All cells of a panel see the same noise, so what differs is what the parents cause. Every panel
    has noise of its own.

    Args:
        parents: One or two scalar parents of the image, the first from left to right. Without,
            each image's first two.
        values: Values of these; a parent that is not named takes its ``quantiles``, or all of its
            categories.
        quantiles: Which quantiles of the observations to take, between 0 and 1.
        units: Unit of a parent, for the label of its axis: ``{thickness: pixels}``;
            what is not named has that of the data.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of panels.
        num_observations: Observations that quantiles are taken from.
        seed: Seed of the noise.

    Raises:
        ValueError: If a number or quantile is out of range; when the run starts, if a parent is
            unknown, no scalar or causes no image, or a value is outside of its domain.

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
        super().__init__(every_n_epochs, num_observations, seed)
        self.num_images = image_count(num_images)
        self.parents = tuple(parents or ())
        self.values = {name: list(numbers) for name, numbers in (values or {}).items()}
        self.quantiles = list(quantiles) if quantiles is not None else [0.02, 0.25, 0.5, 0.75, 0.98]
        self.units = dict(units or {})
        self._check_arguments()

    def _check_arguments(self) -> None:
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
        """Whether there are images with such parents, that may take such values."""
        axes = {parent for name in pictures(scm) for parent in self.axes(scm, name)}
        possible = {name for image in pictures(scm) for name in _scalar_parents(scm, image)}
        for argument, names in (("parents", self.parents), ("values", self.values)):
            for name in names:
                if name not in (possible if argument == "parents" else axes):
                    raise ValueError(
                        f"{argument}: {name!r} is no scalar parent of an image that is drawn; "
                        f"expected some of {', '.join(sorted(possible)) or 'none'}."
                    )
        unknown = [name for name in self.units if name not in scm.graph]
        if unknown:
            raise ValueError(f"units: unknown variable {unknown[0]!r}.")
        for name, numbers in self.values.items():
            scm.act({name: _column(scm, numbers)})
        return None if axes else "no image of the model has a scalar parent."

    def axes(self, scm: StructuralCausalModel, image: str) -> tuple[str, ...]:
        """The parents of ``image`` that vary: from left to right, then from bottom to top."""
        possible = _scalar_parents(scm, image)
        return tuple(name for name in self.parents or possible[:2] if name in possible)

    def needed(self, scm: StructuralCausalModel) -> Sequence[str]:
        """The parents."""
        return scalars(scm)

    def grid(
        self, scm: StructuralCausalModel, image: str, observations: Variables
    ) -> dict[str, Tensor]:
        """For each varying parent of ``image`` its values, ``(K,)``."""
        found = {}
        for name in self.axes(scm, image):
            categories = scm[name].domain.categories
            if name in self.values:
                found[name] = _column(scm, self.values[name])[:, 0]
            elif categories is not None:
                found[name] = torch.arange(categories).to(observations[name])
            else:
                levels = torch.tensor(self.quantiles).to(observations[name])
                found[name] = observations[name].flatten().quantile(levels)
        return found

    def draw(
        self, scm: StructuralCausalModel, observations: Variables, split: str
    ) -> Iterator[tuple[str, Figure]]:
        """For each image a panel for each noise."""
        noise = {name: scm[name].sample_noise((self.num_images,)) for name in scm.graph.nodes}
        for image in pictures(scm):
            grid = self.grid(scm, image, observations)
            if not grid:
                continue
            cells = images_over_grid(scm, image, grid, noise).flip(0)
            panels = [ImagePanel(f"noise {k}", cells[:, :, k]) for k in range(self.num_images)]
            columns, *rows = [
                MatrixAxis(
                    label_with_unit(name, self.known_units),
                    [format_number(value) for value in values.tolist()],
                )
                for name, values in grid.items()
            ]
            # As in any plot, values rise from bottom to top.
            upward = [MatrixAxis(axis.label, axis.ticks[::-1]) for axis in rows]
            down = upward[0] if upward else MatrixAxis("", [""])
            yield image, draw_image_matrix(panels, columns, down, grey_levels(scm, image))


def images_over_grid(
    scm: StructuralCausalModel, image: str, grid: Mapping[str, Tensor], noise: Mapping[str, Noise]
) -> Tensor:
    """The images that ``noise`` gives under do(a = a_k, b = b_j), for all k and j at once.

    Args:
        scm: The model.
        image: The variable to look at.
        grid: One or two variables with their values, ``(K,)`` and ``(J,)``.
        noise: For each variable its noise, with one batch dimension N.

    Returns:
        ``(J, K, N, *event)``; J is 1 for a single variable.
    """
    part = restrict(scm, [image])
    first, *second = grid.items()
    do = {first[0]: first[1].view(1, -1, 1, 1)}
    do |= {name: values.view(-1, 1, 1, 1) for name, values in second}
    images = part.act(do).predict(noise)[image]
    rows = len(second[0][1]) if second else 1
    event = scm[image].domain.shape
    size = next(len(value) for parts in noise.values() for value in parts.values())
    return images.expand(rows, len(first[1]), size, *event)


def _scalar_parents(scm: StructuralCausalModel, image: str) -> tuple[str, ...]:
    return tuple(name for name in scm.graph.parents[image] if name in scalars(scm))


def _column(scm: StructuralCausalModel, numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=scm.dtype, device=scm.fitted.device)[:, None]
