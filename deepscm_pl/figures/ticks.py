"""Numbers along axes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from deepscm_pl.numerals import format_number

__all__ = ["make_ticks_readable"]

_LARGE, _SMALL = 1e4, 1e-4
_MOST = 5
"""Intervals between large numbers, which are long."""
_DIGITS = 6


def make_ticks_readable(axes: Axes) -> None:
    """Write large numbers along both axes in full and small ones as multiples of a power of ten.

    Call it when everything is drawn. Axes of everyday numbers stay as they are.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().add_subplot(xlim=(0, 60_000))
        >>> make_ticks_readable(axes)
        >>> [text.get_text() for text in axes.get_xticklabels()][:3]
        ['0', '20,000', '40,000']
    """
    for axis in (axes.xaxis, axes.yaxis):
        _make_readable(axis)


def _make_readable(axis: Axis) -> None:
    largest = max(abs(end) for end in axis.get_view_interval())
    if largest >= _LARGE:
        axis.set_major_locator(MaxNLocator(_MOST))
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value, _DIGITS)))
    elif largest < _SMALL:
        axis.set_major_formatter(ScalarFormatter(useMathText=True))
