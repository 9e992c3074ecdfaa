"""The world of brains: age and sex cause the brain's volume, age and it the ventricles'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.distributions import AffineTransform, ExpTransform, Transform

from deepscm_pl.mechanisms.known import Known, KnownCoin, Logistic
from deepscm_pl.scm import MechanismFactory, StructuralCausalModel
from deepscm_pl.variables import Domain, Variables
from deepscm_pl.worlds.base import KnownWorld, Renderer
from deepscm_pl.worlds.digits import Columns
from deepscm_pl.worlds.heads import TRAITS, HeadGrid, draw_heads, measure_heads

__all__ = ["BrainWorld"]

_BRAIN, _VENTRICLES = 1.16e6, 31e3
"""Typical volumes at 60 years, in mm³."""


@dataclass(frozen=True)
class HeadRenderer(Renderer):
    """Heads with given volumes of brain and ventricles; an original is 40 traits.

    Args:
        grid: Where the pixels or voxels of an image lie.
    """

    grid: HeadGrid

    attributes = ("brain_volume", "ventricle_volume")

    def check_originals(self, originals: ArrayLike) -> NDArray[np.float32]:
        """Traits of heads, ``(N, TRAITS)``.

        Raises:
            ValueError: If they are of another shape or not finite.
        """
        traits = np.asarray(originals, dtype=np.float32)
        if traits.ndim != 2 or traits.shape[1] != TRAITS or not np.isfinite(traits).all():
            raise ValueError(
                f"originals: expected finite traits of shape (N, {TRAITS}), as draw_originals "
                f"gives them, but got shape {traits.shape}."
            )
        return traits

    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """A slice or a volume for each."""
        return (len(originals), *self.grid.shape)

    def shape(self, originals: NDArray[Any], attributes: Columns) -> NDArray[np.uint8]:
        """Draw heads with the given volumes."""
        brain, ventricles = (attributes[name] for name in self.attributes)
        return draw_heads(originals, brain, ventricles, self.grid)

    def measure(self, images: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Measure brain and ventricle volume, segmented by grey levels."""
        return measure_heads(images, self.grid)._asdict()


def _age(parents: Variables) -> list[Transform]:
    return [AffineTransform(0.3, 0.85), Logistic(40.0, 80.0)]


def _brain_volume(parents: Variables) -> list[Transform]:
    effects = -0.0035 * (parents["age"] - 60.0) + 0.105 * (parents["sex"] - 0.5)
    return [AffineTransform(effects + math.log(_BRAIN), 0.075), ExpTransform()]


def _ventricle_volume(parents: Variables) -> list[Transform]:
    brain = 0.9 * (parents["brain_volume"].log() - math.log(_BRAIN))
    effects = 0.035 * (parents["age"] - 60.0) + brain
    return [AffineTransform(effects + math.log(_VENTRICLES), 0.4), ExpTransform()]


_MECHANISMS: Mapping[str, MechanismFactory] = {
    "age": partial(Known, layers=_age, domain=Domain(lower=0.0, open=True)),
    "sex": partial(KnownCoin, probability=0.5),
    "brain_volume": partial(Known, layers=_brain_volume, domain=Domain(lower=4e5, upper=2.2e6)),
    "ventricle_volume": partial(
        Known, layers=_ventricle_volume, domain=Domain(lower=1e3, upper=4e5)
    ),
}


class BrainWorld(KnownWorld):
    r"""Heads in which brains shrink and ventricles grow with age.

    The graph of Pawlowski et al. (2020, arXiv:2006.06485, section 4.2), with equations of our own
    and magnitudes like those of the UK Biobank:

    .. math::
        a &= 40 + 40\,\sigma(0.3 + 0.85\,\epsilon_a) \text{ years} \\
        s &\sim \text{Bernoulli}(\tfrac12), \quad 1 \text{ is male} \\
        \log b &= \log 1.16 \cdot 10^6 - 0.0035\,(a - 60) + 0.105\,(s - \tfrac12)
            + 0.075\,\epsilon_b \\
        \log v &= \log 31 \cdot 10^3 + 0.035\,(a - 60) + 0.9 \log (b / 1.16 \cdot 10^6)
            + 0.4\,\epsilon_v

    with volumes in mm³; the image is a phantom of a head in which the brain, ventricles included,
    has the volume b, and the ventricles v, exactly. What makes a head itself, from the folds of its
    cortex to the noise of its image, is the noise of the image: 40 standard normal numbers, its
    original.

    Args:
        height: Elements of the image: rows of a slice, or left to right of a volume.
        width: Columns of a slice, or back to front of a volume.
        depth: Bottom to top of a volume; 0 for a slice.

    Raises:
        ValueError: If a size is too small.

    Example:
        >>> import torch
        >>> scm = BrainWorld().scm
        >>> values = [50.0, 0.0, 1.1e6, 25e3]
        >>> factual = {name: torch.tensor([[v]]) for name, v in zip(scm.graph.nodes, values)}
        >>> older = scm.counterfactual(factual, {"age": 80.0})
        >>> {name: round(value.item()) for name, value in older.items()}
        {'age': 80, 'sex': 0, 'brain_volume': 990357, 'ventricle_volume': 64999}
    """

    name = "brain"

    def __init__(self, height: int = 64, width: int = 64, depth: int = 0) -> None:
        self.grid = HeadGrid((height, width, *([depth] if depth else [])))
        scm = StructuralCausalModel(
            "age; sex; age, sex -> brain_volume; age, brain_volume -> ventricle_volume", _MECHANISMS
        )
        super().__init__(
            self.name,
            scm,
            HeadRenderer(self.grid),
            {"age": "years", "sex": "", "brain_volume": "mm³", "ventricle_volume": "mm³"},
            {"height": height, "width": width, "depth": depth},
        )

    def draw_originals(self, size: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draw what makes heads themselves, ``(N, TRAITS)``."""
        return generator.standard_normal((size, TRAITS)).astype(np.float32)
