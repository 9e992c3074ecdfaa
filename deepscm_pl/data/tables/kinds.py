"""The kinds of columns: numbers and classes, inferred with a reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.tables.numbers import is_number

__all__ = [
    "FEW_LEVELS",
    "MANY_ZEROS",
    "AttributeKind",
    "are_dates",
    "are_identifiers",
    "are_repeated",
    "is_date",
    "kind_of_numbers",
    "order_of",
    "standard_bounds",
    "step_of",
]

AttributeKind = Literal[
    "continuous", "positive", "bounded", "count", "ordinal", "binary", "categorical"
]
"""Kinds of attributes: any numbers, positive numbers, numbers of an interval, whole numbers from 0,
ordered classes, two classes, or more classes without an order."""

FEW_LEVELS = 20
"""The largest number of different texts in an inferred category, and of values in a count that has
few zeros."""

MANY_ZEROS = 0.1
"""The share of a single value, such as zero, from which on it has a probability of its own."""

_MOST_COMMON = 0.9  # share of the numbers that are not in the upper tail of a count
_FEW_ROWS = 10  # too few to take different texts for identifiers
_ROWS_OF_A_UNIT = 20  # the most rows that a person has on average
_STEPS = (1.0, 0.5, 0.1, 0.05, 0.01)

_UNITS = re.compile(
    r"((participant|subject|patient|person|case|record|ptid|user)s?"
    r"([_ ]?(id|no|nr|number|code))?|e?id|ids|identifier|rid|uid|guid|iid)",
    re.IGNORECASE,
)
_NAMES = re.compile(r".*(id|identifier|name|number|code)|index|row|nr|no", re.IGNORECASE)

_SCALES = tuple(
    tuple(scale.split("|"))
    for scale in (
        "none|minimal|very mild|mild|moderate|severe|very severe|extreme",
        "very low|low|medium|high|very high",
        "very low|low|normal|high|very high",
        "low|mid|high",
        "low|middle|high",
        "low|average|high",
        "low|moderate|high",
        "very small|small|medium|large|very large",
        "never|rarely|sometimes|often|always",
        "never|seldom|sometimes|usually|always",
        "poor|fair|good|very good|excellent",
        "bad|fair|good|very good|excellent",
        "strongly disagree|disagree|neutral|agree|strongly agree",
        "young|middle-aged|old",
        "young|middle|old",
        "i|ii|iii|iv|v",
    )
)
"""Names of classes in ascending order."""

_NUMBERED = re.compile(
    r"(?P<word>grade|stage|level|degree|quartile|quintile|tertile|decile|step|phase|score)"
    r"[\s_-]*(?P<number>\d+|[ivx]+)",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"(?P<sign>[<>≤≥]=?)?\s*(?P<low>\d+(?:\.\d+)?)(?:\s*[-–]\s*\d+(?:\.\d+)?|\+)?(?P<unit>\s*[a-z%°]+)?",
    re.IGNORECASE,
)
_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")

_DATE = re.compile(
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    r"|\d{1,2}[-\s.]*(?P<a>[a-z]{3,9})[-\s.,]*\d{2,4}|(?P<b>[a-z]{3,9})\.?\s*\d{1,2},?\s+\d{4})"
    r"(?:[t\s]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?",
    re.IGNORECASE,
)
_MONTHS = re.compile(
    "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|fév|avr|juin|août|déc",
    re.IGNORECASE,
)
_COMPACT_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


def is_date(text: str) -> bool:
    """Whether a text is a date or a time of day.

    Example:
        >>> [is_date(text) for text in ("1960-03-12", "12.3.60", "12 Mar 1960", "08:30", "18-38")]
        [True, True, True, True, False]
    """
    found = _DATE.fullmatch(text.strip())
    month = None if found is None else found["a"] or found["b"]
    return found is not None and (month is None or _MONTHS.match(month) is not None)


def are_dates(texts: Collection[str]) -> bool:
    """Whether texts are dates, also without separators, such as ``19600312``."""
    if len(set(texts)) > 4 and all(map(_COMPACT_DATE.fullmatch, texts)):
        return True
    return len(texts) > 0 and all(map(is_date, texts))


def kind_of_numbers(numbers: NDArray[np.float64]) -> tuple[AttributeKind, str]:
    """The kind of finite numbers ``(N,)``, and the reason.

    Whole numbers from 0 on are a count if they have few different values, or if a tenth of them are
    zero and most of the numbers above zero occur. Amounts such as incomes, of which many are zero
    and the others are far apart, are continuous.

    Example:
        >>> kind_of_numbers(np.array([0.0, 1.0, 1.0, 3.0, 0.0, 3.0]))
        ('count', 'whole numbers from 0 to 3, 3 of them')
        >>> kind_of_numbers(np.array([0.25, 0.5, 0.75]))
        ('bounded', 'all between 0 and 1')
    >>> visits, incomes = np.arange(100).clip(20) - 20, 137 * np.arange(100).clip(20) - 2740
    >>> kind_of_numbers(np.repeat(visits, 9))[0], kind_of_numbers(np.repeat(incomes, 9))[0]
    ('count', 'continuous')
    """
    low, high, levels = numbers.min(), numbers.max(), len(np.unique(numbers))
    is_whole = bool((numbers == np.rint(numbers)).all())
    if is_whole and low >= 0 and levels <= len(numbers) // 2:
        reason = f"whole numbers from {low:.0f} to {high:.0f}, {levels} of them"
        if levels <= FEW_LEVELS:
            return "count", reason
        if (share := float((numbers == 0).mean())) >= MANY_ZEROS and _is_dense(numbers):
            return "count", f"{reason}, {share:.0%} of the values are 0"
    if low > 0 and high < 1:
        return "bounded", "all between 0 and 1"
    if low > 0:
        return "positive", "all above 0"
    return "continuous", "some are 0" if low == 0 else "some are below 0"


def _is_dense(numbers: NDArray[np.float64]) -> bool:
    """Whether most whole numbers from 0 to nine tenths of the values ``(N,)`` occur."""
    common = float(np.quantile(numbers, _MOST_COMMON))
    return 2 * len(np.unique(numbers[numbers <= common])) > common + 1


def step_of(values: NDArray[np.float64]) -> float | None:
    """The step of numbers that are recorded in ones, halves, tenths or hundredths; None if finer.

    Example:
        >>> step_of(np.array([1.5, 2.0, 3.5])), step_of(np.array([0.123]))
        (0.5, None)
    """
    fits = (np.abs(values / step - np.round(values / step)).max() < 1e-6 for step in _STEPS)
    return next((step for step, is_fitting in zip(_STEPS, fits, strict=True) if is_fitting), None)


def are_repeated(distinct: int, rows: int, most_frequent: float, zeros: float) -> bool:
    """Whether numbers repeat so much that densities would exceed any probability.

    Args:
        distinct: Number of different values.
        rows: Number of rows.
        most_frequent: Share of the most frequent value.
        zeros: Share of zeros. Many zeros beside values that do not repeat are no reason.
    """
    return distinct <= min(FEW_LEVELS, rows // 3) or most_frequent >= MANY_ZEROS > zeros


def are_identifiers(name: str, counts: Counter[str]) -> bool:
    """Whether the texts of a column identify persons or rows.

    Texts that differ in all rows do, unless they are numbers in a column whose name does not say
    so, or numbers with a sign or a fraction. In a column such as ``subject``, texts may repeat.

    Example:
        >>> texts = Counter(f"{k:03}" for k in range(50))
        >>> are_identifiers("subject", texts), are_identifiers("age", texts)
        (True, False)
    """
    rows = counts.total()
    if rows <= _FEW_ROWS or any(not text.isdigit() and is_number(text) for text in counts):
        return False
    of_units = _UNITS.fullmatch(name) is not None
    if len(counts) == rows:
        is_named = of_units or _NAMES.fullmatch(name) is not None
        return is_named or not all(map(is_number, counts))
    return of_units and len(counts) > max(FEW_LEVELS, rows / _ROWS_OF_A_UNIT)


def standard_bounds(low: float, high: float) -> tuple[float, float] | None:
    """The smallest usual interval that contains two numbers; None if there is none.

    Example:
        >>> standard_bounds(0.2, 0.9), standard_bounds(3, 70), standard_bounds(3, 700)
        ((0.0, 1.0), (0.0, 100.0), None)
    """
    intervals = ((0.0, 1.0), (-1.0, 1.0), (0.0, 100.0))
    return next((each for each in intervals if each[0] <= low and high <= each[1]), None)


def order_of(levels: Collection[str]) -> tuple[str, ...] | None:
    """The ascending order of class names; None if they have none.

    Names have an order if they are words of a scale, ranges of numbers, or numbered grades.

    Example:
        >>> order_of(["high", "low", "medium"]), order_of(["18-38", "≥61", "39-60"])
        (('low', 'medium', 'high'), ('18-38', '39-60', '≥61'))
        >>> order_of(["3xTG", "C57BL/6", "APP"]) is None
        True
    """
    words = {level: level.strip().casefold() for level in levels}
    for scale in _SCALES:
        if set(words.values()) <= set(scale) and len(set(words.values())) == len(words):
            return tuple(sorted(words, key=lambda level: scale.index(words[level])))
    numbers = {level: _rank(level) for level in levels}
    ranks = [rank for rank in numbers.values() if rank is not None]
    if len(ranks) == len(levels) == len(set(ranks)) and len({word for word, _, _ in ranks}) == 1:
        return tuple(sorted(numbers, key=lambda level: _number_of(numbers[level])))
    return None


def _number_of(rank: tuple[str, float, int] | None) -> tuple[float, int]:
    return (0.0, 0) if rank is None else rank[1:]


def _rank(level: str) -> tuple[str, float, int] | None:
    """The word or unit of a grade or range, its number, and -1 for those below a number."""
    text = level.strip()
    if found := _NUMBERED.fullmatch(text):
        number = found["number"].lower()
        if number in _ROMAN:
            return found["word"].lower(), float(_ROMAN.index(number)), 0
        return (found["word"].lower(), float(number), 0) if number.isdigit() else None
    if found := _RANGE.fullmatch(text):
        sign = {"<": -1, "≤": -1, ">": 1, "≥": 1}.get((found["sign"] or "")[:1], 0)
        return (found["unit"] or "").strip(), float(found["low"]), sign
    return None
