"""A callback that draws traversals of latent dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
from deepscm_pl.checks import whole_number
from deepscm_pl.figures import ImagePanel, MatrixAxis, draw_image_matrix
from deepscm_pl.mechanisms import Mechanism
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Noise, Variables

__all__ = ["LatentTraversal"]


class LatentTraversal(FigureCallback):
    """Rows are dimensions of z, columns are values of it; all other noise is an observation's.

    Dimensions are ordered and labelled by their information about the observation in nats (see
    :func:`latent_information`). A triangle marks the observation's own value. Models without a
    latent z are skipped with a message.

    Args:
        values: Values of a dimension, a column each; without, −3, −2, …, 3.
        num_dimensions: Number of rows, at most.
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of observations, a panel each.
        num_observations: Number of observations to compute the information from.
        seed: Seed of the draws of z.

    Raises:
        ValueError: If there is no value, or a number is less than 1.
    """

    name = "traversal"

    def __init__(
        self,
        values: list[float] | None = None,
        num_dimensions: int = 8,
        every_n_epochs: int = 10,
        num_images: int = 2,
        num_observations: int = 250,
        seed: int = 0,
    ) -> None:
        self.num_images = image_count(num_images)
        whole_number("num_observations", num_observations, least=1)
        super().__init__(every_n_epochs, max(num_images, num_observations), seed)
        self.num_dimensions = whole_number("num_dimensions", num_dimensions, least=1)
        self.values = tuple(map(float, range(-3, 4) if values is None else values))
        whole_number("number of values", len(self.values), least=1)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Check that an image has a latent."""
        return None if _images_with_latent(scm) else "no image of the model has a latent z."

    def draw(self, scm: StructuralCausalModel, observations: Variables, split: str) -> Figures:
        """Draw a panel for each observation of each image with a latent."""
        names = _images_with_latent(scm)
        factual = {name: observations[name] for name in scm.graph.nodes}
        pair = scm.abduct(factual, num_particles=2) if names else {}
        for name in names:
            first, second = pair[name]["z"].flatten(2)
            information = latent_information(first, second)
            order = information.argsort(descending=True)[: self.num_dimensions].tolist()
            count = min(self.num_images, len(first))
            noise = {key: value[0, :count] for key, value in pair[name].items()}
            parents = {parent: factual[parent][:count] for parent in scm.graph.parents[name]}
            images = traverse(scm[name], noise, parents, order, self.values)
            titles = observation_labels(observations, split, count)
            panels = [
                ImagePanel(title, images[:, :, n], self._marks(first[n, order]))
                for n, title in enumerate(titles)
            ]
            columns = MatrixAxis(
                "value (triangle: the observation's own)",
                [f"{value:g}".replace("-", "−") for value in self.values],
            )
            ticks = [f"z{d}\n{information[d].item():.1f} nats" for d in order]
            rows = MatrixAxis("latent dimension", ticks)
            yield name, draw_image_matrix(panels, columns, rows, level_count(scm, name))

    def _marks(self, own: Tensor) -> list[float]:
        """Return positions of values in columns, interpolated and clamped."""
        order = np.argsort(self.values)
        marks: list[float] = np.interp(
            own.double().numpy(force=True), np.sort(self.values), order
        ).tolist()
        return marks


def latent_information(first: Tensor, second: Tensor) -> Tensor:
    """The information of each dimension of z about an observation, ½ log(V / σ²) nats, ``(D,)``.

    V is the variance of the dimension over draws and observations, σ² that over draws for one
    observation: for normal posteriors of one width, the mutual information. It is 0 for an unused
    dimension.

    Args:
        first: A draw of z for each observation, ``(N, D)``.
        second: Another.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> location = torch.randn(5000, 1) * torch.tensor([1.0, 0.0])
        >>> draws = (location + 0.1 * torch.randn(5000, 2) for _ in range(2))
        >>> [round(nats, 1) for nats in latent_information(*draws).tolist()]
        [2.3, 0.0]
    """
    within = (first - second).square().mean(dim=0) / 2
    total = torch.cat([first, second]).var(dim=0, correction=0)
    smallest = torch.finfo(total.dtype).tiny
    return (0.5 * ((total + smallest) / (within + smallest)).log()).clamp(min=0)


def traverse(
    mechanism: Mechanism,
    noise: Noise,
    parents: Variables,
    dimensions: Sequence[int],
    values: Sequence[float],
) -> Tensor:
    """Predict the recorded images of ``noise`` with one dimension of z at a time set to new values.

    Args:
        mechanism: The image's mechanism.
        noise: ``{"z", ...}`` with one batch dimension N.
        parents: Values of the parents, ``(N, *event)``.
        dimensions: Dimensions of the flattened z, a row each.
        values: A column each.

    Returns:
        ``(dimensions, values, N, *event)``.
    """
    latent = noise["z"]
    flat = latent.flatten(1)
    moved = flat.repeat(len(dimensions), len(values), 1, 1)
    columns = torch.tensor(values).to(flat)
    for row, dimension in enumerate(dimensions):
        moved[row, :, :, dimension] = columns[:, None]
    changed = {**noise, "z": moved.view(*moved.shape[:3], *latent.shape[1:])}
    return mechanism.quantise(mechanism(changed, parents))


def _images_with_latent(scm: StructuralCausalModel) -> tuple[str, ...]:
    with torch.random.fork_rng([]):
        return tuple(name for name in pictures(scm) if "z" in scm[name].sample_noise((1,)))
