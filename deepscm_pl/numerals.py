"""Numbers formatted for reading: few digits, and no exponents in the usual range."""

from __future__ import annotations

import math
from decimal import Decimal

__all__ = ["format_number"]

_MILLION, _TRILLION = 1e6, 1e12
_GROUPED = 1e4
"""Smallest number whose digits are grouped."""


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with some significant digits, large ones grouped or in millions.

    Numbers below 0.0001 and from 10¹² on have an exponent. Trailing zeros are omitted.

    Example:
        >>> [format_number(value) for value in (0.5, 203.4, 1234, 31_234, 1_031_234)]
        ['0.5', '203', '1230', '31,200', '1.03 million']
        >>> format_number(1_234_567, digits=6)
        '1.23457 million'
    """
    text = f"{value:.{digits}g}"
    size = abs(float(text))
    if not math.isfinite(value) or "e-" in text or size >= _TRILLION:
        return text
    if size >= _MILLION:
        return f"{Decimal(text).scaleb(-6):,f} million"
    return f"{Decimal(text):,f}" if size >= _GROUPED else f"{Decimal(text):f}"
