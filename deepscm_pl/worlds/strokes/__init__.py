"""Measurement and modification of the shape of handwritten digits.

After Castro et al., "Morpho-MNIST: Quantitative Assessment and Diagnostics for Representation
Learning" (2019, arXiv:1809.01181).
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.worlds.strokes.deform import set_slant as set_slant, set_width as set_width
    from deepscm_pl.worlds.strokes.morphometrics import (
        Morphometrics as Morphometrics,
        measure as measure,
        measure_intensity as measure_intensity,
    )
    from deepscm_pl.worlds.strokes.render import (
        set_intensity as set_intensity,
        set_thickness as set_thickness,
    )

__getattr__ = first_use(__name__)
