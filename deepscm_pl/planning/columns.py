"""Descriptions of the columns of a table: their kinds, each with the reason."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.cohort import SPLITS
from deepscm_pl.data.tables import Attribute, AttributeKind, Table, read_attribute
from deepscm_pl.data.tables.attributes import ColumnRules
from deepscm_pl.data.tables.kinds import are_dates, are_identifiers, step_of
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
    "other",
]
"""Kinds of columns: those of attributes, and those that are no variables."""

_MOST_SHOWN = 50
_IMAGES = re.compile(r".+\.(png|jpe?g|tiff?|webp|bmp|npy|dcm|nii|nii\.gz)", re.IGNORECASE)
_UNIT = re.compile(r"^(.*\S)\s*[(\[]([^()\[\]]{1,12})[)\]]$")
_PLACE = re.compile(r"^(columns|kinds|decimal): ")


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
        return self.kind in get_args(AttributeKind)

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


def describe_column(table: Table, name: str, variable: str, unit: str = "") -> ColumnFingerprint:
    """Describe a column, with the kind that a data module would infer.

    Args:
        table: The table.
        name: The name of the column.
        variable: The name of the variable.
        unit: Its unit.
    """
    missing = table.is_missing(name)
    texts = table[name][~missing].tolist()
    counts = Counter(texts)
    base: dict[str, Any] = {
        "name": name,
        "variable": variable,
        "unit": unit,
        "rows": len(texts),
        "missing": int(missing.sum()),
        "distinct": len(counts),
        "rarest": min(counts.values(), default=0),
        "most_frequent": max(counts.values(), default=0) / max(len(texts), 1),
    }
    special = _special(name, counts)
    if special is not None:
        kind, reason = special
        levels = tuple(sorted(counts)) if kind == "splits" else ()
        return ColumnFingerprint(kind=kind, reason=reason, levels=levels, **base)
    try:
        rules = ColumnRules(variable, name, missing="infer")
        attribute = read_attribute(table, rules, np.ones(len(table), dtype=np.bool_))
    except ValueError as error:
        reason = _PLACE.sub("", str(error)).rstrip(".")
        reason = reason.replace("add it to missing_words", "name it in --missing_words")
        return ColumnFingerprint(kind="other", reason=reason, **base)
    return ColumnFingerprint(
        kind=attribute.kind,
        levels=attribute.levels[:_MOST_SHOWN],
        **base | _of_values(attribute, table.numbers(name)),
    )


def _of_values(attribute: Attribute, numbers: NDArray[np.float64]) -> dict[str, Any]:
    """The properties of classes or of numbers."""
    if attribute.levels:
        shown = ", ".join(attribute.levels[:5]) + (", …" if len(attribute.levels) > 5 else "")
        return {"reason": f"{attribute.reason}: {shown}", "distinct": len(attribute.levels)}
    found, counts = np.unique(numbers[np.isfinite(numbers)], return_counts=True)
    low, high = format_number(found[0]), format_number(found[-1])
    # Reasons of counts have the range already.
    shown = "" if attribute.kind == "count" else f", from {low} to {high}, {len(found)} different"
    return {
        "reason": f"{attribute.reason}{shown}",
        "distinct": len(found),
        "lowest": float(found[0]),
        "highest": float(found[-1]),
        "step": step_of(found),
        "rarest": int(counts.min()),
        "most_frequent": float(counts.max() / counts.sum()),
        "zeros": float(counts[found == 0].sum() / counts.sum()),
    }


def _special(name: str, counts: Counter[str]) -> tuple[ColumnKind, str] | None:
    """The kind of a column that is no variable, by its texts and its name; None for others."""
    if set(counts) <= {*SPLITS} and len(counts) > 1:
        return "splits", ", ".join(each for each in sorted(counts))
    if counts and all(map(_IMAGES.fullmatch, counts)):
        return "images", f"names of image files, such as {next(iter(counts))}"
    if not counts or are_dates(list(counts)) or not are_identifiers(name, counts):
        return None
    return "identifier", f"{len(counts):,} different texts in {counts.total():,} rows"
