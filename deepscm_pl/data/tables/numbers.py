"""Texts as numbers: decimal points and commas, grouped digits, and Unicode signs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decimal", "NumberForms", "is_number", "read_numbers"]

Decimal = Literal[".", ","]
"""The character before the fraction of a number."""

_EXPONENT = r"(?:[eE][-+]?\d+)?"
_WHOLE = re.compile(rf"[-+]?\d+{_EXPONENT}", re.ASCII)
_POINT = re.compile(rf"[-+]?(?:\d+\.?\d*|\.\d+){_EXPONENT}", re.ASCII)
_COMMA = re.compile(rf"[-+]?(?:\d+,?\d*|,\d+){_EXPONENT}", re.ASCII)
_GROUPS_BY_COMMA = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?", re.ASCII)
_GROUPS_BY_POINT = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?", re.ASCII)
_GROUPS_BY_BLANK = re.compile(r"[-+]?\d{1,3}(?:[ \xa0\u2009\u202f'’]\d{3})+(?:[.,]\d*)?", re.ASCII)
_WITH_UNIT = re.compile(rf"[-+]?[0-9][0-9.,]*{_EXPONENT}\s*(?P<unit>[^\W\d_][\w/²³]*|[%°‰€$£])")
_BLANKS = re.compile(r"[ \xa0\u2009\u202f'’]")


def is_number(text: str) -> bool:
    """Whether a text is a number with a decimal point or comma.

    Example:
        >>> [is_number(text) for text in ("70.5", "70,5", "1,234.5", "1e-3", "3xTG", "12.03.1960")]
        [True, True, True, True, False, False]
    """
    plain = _simplified(text)
    forms = (_POINT, _COMMA, _GROUPS_BY_COMMA, _GROUPS_BY_POINT)
    return any(form.fullmatch(plain) for form in forms)


def common_unit(texts: Iterable[str]) -> str | None:
    """The unit of texts that are numbers with one and the same unit; None for others.

    Example:
        >>> common_unit(["12 kg", "13.5 kg"]), common_unit(["3xTG", "5xFAD"])
        ('kg', None)
    """
    found = {match and match["unit"] for match in map(_WITH_UNIT.fullmatch, texts)}
    return found.pop() if len(found) == 1 else None


def _simplified(text: str) -> str:
    """A text with an ASCII minus sign and without blanks between groups of digits."""
    text = text.strip().replace("−", "-")
    return _BLANKS.sub("", text) if _GROUPS_BY_BLANK.fullmatch(text) else text


@dataclass(frozen=True)
class NumberForms:
    """How many numbers in texts have which form; those without fraction and groups are ignored.

    Attributes:
        point: With a decimal point, such as ``70.5``.
        comma: With a decimal comma, such as ``70,5``.
        groups_by_comma: With commas between groups of digits, such as ``1,100,000``.
        groups_by_point: With points between them.
        either: With a comma that may be either, such as ``1,234``.
        example: One of the last; empty if there is none.
    """

    point: int = 0
    comma: int = 0
    groups_by_comma: int = 0
    groups_by_point: int = 0
    either: int = 0
    example: str = ""

    @classmethod
    def of(cls, texts: Iterable[str]) -> NumberForms:
        """Count the forms of texts; those that are no numbers are ignored."""
        simple = [_simplified(text) for text in texts if not text.isdigit()]
        forms = [_form(text) for text in simple]
        example = simple[forms.index("either")] if "either" in forms else ""
        return cls(**Counter(form for form in forms if form is not None), example=example)

    def __add__(self, other: NumberForms) -> NumberForms:
        """Add the counts of two columns."""
        return NumberForms(
            self.point + other.point,
            self.comma + other.comma,
            self.groups_by_comma + other.groups_by_comma,
            self.groups_by_point + other.groups_by_point,
            self.either + other.either,
            self.example or other.example,
        )

    @property
    def decimal(self) -> Decimal | None:
        """The character before most fractions; None if no form is certain."""
        by_comma, by_point = self._certain
        return None if by_comma == by_point == 0 else "," if by_comma > by_point else "."

    @property
    def is_mixed(self) -> bool:
        """Whether some fractions follow a comma, and others a point."""
        return min(self._certain) > 0

    @property
    def _certain(self) -> tuple[int, int]:
        return self.comma + self.groups_by_point, self.point + self.groups_by_comma


def _form(text: str) -> str | None:
    if _WHOLE.fullmatch(text):
        return None
    separators = text.count(","), text.count(".")
    if _GROUPS_BY_COMMA.fullmatch(text):
        return "either" if separators == (1, 0) else "groups_by_comma"
    if _GROUPS_BY_POINT.fullmatch(text) and separators != (0, 1):
        return "groups_by_point"
    if _POINT.fullmatch(text):
        return "point"
    return "comma" if _COMMA.fullmatch(text) else None


def read_numbers(
    texts: NDArray[np.object_], decimal: Decimal, is_grouped: bool
) -> NDArray[np.float64]:
    """Read texts as numbers.

    Args:
        texts: ``(N,)``.
        decimal: The character before fractions.
        is_grouped: Whether the other of comma and point may separate groups of digits.

    Returns:
        ``(N,)``, NaN where a text is not a number.

    Example:
        >>> read_numbers(np.array(["70,5", "1.100,25", "old"], dtype=object), ",", True).tolist()
        [70.5, 1100.25, nan]
    """
    return np.array([_number(text, decimal, is_grouped) for text in texts], dtype=np.float64)


def _number(text: str, decimal: Decimal, is_grouped: bool) -> float:
    if _POINT.fullmatch(text) and (decimal == "." or _WHOLE.fullmatch(text)):
        return float(text)
    text = _simplified(text)
    plain, groups, other = (
        (_POINT, _GROUPS_BY_COMMA, ",") if decimal == "." else (_COMMA, _GROUPS_BY_POINT, ".")
    )
    if plain.fullmatch(text):
        return float(text.replace(",", "."))
    if is_grouped and groups.fullmatch(text):
        return float(text.replace(other, "").replace(",", "."))
    return float("nan")
