"""Synthetic worlds: causal models that are known, attributes and images included."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.base import KnownWorld as KnownWorld, Renderer as Renderer
    from deepscm_pl.worlds.brain import BrainWorld as BrainWorld
    from deepscm_pl.worlds.catalogue import (
        DIGIT_WORLDS as DIGIT_WORLDS,
        WORLDS as WORLDS,
        known_world as known_world,
        read_world as read_world,
        write_world as write_world,
    )
    from deepscm_pl.worlds.colour import ColourWorld as ColourWorld
    from deepscm_pl.worlds.digits import (
        DigitWorld as DigitWorld,
        ThicknessIntensityFallingWorld as ThicknessIntensityFallingWorld,
        ThicknessIntensitySlantWorld as ThicknessIntensitySlantWorld,
        ThicknessIntensityWorld as ThicknessIntensityWorld,
        ThicknessSlantWorld as ThicknessSlantWorld,
        ThicknessWidthWorld as ThicknessWidthWorld,
    )

__getattr__ = first_use(__name__)
