"""Synthetic heads with known brain and ventricle volumes, and their measurement."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.heads.anatomy import TRAITS, Anatomy
    from deepscm_pl.worlds.heads.drawing import draw_heads, draw_labels
    from deepscm_pl.worlds.heads.grid import HeadGrid
    from deepscm_pl.worlds.heads.measure import HeadMeasurements, measure_heads
    from deepscm_pl.worlds.heads.tissue import TISSUES

__all__ = [
    "TISSUES",
    "TRAITS",
    "Anatomy",
    "HeadGrid",
    "HeadMeasurements",
    "draw_heads",
    "draw_labels",
    "measure_heads",
]

__getattr__ = first_use(__name__)
