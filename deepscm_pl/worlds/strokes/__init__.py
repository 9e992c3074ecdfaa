"""Measurement and modification of the shape of handwritten digits.

After Castro et al., "Morpho-MNIST: Quantitative Assessment and Diagnostics for Representation
Learning" (2019, arXiv:1809.01181).
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.strokes.deform import set_slant, set_width
    from deepscm_pl.worlds.strokes.morphometrics import Morphometrics, measure, measure_intensity
    from deepscm_pl.worlds.strokes.render import set_intensity, set_thickness

__all__ = [
    "Morphometrics",
    "measure",
    "measure_intensity",
    "set_intensity",
    "set_slant",
    "set_thickness",
    "set_width",
]

__getattr__ = first_use(__name__)
