"""Synthetic worlds: causal models that are known, attributes and images included."""

from deepscm_pl.data.worlds.base import KnownAttribute, KnownDo, KnownWorld, within
from deepscm_pl.data.worlds.brain import BrainWorld
from deepscm_pl.data.worlds.catalogue import (
    DIGIT_WORLDS,
    WORLDS,
    known_world,
    read_world,
    write_world,
)
from deepscm_pl.data.worlds.digits import DigitWorld
from deepscm_pl.data.worlds.thickness_intensity import ThicknessIntensityWorld
from deepscm_pl.data.worlds.thickness_intensity_falling import ThicknessIntensityFallingWorld
from deepscm_pl.data.worlds.thickness_slant import ThicknessSlantWorld
from deepscm_pl.data.worlds.thickness_width import ThicknessWidthWorld

__all__ = [
    "DIGIT_WORLDS",
    "WORLDS",
    "BrainWorld",
    "DigitWorld",
    "KnownAttribute",
    "KnownDo",
    "KnownWorld",
    "ThicknessIntensityFallingWorld",
    "ThicknessIntensityWorld",
    "ThicknessSlantWorld",
    "ThicknessWidthWorld",
    "known_world",
    "read_world",
    "within",
    "write_world",
]
