"""Descriptions of the columns of a table: their kinds, each with the reason."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.numerals import format_number

__all__ = ["ColumnFingerprint", "ColumnKind", "describe_column", "variable_name"]

ColumnKind = Literal[
    "continuous",
    "positive",
    "bounded",
    "count",
    "ordinal",
    "binary",
    "categorical",
    "identifier",
    "splits",
    "images",
    "constant",
    "date",
    "text",
    "empty",
]
"""Kinds of columns; those after ``categorical`` are no variables."""

_VARIABLES = frozenset(
    ("continuous", "positive", "bounded", "count", "ordinal", "binary", "categorical")
)
_SPLITS = {"train", "validation", "test"}
_MOST_CLASSES = 20
_MOST_SHOWN = 50
_FEW_VALUES = 20
_IMAGES = re.compile(r".+\.(png|jpe?g|tiff?|webp|bmp|npy|dcm|nii|nii\.gz)", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}")
_IDENTIFIER = re.compile(
    r"(.*[_ ])?(e?id|ids|identifier|name|rid|uid|guid|iid)|(participant|subject|patient|person)s?"
    r"([_ ]?(id|no|nr|number|code))?|(image|scan|file)[_ ]?(id|name)",
    re.IGNORECASE,
)
_UNIT = re.compile(r"^(.*\S)\s*[(\[]([^()\[\]]{1,12})[)\]]$")
_ORDERS = (
    ("very low", "low", "medium", "high", "very high"),
    ("low", "middle", "high"),
    ("low", "moderate", "high"),
    ("none", "mild", "moderate", "severe", "very severe"),
    ("absent", "mild", "moderate", "severe"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("never", "former", "current"),
    ("small", "medium", "large"),
    ("poor", "fair", "good", "very good", "excellent"),
    ("bad", "fair", "good"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("first", "second", "third"),
)
"""Words that have an order; a column may use some of them."""


@dataclass(frozen=True)
class ColumnFingerprint:
    """A column of a table.

    Attributes:
        name: The name in the table.
        variable: The name as a variable: letters, digits and underscores.
        kind: Kind of its values.
        reason: The reason for the kind.
        rows: Number of rows with a value.
        missing: Number of rows without a value.
        distinct: Number of different values.
        lowest: The lowest number; None for texts.
        highest: The highest number.
        step: The largest step that divides all numbers, if they are recorded in steps.
        most_frequent: Share of the most frequent value.
        zeros: Share of zeros.
        levels: The classes, in order for ordinal ones; at most 50.
        rarest: Number of rows of the rarest value.
        unit: The unit in the name of the column, such as ``volume (ml)``.
    """

    name: str
    variable: str
    kind: ColumnKind
    reason: str
    rows: int
    missing: int
    distinct: int
    lowest: float | None = None
    highest: float | None = None
    step: float | None = None
    most_frequent: float = 0.0
    zeros: float = 0.0
    levels: tuple[str, ...] = ()
    rarest: int = 0
    unit: str = ""

    @property
    def is_variable(self) -> bool:
        """Whether the column can be a variable of a model."""
        return self.kind in _VARIABLES

    def __str__(self) -> str:
        parts = [f"{self.variable}: {self.kind} ({self.reason})"]
        if self.variable != self.name:
            parts.append(f"column {self.name}")
        if self.missing:
            parts.append(f"{self.missing:,} of {self.rows + self.missing:,} values missing")
        return ", ".join(parts)


def variable_name(column: str, taken: Collection[str] = ()) -> tuple[str, str]:
    """Make the name of a variable from the name of a column, and find its unit.

    Args:
        column: Name of the column.
        taken: Names that are used already.

    Returns:
        The name, of letters, digits and underscores, and the unit or "".

    Example:
        >>> variable_name("Brain volume (mm³)")
        ('Brain_volume', 'mm³')
        >>> variable_name("2nd visit"), variable_name("age", taken=["age"])
        (('v_2nd_visit', ''), ('age_2', ''))
    """
    found = _UNIT.match(column)
    name, unit = (found[1], found[2]) if found else (column, "")
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_") or "variable"
    if not name.isidentifier() or keyword.iskeyword(name):
        name = f"v_{name}"
    while len(name.encode()) > 70:
        name = name[:-1]
    if name in ("image", "label", "index"):
        name = f"{name}_"
    number, base = 2, name
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name, unit


def describe_column(
    name: str, variable: str, unit: str, texts: Sequence[str], missing: NDArray[np.bool_]
) -> ColumnFingerprint:
    """Infer the kind of a column.

    Args:
        name: The name in the table.
        variable: The name of the variable.
        unit: Its unit.
        texts: The cells, N texts.
        missing: Which cells have no value, ``(N,)``.
    """
    present = [text for text, gone in zip(texts, missing, strict=True) if not gone]
    counts: dict[str, int] = {}
    for text in present:
        counts[text] = counts.get(text, 0) + 1
    base = {
        "name": name,
        "variable": variable,
        "unit": unit,
        "rows": len(present),
        "missing": int(missing.sum()),
        "distinct": len(counts),
        "rarest": min(counts.values(), default=0),
        "most_frequent": max(counts.values(), default=0) / max(len(present), 1),
    }
    if not present:
        return ColumnFingerprint(kind="empty", reason="no value in any row", **base)
    numbers = _numbers(list(counts))
    if numbers is None:
        kind, reason, levels = _kind_of_texts(name, counts, len(present))
        return ColumnFingerprint(
            kind=kind, reason=reason, levels=tuple(levels[:_MOST_SHOWN]), **base
        )
    values = np.unique(numbers)
    base["distinct"] = len(values)
    weights = np.array(list(counts.values()))
    base["zeros"] = float(weights[numbers == 0].sum() / len(present))
    step = _step(values)
    kind, reason, levels = _kind_of_numbers(name, values, step, base["zeros"], len(present))
    return ColumnFingerprint(
        kind=kind,
        reason=reason,
        levels=tuple(levels),
        lowest=float(values[0]),
        highest=float(values[-1]),
        step=step,
        **base,
    )


def _numbers(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """Texts as numbers, or None if one of them is no finite number."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _step(values: NDArray[np.float64]) -> float | None:
    """The step of numbers that are recorded in ones, halves, tenths or hundredths; None if finer.

    Example:
        >>> _step(np.array([1.5, 2.0, 3.5])), _step(np.array([3.0, 7.0])), _step(np.array([0.123]))
        (0.5, 1.0, None)
    """
    for step in (1.0, 0.5, 0.1, 0.05, 0.01):
        if np.abs(values / step - np.round(values / step)).max() < 1e-6:
            return step
    return None


