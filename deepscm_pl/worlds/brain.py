"""The world of brains: age and sex cause the brain's volume, age and it the ventricles'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepscm_pl.variables import Domain
from deepscm_pl.worlds.base import KnownAttribute, KnownWorld
from deepscm_pl.worlds.heads import TRAITS, HeadGrid, draw_heads, measure_heads
from deepscm_pl.worlds.mechanisms import (
    BoundedRoot,
    Coin,
    Column,
    Columns,
    Effect,
    LogLinearNormal,
)

__all__ = ["BrainWorld"]

_BRAIN, _VENTRICLES = 1.16e6, 31e3
"""Typical volumes at 60 years, in mm³."""


@dataclass(frozen=True)
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
        >>> world = BrainWorld()
        >>> factual = {"age": [50.0], "sex": [0.0], "brain_volume": [1.1e6],
        ...            "ventricle_volume": [25e3]}
        >>> older = world.counterfactual(factual, {"age": 80.0})
        >>> {name: round(float(value[0])) for name, value in older.items()}
        {'age': 80, 'sex': 0, 'brain_volume': 990357, 'ventricle_volume': 64999}
    """

    height: int = 64
    width: int = 64
    depth: int = 0

    name: ClassVar[str] = "brain"

    def __post_init__(self) -> None:
        """Checks the sizes."""
        _ = self.grid

    @property
    def grid(self) -> HeadGrid:
        """Where the elements of an image lie."""
        return HeadGrid((self.height, self.width, *([self.depth] if self.depth else [])))

    @property
    def definitions(self) -> Mapping[str, KnownAttribute]:
        """Age in years, sex, brain and ventricle volume in mm³."""
        brain = LogLinearNormal(
            math.log(_BRAIN), (Effect("age", -0.0035, 60.0), Effect("sex", 0.105, 0.5)), 0.075
        )
        ventricles = LogLinearNormal(
            math.log(_VENTRICLES),
            (Effect("age", 0.035, 60.0), Effect("brain_volume", 0.9, math.log(_BRAIN), log=True)),
            0.4,
        )
        return {
            "age": KnownAttribute(
                BoundedRoot(40.0, 80.0, 0.3, 0.85), "years", Domain(lower=0.0, open=True)
            ),
            "sex": KnownAttribute(Coin(0.5), "", Domain(categories=2)),
            "brain_volume": KnownAttribute(brain, "mm³", Domain(lower=4e5, upper=2.2e6)),
            "ventricle_volume": KnownAttribute(ventricles, "mm³", Domain(lower=1e3, upper=4e5)),
        }

    @property
    def image_attributes(self) -> tuple[str, ...]:
        """The two volumes."""
        return ("brain_volume", "ventricle_volume")

    @property
    def shape_attributes(self) -> tuple[str, ...]:
        """The two volumes."""
        return self.image_attributes

    def draw_originals(self, size: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """What makes heads themselves, ``(N, TRAITS)``."""
        return generator.standard_normal((size, TRAITS)).astype(np.float32)

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
        """Heads with the given volumes."""
        brain, ventricles = (attributes[name] for name in self.image_attributes)
        return draw_heads(originals, brain, ventricles, self.grid)

    def measure(self, images: ArrayLike) -> dict[str, Column]:
        """Brain and ventricle volume, segmented by grey levels."""
        return measure_heads(images, self.grid)._asdict()
