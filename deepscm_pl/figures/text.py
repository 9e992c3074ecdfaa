"""Texts of pictures: where their lines break, and how much room they take."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from deepscm_pl.escaping import for_picture

__all__ = ["height_of", "width_of", "wrapped"]

_POINTS_PER_INCH = 72
_LINE = 1.25
"""Distance of two lines of text, in font sizes."""


def wrapped(text: str, width: int) -> str:
    """Lines of at most ``width`` characters, as far as they can be broken after commas.

    A part between commas that is longer is broken at spaces; a word never is, nor ``1.2 million``.

    Example:
        >>> print(wrapped("do(thickness = 1.5, intensity = 224)", width=20))
        do(thickness = 1.5,
        intensity = 224)
    """
    parts = for_picture(text).replace(" million", "\u00a0million").split(", ")
    # The length with its comma.
    tied = [each.replace(" ", "\u00a0") if len(each) < width else each for each in parts]
    lines = fill(", ".join(tied), width, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\u00a0", " ")


def width_of(texts: Iterable[str], size: float) -> float:
    """The width in inches of the widest line of some texts in a font of ``size`` points."""
    lines = [line for text in texts for line in for_picture(text).split("\n") if line.strip()]
    font = FontProperties(size=size)
    widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
    return float(max(widths, default=0.0)) / _POINTS_PER_INCH


def height_of(texts: Iterable[str], size: float) -> float:
    """The height in inches of the text of most lines in a font of ``size`` points."""
    lines = max((for_picture(text).count("\n") + 1 for text in texts), default=0)
    return lines * _LINE * size / _POINTS_PER_INCH