def _kind_of_numbers(
    name: str, values: NDArray[np.float64], step: float | None, zeros: float, rows: int
) -> tuple[ColumnKind, str, list[str]]:
    low, high = format_number(values[0]), format_number(values[-1])
    if len(values) == 1:
        return "constant", f"{low} in every row", []
    if step == 1 and len(values) == rows > 20 and _IDENTIFIER.fullmatch(name):
        return "identifier", "a different whole number in each row, and its name", []
    if len(values) == 2:
        return "binary", f"two values, {low} and {high}", [_level(each) for each in values]
    many = f"{len(values)} different numbers from {low} to {high}"
    if step == 1 and values[0] >= 0 and len(values) <= max(_FEW_VALUES, min(100, rows // 10)):
        return "count", f"whole numbers from {low} to {high}, {len(values)} different", []
    if values[0] >= 0 and values[-1] <= 1 and (values[0] == 0 or values[-1] == 1 or high <= "1"):
        return "bounded", f"{many}, within 0 and 1", []
    if values[0] > 0 or (values[0] == 0 and zeros >= 0.1):
        return "positive", many, []
    return "continuous", many, []


def _level(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _kind_of_texts(
    name: str, counts: dict[str, int], rows: int
) -> tuple[ColumnKind, str, list[str]]:
    levels = sorted(counts)
    first = repr(levels[0])
    if set(counts) <= _SPLITS and len(counts) > 1:
        return "splits", "train, validation and test", levels
    if len(counts) == 1:
        return "constant", f"{first} in every row", levels
    if all(_IMAGES.fullmatch(text) for text in counts):
        return "images", f"names of image files, such as {first}", []
    dates = sum(counts[text] for text in counts if _DATE.fullmatch(text))
    if dates > rows / 2:
        return (
            "date",
            f"dates, such as {first}; as a variable, write days or years since a day into a column",
            [],
        )
    if len(counts) == rows > 20 or (len(counts) > rows / 2 and _IDENTIFIER.fullmatch(name)):
        return "identifier", f"texts that differ in {len(counts):,} of {rows:,} rows", []
    if len(counts) == 2:
        return "binary", f"two texts, {levels[0]!r} and {levels[1]!r}", levels
    numeric = sum(counts[text] for text in counts if _numbers([text]) is not None)
    if numeric > rows / 2:
        odd = next(text for text in levels if _numbers([text]) is None)
        return "text", f"numbers, except {odd!r} and other texts; correct them", []
    ordered = _ordered(levels)
    if ordered:
        return "ordinal", f"words with an order, {' < '.join(ordered)}", ordered
    if len(counts) > _MOST_CLASSES:
        return "text", f"{len(counts):,} different texts, such as {first}", []
    return "categorical", f"{len(counts)} different texts", levels


def _ordered(levels: Sequence[str]) -> list[str]:
    """The levels in their order, if they are words of one order; else an empty list.

    Example:
        >>> _ordered(["High", "Low", "medium"])
        ['Low', 'medium', 'High']
    """
    lower = {level.lower().strip(): level for level in levels}
    for order in _ORDERS:
        if len(lower) == len(levels) > 2 and set(lower) <= set(order):
            return [lower[word] for word in order if word in lower]
    return []
