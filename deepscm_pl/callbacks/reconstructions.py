"""Observations beside their reconstructions."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from deepscm_pl.callbacks.figure_callback import FigureCallback, image_count
from deepscm_pl.callbacks.variables import NO_PICTURES, grey_levels, observation_labels, pictures
from deepscm_pl.figures import draw_comparison
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = ["ReconstructionGrid"]


class ReconstructionGrid(FigureCallback):
    """Observations, their reconstructions, and the signed difference, one below the other.

    A reconstruction is the image that the most likely noise gives: for a VAE, the decoder at the
    posterior mean of z, without pixel noise.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of observations.
        seed: Seed of the random numbers.

    Raises:
        ValueError: If a number is less than 1.

    Example:
        >>> ReconstructionGrid(num_images=12).num_images
        12
    """

    name = "reconstruction"

    def __init__(self, every_n_epochs: int = 10, num_images: int = 8, seed: int = 0) -> None:
        self.num_images = image_count(num_images)
        super().__init__(every_n_epochs, num_images, seed)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Whether there is an image."""
        return None if pictures(scm) else NO_PICTURES

    def draw(
        self, scm: StructuralCausalModel, observations: Variables, split: str
    ) -> Iterator[tuple[str, Figure]]:
        """A comparison for each image variable."""
        for name in pictures(scm):
            observed = observations[name]
            parents = {parent: observations[parent] for parent in scm.graph.parents[name]}
            labels = observation_labels(observations, split, len(observed))
            reconstructed = scm[name].reconstruct(observed, parents)
            yield name, draw_comparison(observed, reconstructed, labels, grey_levels(scm, name))
