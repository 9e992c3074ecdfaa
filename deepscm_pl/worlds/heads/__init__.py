"""Synthetic heads with known brain and ventricle volumes, and their measurement."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.heads.anatomy import TRAITS as TRAITS, Anatomy as Anatomy
    from deepscm_pl.worlds.heads.drawing import draw_heads as draw_heads, draw_labels as draw_labels
    from deepscm_pl.worlds.heads.grid import HeadGrid as HeadGrid
    from deepscm_pl.worlds.heads.measure import (
        HeadMeasurements as HeadMeasurements,
        measure_heads as measure_heads,
    )
    from deepscm_pl.worlds.heads.tissue import TISSUES as TISSUES

__getattr__ = first_use(__name__)
