"""The verdict on a model for a terminal, in Markdown and as a table of its limits."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from deepscm_pl.escaping import for_markdown, for_terminal
from deepscm_pl.evaluation.verdict import Grade, Judgement, Verdict, worst
from deepscm_pl.numerals import format_number
from deepscm_pl.reports.tables import TextTable

__all__ = [
    "changed_limits",
    "limit_table",
    "print_verdict",
    "threshold_table",
    "verdict_lines",
    "verdict_markdown",
]

_STYLES: Mapping[Grade, str] = {
    "good": "green",
    "doubtful": "yellow",
    "bad": "bold red",
    "unknown": "dim",
}
_NARROWEST = 40
_LONGEST_SUBJECT = 32
_GAP = "  "
_GRADE_WIDTH = len("doubtful")


def print_verdict(judgement: Judgement) -> None:
    """Print the verdict in the width of the terminal, or of 120 characters in a file."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    for line, grade in _lines(judgement, console.width):
        before, found, after = line.partition(grade)
        # Use Text objects, because rich interprets markup in strings.
        parts = Text(before) + Text(found, style=_STYLES[grade]) + Text(after)
        console.print(parts if found else Text(line), soft_wrap=True)


def verdict_lines(judgement: Judgement, width: int = 120) -> list[str]:
    """Return the verdict as lines of a terminal of ``width`` characters.

    Example:
        >>> said = Verdict("x", "x", "", "converged", "converged", "good", 0.01, 0.02, "converged")
        >>> for line in verdict_lines(Judgement([said])):
        ...     print(line)
        Verdict: good – the model is as good as could be measured.
          x  good      converged
    """
    return [line for line, _ in _lines(judgement, width)]


def changed_limits(judgement: Judgement) -> str:
    """Return a sentence on the limits that are not the defaults; empty if all are.

    Example:
        >>> from deepscm_pl.evaluation import VerdictThresholds
        >>> changed_limits(Judgement([], VerdictThresholds(shown=0.8)))
        'Limits other than the defaults: verdict.shown = 0.8 (0.5).'
    """
    usual = _limits(Judgement([]))
    changed = [
        f"{name} = {value:g} ({usual[name]:g})"
        for name, value in _limits(judgement).items()
        if value != usual[name]
    ]
    return f"Limits other than the defaults: {', '.join(changed)}." if changed else ""


def _limits(judgement: Judgement) -> dict[str, float]:
    """All limits, by the name of the setting of the evaluation."""
    groups = {"verdict.": judgement.thresholds, "reaction_": judgement.reaction}
    return {
        f"{prefix}{name}": value
        for prefix, limits in groups.items()
        for name, value in vars(limits).items()
    }


def _lines(judgement: Judgement, width: int) -> list[tuple[str, Grade]]:
    """The lines, each with the grade that it states."""
    overall = judgement.grade
    lines = [(f"Verdict: {overall} – {judgement.headline}.", overall)]
    subjects = {for_terminal(name): found for name, found in judgement.subjects.items()}
    column = min(max(map(cell_len, subjects), default=0), _LONGEST_SUBJECT)
    indent = " " * (column + len(_GAP) * 3 + _GRADE_WIDTH)
    room = max(width - len(indent), _NARROWEST)
    for name, found in subjects.items():
        grade = worst(found)
        if cell_len(name) > column:
            lines.append((f"{_GAP}{name}", "unknown"))
            name = ""
        start = f"{_GAP}{name}{' ' * (column - cell_len(name))}{_GAP}{grade:{_GRADE_WIDTH}}{_GAP}"
        text = "; ".join(for_terminal(each.reason) for each in _worst_first(found))
        wrapped = wrap(text, room, break_on_hyphens=False) or [""]
        lines.append((start + wrapped[0], grade))
        lines += [(indent + rest, "unknown") for rest in wrapped[1:]]
    changed = wrap(changed_limits(judgement), max(width, _NARROWEST), break_on_hyphens=False)
    return lines + [(line, "unknown") for line in changed]


def _worst_first(verdicts: list[Verdict]) -> list[Verdict]:
    order: list[Grade] = ["bad", "doubtful", "unknown", "good"]
    return sorted(verdicts, key=lambda each: order.index(each.grade))


def verdict_markdown(judgement: Judgement) -> str:
    """Return the headline and a list of the subjects, in Markdown."""
    lines = [f"**{judgement.grade.capitalize()}**: {for_markdown(judgement.headline)}.", ""]
    for name, found in judgement.subjects.items():
        reasons = "; ".join(for_markdown(each.reason) for each in _worst_first(found))
        lines.append(f"- **{for_markdown(name)}**: *{worst(found)}*. {reasons}.")
    if changed := changed_limits(judgement):
        lines += ["", for_markdown(changed)]
    return "\n".join(lines)


def limit_table(judgement: Judgement) -> TextTable:
    """Return every judgement with its figure and its limit."""
    records = [
        {
            "subject": each.subject,
            "criterion": each.criterion,
            "judgement": each.word,
            "grade": each.grade,
            "figure": "–" if each.figure is None else format_number(each.figure),
            "limit": "–" if each.threshold is None else format_number(each.threshold),
        }
        for each in judgement.verdicts
    ]
    return TextTable.of_records("Judgements: figures and their limits", records, words=4)


def threshold_table(judgement: Judgement) -> TextTable:
    """Return all limits, by the name of the setting of the evaluation."""
    rows = [[name, f"{value:g}"] for name, value in _limits(judgement).items()]
    return TextTable("Limits, by settings of the evaluation", ["limit", "value"], rows)
