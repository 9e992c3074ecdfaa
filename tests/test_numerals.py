"""Formatted numbers are short and equal to the rounded value."""

from __future__ import annotations

import math

import pytest

from deepscm_pl.numerals import format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-0.25, "-0.25"),
        (63.827, "63.8"),
        (999.6, "1000"),
        (9994.0, "9990"),
        (9996.0, "10,000"),
        (31_234.0, "31,200"),
        (-999_400.0, "-999,000"),
        (999_600.0, "1 million"),
        (1_031_234.0, "1.03 million"),
        (1_234_567_890.0, "1,230 million"),
        (3.25e12, "3.25e+12"),
        (2.5e-6, "2.5e-06"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_of_three_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize("digits", [3, 4, 6])
@pytest.mark.parametrize("exponent", range(-4, 11))
def test_formatted_numbers_equal_the_rounded_value(digits, exponent):
    for mantissa in (1.0, 1.23456, -4.5, 9.99999):
        value = mantissa * 10.0**exponent
        number, *million = format_number(value, digits).replace(",", "").split()
        read = float(number) * (1e6 if million else 1)
        assert read == pytest.approx(value, rel=0.5 * 10 ** (1 - digits))
        assert "e" not in number


@pytest.mark.parametrize("value", [0.5, 3.0, 127.456, -35.0, 999.0])
def test_common_numbers_are_formatted_like_python(value):
    assert format_number(value) == f"{value:.3g}"
    assert format_number(value, 6) == f"{value:g}"
