"""The world in which thicker digits are darker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deepscm_pl.data.worlds.thickness_intensity import ThicknessIntensityWorld

__all__ = ["ThicknessIntensityFallingWorld"]


@dataclass(frozen=True)
class ThicknessIntensityFallingWorld(ThicknessIntensityWorld):
    r"""Digits that are darker the thicker they are.

    The inverted variant of the public generator of Pawlowski et al. (2020, arXiv:2006.06485):

    .. math::
        t &= 0.5 + g, & g &\sim \Gamma(10, 5) \\
        i &= 64 + 191 \, \sigma(-2 (t - 2) + 0.5 \, \epsilon), & \epsilon &\sim N(0, 1) \\
        x &= \text{a digit drawn with thickness } t \text{ and intensity } i.

    Args:
        slope: Of the logit of intensity over thickness, per pixel; -2 above.
        centre: Thickness in pixels at which intensity is half-way; 2 above.
        spread: Standard deviation of the logit of intensity; 0.5 above.

    Raises:
        ValueError: If ``spread`` is not positive.

    Example:
        >>> factual = {"thickness": [2.5], "intensity": [159.5]}
        >>> do = {"thickness": 3.5}
        >>> ThicknessIntensityFallingWorld().counterfactual(factual, do)["intensity"].round(1)
        array([86.8])
    """

    slope: float = -2.0
    centre: float = 2.0

    name: ClassVar[str] = "thickness-intensity-falling"
