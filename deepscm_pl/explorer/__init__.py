"""The explorer: pages in the browser that ask a trained model counterfactual questions.

================  ==================================================================
module            contents
================  ==================================================================
``questions``     which variables can be set to which values; answers as plain data
``programs``      a question as a command and as a program
``graph``         the causal graph as boxes and curves
``page``          the page of one file: HTML, styles and script around its data
``static``        one file with the answers on a grid of interventions
``abduction``     the noise of an observation, inferred once for many questions
``session``       the visitors of the live page, their questions and the answers
``uploads``       observations from files of a visitor
``exports``       files of an answer
``parts``         the parts of the live page as HTML
``curves``        its effect curves as pictures
``live``          its port, its temporary folder, and its end
``server``        the live page with Gradio
``space``         a folder that runs as a Space of Hugging Face
================  ==================================================================
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.explorer.abduction import Abduction as Abduction
    from deepscm_pl.explorer.exports import export_answer as export_answer
    from deepscm_pl.explorer.graph import GraphDrawing as GraphDrawing, draw_boxes as draw_boxes
    from deepscm_pl.explorer.live import Place as Place, serve as serve
    from deepscm_pl.explorer.page import render_page as render_page
    from deepscm_pl.explorer.programs import Programs as Programs
    from deepscm_pl.explorer.questions import (
        Cause as Cause,
        Explorer as Explorer,
        Scene as Scene,
        Setting as Setting,
    )
    from deepscm_pl.explorer.session import (
        Details as Details,
        Observation as Observation,
        Question as Question,
        Reply as Reply,
        Session as Session,
        Visit as Visit,
    )
    from deepscm_pl.explorer.static import write_static as write_static
    from deepscm_pl.explorer.uploads import read_uploads as read_uploads

__getattr__ = first_use(__name__)
