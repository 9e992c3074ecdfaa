"""The numbers of an evaluation as tables for TensorBoard's tab Text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deepscm_pl.escaping import for_markdown
from deepscm_pl.evaluation.results import CounterfactualResult
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.report import Report

__all__ = ["numbers_markdown", "report_markdown"]

_PICTURE = re.compile(r"^!\[.*\]\(.*\)$|^</?(details|summary).*>$", re.MULTILINE)


def numbers_markdown(report: Report) -> str:
    """Return all numbers of an evaluation in Markdown.

    The first table has a row for each quantity and a column for each question; the second has all
    numbers that belong to no question.
    """
    asked = [each for each in report.evaluation.counterfactuals if each.rows]
    parts = [_questions(asked)] if asked else []
    texts = {each.question.text for each in report.evaluation.counterfactuals}
    others = {
        name: value
        for name, value in report.numbers().items()
        if name.partition("/")[0] not in texts
    }
    parts += [_table(["quantity", "value"], others)] if others else []
    return "\n\n".join(parts)


def report_markdown(report: Report) -> str:
    """Return the report in Markdown without its pictures, which TensorBoard shows as images."""
    return _PICTURE.sub("", report.as_markdown())


def _questions(asked: Sequence[CounterfactualResult]) -> str:
    keys = dict.fromkeys(key for each in asked for key in each.quantities)
    found = {
        key: [each.quantities[key].mean if key in each.quantities else None for each in asked]
        for key in keys
    }
    return _table(["quantity", *(each.question.title for each in asked)], found)


def _table(headings: Sequence[str], rows: Mapping[str, float | Sequence[float | None]]) -> str:
    lines = [" | ".join(map(for_markdown, headings)), "|".join(["---"] * len(headings))]
    for name, found in rows.items():
        values = [found] if isinstance(found, float | int) else found
        numbers = ["–" if value is None else format_number(value, 4) for value in values]
        lines.append(" | ".join([for_markdown(name), *numbers]))
    return "\n".join(f"| {line} |" for line in lines)
