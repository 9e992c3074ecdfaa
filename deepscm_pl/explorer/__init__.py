"""The explorer: a page in the browser that asks a trained model counterfactual questions.

================  ==================================================================
module            contents
================  ==================================================================
``questions``     which variables can be set to which values; answers as plain data
``graph``         the causal graph as boxes and curves
``page``          the page: HTML, styles and script around its data
``static``        one file with the answers on a grid of interventions
================  ==================================================================
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.explorer.graph import GraphDrawing as GraphDrawing, draw_boxes as draw_boxes
    from deepscm_pl.explorer.page import render_page as render_page
    from deepscm_pl.explorer.questions import (
        Cause as Cause,
        Explorer as Explorer,
        Scene as Scene,
        Setting as Setting,
    )
    from deepscm_pl.explorer.static import write_static as write_static

__getattr__ = first_use(__name__)
