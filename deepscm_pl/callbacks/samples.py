"""Samples of the model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.figure import Figure

from deepscm_pl.callbacks.figure_callback import FigureCallback, image_count
from deepscm_pl.callbacks.variables import NO_PICTURES, grey_levels, pictures
from deepscm_pl.figures import ImageColumn, captions, draw_grid
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = ["SampleGrid"]

_COLUMNS = 8


class SampleGrid(FigureCallback):
    """Samples of the model, each with its attributes as caption: the same noise in every epoch.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_images: Number of samples.
        seed: Seed of the noise.

    Raises:
        ValueError: If a number is less than 1.

    Example:
        >>> SampleGrid(num_images=24, seed=3).seed
        3
    """

    name = "sample"

    def __init__(self, every_n_epochs: int = 10, num_images: int = 16, seed: int = 0) -> None:
        self.num_images = image_count(num_images)
        super().__init__(every_n_epochs, num_observations=1, seed=seed)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Whether there is an image."""
        return None if pictures(scm) else NO_PICTURES

    def draw(
        self, scm: StructuralCausalModel, observations: Variables, split: str
    ) -> Iterator[tuple[str, Figure]]:
        """A grid for each image variable."""
        values = scm.sample(self.num_images)
        texts = captions(scm, values, self.known_units, self.class_names)
        for name in pictures(scm):
            # A volume is shown as three planes.
            most = _COLUMNS if values[name].dim() == 4 else _COLUMNS // 2
            rows = math.ceil(self.num_images / most)
            columns = math.ceil(self.num_images / rows)
            levels = grey_levels(scm, name)
            # White where the last row has no more samples.
            padded = values[name].new_full((rows * columns, *values[name].shape[1:]), levels - 1)
            padded[: self.num_images] = values[name]
            shown = [ImageColumn("", padded[k::columns], texts[k::columns]) for k in range(columns)]
            yield name, draw_grid(shown, [""] * rows, differences=False, levels=levels)
