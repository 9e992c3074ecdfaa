"""Inferred noise against its prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepscm_pl.callbacks.figure_callback import FigureCallback
from deepscm_pl.figures import draw_noise
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.types import Variables

__all__ = ["NoiseHistograms"]

_AT_ONCE = 250


class NoiseHistograms(FigureCallback):
    """The noise inferred from observations, beside the N(0, 1) that it should have over the data.

    A histogram for each scalar's u and for the u of all pixels of an image together; for an
    image's z, mean and standard deviation of each dimension over the observations. Noise that is
    no standard normal, or depends on the parents, says that a mechanism does not fit its data.
    Categories, whose noise is not normal, are left out.

    Args:
        every_n_epochs: Draw after every so many epochs, and after the last.
        num_observations: Observations to infer the noise of.
        seed: Seed of the draws of z.

    Raises:
        ValueError: If a number is less than 1.

    Example:
        >>> NoiseHistograms(num_observations=500).num_observations
        500
    """

    name = "noise"

    def __init__(
        self, every_n_epochs: int = 10, num_observations: int = 1000, seed: int = 0
    ) -> None:
        super().__init__(every_n_epochs, num_observations, seed)

    def check(self, scm: StructuralCausalModel) -> str | None:
        """Whether there is noise to infer."""
        if all(scm[name].domain.categories is not None for name in scm.graph.nodes):
            return "all variables of the model are categories."
        return None

    def draw(
        self, scm: StructuralCausalModel, observations: Variables, split: str
    ) -> Iterator[tuple[str, Figure]]:
        """One figure, ``inferred``, of all noise."""
        histograms: dict[str, Tensor] = {}
        latents: dict[str, Tensor] = {}
        for name, parts in infer_noise(scm, observations).items():
            if scm[name].domain.categories is not None:
                continue
            for key, value in parts.items():
                if key == "z":
                    latents[f"z of {name}"] = value.flatten(1)
                else:
                    pooled = "" if value[0].numel() == 1 else ", all pixels"
                    histograms[f"{key} of {name}{pooled}"] = value
        if histograms or latents:
            yield "inferred", draw_noise(histograms, latents)


def infer_noise(
    scm: StructuralCausalModel, observations: Variables
) -> Mapping[str, Mapping[str, Tensor]]:
    """For each variable its noise, one draw for each observation, ``(N, ...)``.

    Observations go through the networks a few hundred at a time, so that memory stays small.
    """
    rows = range(0, len(observations[scm.graph.nodes[0]]), _AT_ONCE)
    parts = [
        scm.abduct({name: observations[name][k : k + _AT_ONCE] for name in scm.graph.nodes})
        for k in rows
    ]
    return {
        name: {key: torch.cat([part[name][key][0] for part in parts]) for key in parts[0][name]}
        for name in scm.graph.nodes
    }
