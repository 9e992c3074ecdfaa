"""The world in which thicker digits are brighter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.worlds.base import KnownAttribute
from deepscm_pl.data.worlds.digits import DigitWorld
from deepscm_pl.data.worlds.mechanisms import Columns, LogitNormal, ShiftedGamma, check_linear
from deepscm_pl.morphology import set_intensity, set_thickness
from deepscm_pl.types import Domain

__all__ = ["ThicknessIntensityWorld"]


@dataclass(frozen=True)
class ThicknessIntensityWorld(DigitWorld):
    r"""Digits that are brighter the thicker they are.

    The world of Pawlowski et al. (2020, arXiv:2006.06485, section 4.1):

    .. math::
        t &= 0.5 + g, & g &\sim \Gamma(10, 5) \\
        i &= 64 + 191 \, \sigma(2 (t - 2.5) + 0.5 \, \epsilon), & \epsilon &\sim N(0, 1) \\
        x &= \text{a digit drawn with thickness } t \text{ and intensity } i.

    Args:
        slope: Of the logit of intensity over thickness, per pixel; 2 above.
        centre: Thickness in pixels at which intensity is half-way; 2.5 above.
        spread: Standard deviation of the logit of intensity; 0.5 above.

    Raises:
        ValueError: If ``spread`` is not positive, or a parameter is not finite.

    Example:
        >>> world = ThicknessIntensityWorld()
        >>> factual = {"thickness": [2.5], "intensity": [159.5]}
        >>> thicker = world.counterfactual(factual, {"thickness": lambda t: t + 1})
        >>> {name: values.round(1).tolist() for name, values in thicker.items()}
        {'thickness': [3.5], 'intensity': [232.2]}
    """

    slope: float = 2.0
    centre: float = 2.5
    spread: float = 0.5

    name: ClassVar[str] = "thickness-intensity"

    def __post_init__(self) -> None:
        """Checks the parameters."""
        check_linear(self.slope, self.centre, self.spread)

    @property
    def definitions(self) -> Mapping[str, KnownAttribute]:
        """Thickness in pixels, and intensity in grey levels, which it causes."""
        return {
            "thickness": KnownAttribute(
                ShiftedGamma(offset=0.5, shape=10, rate=5), "pixels", Domain(lower=0.0, open=True)
            ),
            "intensity": KnownAttribute(
                LogitNormal("thickness", self.slope, self.centre, self.spread, low=64, high=255),
                "grey levels",
                Domain(lower=0.0, upper=255.0),
            ),
        }

    @property
    def shape_attributes(self) -> tuple[str, ...]:
        """Thickness."""
        return ("thickness",)

    def shape(self, originals: NDArray[np.uint8], attributes: Columns) -> NDArray[np.uint8]:
        """Digits of the given thickness, in full intensity."""
        return set_thickness(originals, attributes["thickness"])

    def shade(self, shapes: NDArray[np.uint8], attributes: Columns) -> NDArray[np.uint8]:
        """Digits scaled to the given intensity."""
        return set_intensity(shapes, attributes["intensity"])
