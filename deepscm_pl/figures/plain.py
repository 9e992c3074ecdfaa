"""Figures whose texts are texts, whatever characters they have."""

from __future__ import annotations

from matplotlib import rc_context
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter

from deepscm_pl.escaping import for_picture

__all__ = ["PlainFigure"]


class PlainFigure(Figure):
    """A figure that draws dollar signs and backslashes as they are, not as mathematics.

    Names of classes and units come from files: as mathematics, ``$x^{$`` would end the program, and
    TeX could read files. Whoever draws the figure, a file, a notebook or TensorBoard, its texts are
    plain, without characters that have no picture, and not longer than a picture can be.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure, its texts as they are."""
        for text in self.findobj(Text):
            _make_plain(text)
        for axis in self.findobj(Axis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, ScalarFormatter):
                formatter.set_usetex(False)
                formatter.set_useMathText(False)
        # For the ticks that are made on the way.
        with rc_context({"text.parse_math": False, "text.usetex": False}):
            super().draw(renderer)


def _make_plain(text: Text) -> None:
    text.set_usetex(False)
    text.set_parse_math(False)
    shown = for_picture(text.get_text())
    if shown != text.get_text():
        text.set_text(shown)
