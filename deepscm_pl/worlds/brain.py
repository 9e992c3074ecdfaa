"""The world of brains, whose volumes depend on age and sex."""

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
from deepscm_pl.worlds.base import Attributes, KnownWorld, Renderer
from deepscm_pl.worlds.heads import TRAITS, HeadGrid, draw_heads, measure_heads

__all__ = ["BrainWorld"]

_BRAIN, _VENTRICLES = 1.16e6, 31e3
"""Typical volumes at 60 years, in mm³."""


@dataclass(frozen=True)
class HeadRenderer(Renderer):
    """Heads with given volumes of brain and ventricles; an original is 40 traits."""

    grid: HeadGrid

    attributes = ("brain_volume", "ventricle_volume")

    def check_originals(self, originals: ArrayLike) -> NDArray[np.float32]:
        """Check that the originals are finite traits of heads, ``(N, TRAITS)``."""
        traits = np.asarray(originals, dtype=np.float32)
        if traits.ndim != 2 or traits.shape[1] != TRAITS or not np.isfinite(traits).all():
            raise ValueError(
                f"originals: expected finite traits of shape (N, {TRAITS}), as draw_originals "
                f"gives them, but got shape {traits.shape}."
            )
        return traits

    def drawn_shape(self, originals: NDArray[Any]) -> tuple[int, ...]:
        """The shape of one slice or volume for each original."""
        return (len(originals), *self.grid.shape)

    def shape(self, originals: NDArray[Any], attributes: Attributes) -> NDArray[np.uint8]:
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

    with volumes in mm³. The image is a phantom of a head whose brain, ventricles included, has
    exactly the volume b and whose ventricles have the volume v. All other features of a head, from
    the folds of its cortex to the noise of its image, depend on the noise of the image: 40 standard
    normal numbers, its original.

    Args:
        height: Rows of a slice, or voxels of a volume from left to right.
        width: Columns of a slice, or voxels of a volume from back to front.
        depth: Voxels of a volume from bottom to top; 0 for a slice.

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
        """Draw the traits of heads, ``(N, TRAITS)``."""
        return generator.standard_normal((size, TRAITS)).astype(np.float32)
