"""The result of a protocol as a table and as files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from deepscm_pl.evaluation.protocols.results import Figure, ProtocolResult
from deepscm_pl.files import new_file
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable

__all__ = ["PROTOCOL_COLUMNS", "protocol_table", "write_protocol"]

PROTOCOL_COLUMNS = (
    "intervention",
    "variable",
    "quantity",
    "judge",
    "unit",
    "defined",
    "standard_error",
    "deviation",
    "published",
    "floor",
    "published_floor",
    "rows",
)
"""The columns of ``protocol.csv``."""

_HOW_TO_READ = (
    "*As defined* is a mean over images and seeds ± its standard error over images, *over seeds* "
    "the standard deviation of the means of single seeds. *As published* is what the published "
    "code computes, where that differs. *Floor* is the figure of recorded images, or of a perfect "
    "answer: no model can be expected to be better."
)


def protocol_table(result: ProtocolResult) -> TextTable:
    """Return a table of all figures.

    Example:
        >>> from deepscm_pl.evaluation import Estimate
        >>> found = Figure("do(a ~ train)", "a", "mean absolute error", "px", "morphometry",
        ...                Estimate(0.15, 0.01, 100), 0.02, floor=0.12)
        >>> table = protocol_table(ProtocolResult("causal-gen", [found], 100, 100, [0, 1]))
        >>> table.rows[0][4], table.rows[0][-1]
        ('0.15 ± 0.01', '0.12')
    """
    count = len(result.seeds)
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    title = f"{result.protocol}: {result.rows:,} test images, {seeds}"
    return TextTable.of_records(title, [_record(each) for each in result.figures], words=4)


def _record(figure: Figure) -> dict[str, str]:
    unit = f", {figure.unit}" if figure.unit else ""
    error = figure.defined.standard_error
    spread = "" if math.isnan(error) else f" ± {format_number(error)}"
    return {
        "intervention": figure.intervention or "–",
        "variable": figure.variable,
        "quantity": f"{figure.quantity}{unit}",
        "judge": figure.judge or "–",
        "as defined": format_number(figure.defined.mean) + spread,
        "over seeds": "–" if math.isnan(figure.deviation) else f"± {_text(figure.deviation)}",
        "as published": _text(figure.published),
        "floor": _text(figure.floor),
        "floor as published": _text(figure.published_floor),
    }


def _text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else format_number(value)


def write_protocol(result: ProtocolResult, folder: Path) -> list[Path]:
    """Write ``protocol.json``, ``protocol.csv`` and ``protocol.md`` into a folder."""
    paths = [folder / f"protocol.{suffix}" for suffix in ("json", "csv", "md")]
    notes = "".join(f"- {note}.\n" for note in result.notes)
    table = protocol_table(result)
    text = f"# {table.title}\n\n{_HOW_TO_READ}\n\n{table.as_markdown()}\n{notes}"
    with new_file(paths[0]) as temporary:
        plain = json.dumps(result.as_plain_data(), indent=2, ensure_ascii=False)
        temporary.write_text(plain + "\n", encoding="utf-8")
    with new_file(paths[1]) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(PROTOCOL_COLUMNS)
        writer.writerows(_cells(each) for each in result.figures)
    with new_file(paths[2]) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return paths


def _cells(figure: Figure) -> list[object]:
    plain = figure.as_plain_data()
    estimate = plain.pop("defined")
    plain |= {"defined": estimate["mean"]} | {n: estimate[n] for n in ("standard_error", "rows")}
    return [plain[name] for name in PROTOCOL_COLUMNS]
