"""Synthetic worlds: causal models that are known, attributes and images included."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.base import KnownWorld, Renderer
    from deepscm_pl.worlds.brain import BrainWorld
    from deepscm_pl.worlds.catalogue import (
        DIGIT_WORLDS,
        WORLDS,
        known_world,
        read_world,
        write_world,
    )
    from deepscm_pl.worlds.digits import (
        DigitWorld,
        ThicknessIntensityFallingWorld,
        ThicknessIntensityWorld,
        ThicknessSlantWorld,
        ThicknessWidthWorld,
    )

__all__ = [
    "DIGIT_WORLDS",
    "WORLDS",
    "BrainWorld",
    "DigitWorld",
    "KnownWorld",
    "Renderer",
    "ThicknessIntensityFallingWorld",
    "ThicknessIntensityWorld",
    "ThicknessSlantWorld",
    "ThicknessWidthWorld",
    "known_world",
    "read_world",
    "write_world",
]

__getattr__ = first_use(__name__)
