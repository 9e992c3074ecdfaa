"""Overlap of an evaluation as tables, a picture and plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from deepscm_pl.evaluation.overlap import OverlapError, OverlapResult
from deepscm_pl.figures.output import PlainFigure, make_ticks_readable, wrapped
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.numerals import format_number
from deepscm_pl.overlap import VERDICTS, OverlapThresholds
from deepscm_pl.reports.tables import TextTable
from deepscm_pl.variables import Variable

__all__ = [
    "draw_overlap",
    "overlap_error_table",
    "overlap_quantities",
    "overlap_table",
    "plain_overlap",
]

_COLOURS = {"supported": "#1b6ca8", "edge": "#b8860b", "extrapolated": "#c8502d"}
_PANELS_IN_ROW = 3


def overlap_table(result: OverlapResult, variables: Mapping[str, Variable]) -> TextTable:
    """Return the number of rows with each verdict, for each intervention."""
    records = [
        {
            "intervention": format_do(parse_do(text, variables), variables),
            **{verdict: str(counts[verdict]) for verdict in VERDICTS},
        }
        for text, counts in result.verdicts.items()
    ]
    answers = sum(result.total(verdict) for verdict in VERDICTS)
    title = (
        f"Overlap with the training data: {result.total('extrapolated')} of {answers} answers "
        f"extrapolate, and {result.total('edge')} are at the edge"
    )
    return TextTable.of_records(title, records)


def overlap_error_table(result: OverlapResult) -> TextTable:
    """Return the error of each variable against the truth, by verdict."""
    records = []
    for each in result.errors:
        for verdict, error in each.by_verdict.items():
            unchanged = each.unchanged[verdict].mean
            records.append(
                {
                    "variable": each.variable,
                    "unit": each.unit or "–",
                    "verdict": verdict,
                    "answers": str(error.rows),
                    "error": _number(error.mean),
                    "standard error": _number(error.standard_error),
                    "factual unchanged": _number(unchanged),
                    "ratio": _number(error.mean / unchanged if unchanged else math.nan),
                }
            )
    title = (
        f"Error by overlap: mean absolute error against the truth, in {len(result.asked)} "
        f"interventions on each of {result.rows} rows"
    )
    return TextTable.of_records(title, records, words=3)


def _number(value: float) -> str:
    return format_number(value) if math.isfinite(value) else "–"


def draw_overlap(result: OverlapResult) -> Figure:
    """Draw the error of each variable against the truth by effective number of training rows.

    Args:
        result: With errors of at least one variable.
    """
    columns = min(len(result.errors), _PANELS_IN_ROW)
    rows = math.ceil(len(result.errors) / columns)
    size = (4.2 * columns, 3.6 * rows + 0.5)
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, error in zip(panels, result.errors, strict=False):
        _draw_error(axes, error, result.thresholds)
    for axes in panels[len(result.errors) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw_error(axes: Axes, error: OverlapError, thresholds: OverlapThresholds) -> None:
    bins = [each for each in error.by_rows if math.isfinite(each.error.standard_error)]
    places = [each.high / 10**0.5 for each in bins]
    low, high = min(places, default=0.1) / 3, max(places, default=100.0) * 3
    limits = {"extrapolated": (low, thresholds.extrapolated),
              "edge": (thresholds.extrapolated, thresholds.edge),
              "supported": (thresholds.edge, high)}  # fmt: skip
    axes.set_xscale("log")
    for verdict in VERDICTS:
        start, end = (min(max(limit, low), high) for limit in limits[verdict])
        axes.axvspan(start, end, color=_COLOURS[verdict], alpha=0.1, linewidth=0)
        if verdict in error.by_verdict and start < end:
            mean = error.by_verdict[verdict].mean
            axes.plot([start, end], [mean, mean], color=_COLOURS[verdict], linewidth=2.5)
    axes.errorbar(places, [each.error.mean for each in bins],
                  yerr=[2 * each.error.standard_error for each in bins], fmt="o", color="#333333",
                  markersize=4, linewidth=1, label="mean ± 2 standard errors")  # fmt: skip
    for verdict in VERDICTS[::-1]:
        axes.plot([], [], color=_COLOURS[verdict], linewidth=2.5, label=f"mean, {verdict}")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_title(wrapped(error.variable, 40), fontsize=9)
    unit = f" ({error.unit})" if error.unit else ""
    axes.set_ylabel(f"mean absolute error{unit}", fontsize=8)
    axes.tick_params(labelsize=8)
    make_ticks_readable(axes)
    axes.set_xlabel("effective number of training rows", fontsize=8)
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def overlap_quantities(result: OverlapResult) -> Iterator[tuple[str, float]]:
    """Yield the main numbers by their names in TensorBoard."""
    for text, counts in result.verdicts.items():
        for verdict, count in counts.items():
            yield f"overlap/{text}/{verdict}", float(count)
    for each in result.errors:
        for verdict, error in each.by_verdict.items():
            yield f"overlap/error/{each.variable}/{verdict}", error.mean


def plain_overlap(result: OverlapResult) -> dict[str, Any]:
    """Return all numbers as plain data without NaN."""
    return {
        "thresholds": {
            "extrapolated": result.thresholds.extrapolated,
            "edge": result.thresholds.edge,
        },
        "verdicts": {text: dict(counts) for text, counts in result.verdicts.items()},
        "asked": list(result.asked),
        "rows": result.rows,
        "errors": {
            each.variable: {
                "unit": each.unit,
                "by_verdict": {k: v.as_plain_data() for k, v in each.by_verdict.items()},
                "unchanged": {k: v.as_plain_data() for k, v in each.unchanged.items()},
                "by_rows": [
                    {"low": some.low, "high": some.high, **some.error.as_plain_data()}
                    for some in each.by_rows
                ],
            }
            for each in result.errors
        },
    }
