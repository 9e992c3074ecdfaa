"""Numbers along axes."""

from __future__ import annotations

import re

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from deepscm_pl.numerals import format_number

__all__ = ["make_ticks_readable"]

_LARGE, _MILLION, _SMALL = 1e4, 1e6, 1e-4
_MOST = 5
"""Intervals between large numbers, which are long."""
_STEPS = (1, 2, 5, 10)
_DIGITS = 6
_EXPONENT = re.compile(r"^1e([-−]?\d+)")
_RAISED = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def make_ticks_readable(axes: Axes) -> None:
    """Write large numbers along both axes in full, or in millions as the label then says.

    Small ones are multiples of a power of ten; axes of everyday numbers stay as they are. Call it
    when everything is drawn and labelled.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().add_subplot(xlim=(0, 60_000), ylim=(0, 2e6), ylabel="volume (mm³)")
        >>> make_ticks_readable(axes)
        >>> [text.get_text() for text in axes.get_xticklabels()][:3]
        ['0', '20,000', '40,000']
        >>> axes.get_ylabel()
        'volume (million mm³)'
    """
    for axis in (axes.xaxis, axes.yaxis):
        _make_readable(axis)


class _PowersOfTen(ScalarFormatter):
    """Numbers, and at the end of the axis the power of ten that they are multiples of."""

    def __init__(self) -> None:
        super().__init__(useMathText=False)

    def get_offset(self) -> str:
        """Such as ``×10⁻⁶``, for figures do without mathematics."""
        return _EXPONENT.sub(
            lambda found: f"×10{found[1].translate(_RAISED)}", super().get_offset()
        )


def _make_readable(axis: Axis) -> None:
    largest = max(abs(end) for end in axis.get_view_interval())
    scale = _MILLION if largest >= _MILLION else 1.0
    if largest >= _LARGE:
        axis.set_major_locator(MaxNLocator(_MOST, steps=_STEPS))
        axis.set_major_formatter(
            FuncFormatter(lambda value, _: format_number(value / scale, _DIGITS))
        )
    elif largest < _SMALL:
        axis.set_major_formatter(_PowersOfTen())
    if scale > 1:
        axis.set_label_text(_in_millions(axis.get_label_text()))


def _in_millions(label: str) -> str:
    """The label of an axis whose numbers are millions."""
    before, bracket, unit = label.partition("(")
    return f"{before}{bracket}million {unit}" if bracket else f"{label} (millions)"
