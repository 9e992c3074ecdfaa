"""Numbers formatted for reading: few digits, and no exponents in the usual range."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

__all__ = ["MINUS", "exact_digits", "format_number", "shortest"]

MINUS = "\u2212"
"""The minus sign of numbers in pictures and on pages."""

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


def exact_digits(value: Any) -> int:
    """Return the fewest significant digits that read back as a number.

    Args:
        value: A number, or a tensor or array of one, which is compared in its own precision.

    Example:
        >>> exact_digits(0.125), exact_digits(1_200_000), exact_digits(0.1 + 0.2)
        (3, 2, 17)
    """
    number, is_single = float(value), "float32" in str(getattr(value, "dtype", ""))
    for digits in range(1, 17):
        read = float(f"{number:.{digits}g}")
        if read == number or (is_single and _single(read) == _single(number)):
            return digits
    return 17


def shortest(value: Any) -> str:
    """Format a number with the :func:`exact_digits`, without grouping and, if usual, exponent.

    Example:
        >>> shortest(0.1), shortest(-3.0), shortest(1.2e6), shortest(1e-9)
        ('0.1', '-3', '1200000', '1e-09')
    """
    text = f"{float(value):.{exact_digits(value)}g}"
    size = abs(float(value))
    return f"{Decimal(text):f}" if size < _TRILLION and "e-" not in text else text


def _single(number: float) -> bytes:
    try:
        return struct.pack("f", number)
    except OverflowError:
        return b""
