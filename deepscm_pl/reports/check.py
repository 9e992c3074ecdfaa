"""The page of a check: verdicts, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepscm_pl.data import CausalData
from deepscm_pl.escaping import as_json, for_markdown
from deepscm_pl.evaluation.check import Check
from deepscm_pl.evaluation.graph_check import GraphCheck
from deepscm_pl.evaluation.independence import IndependenceTest, MixedTable
from deepscm_pl.figures import save_figure
from deepscm_pl.figures.graph import draw_graph
from deepscm_pl.figures.output import PlainFigure, wrapped
from deepscm_pl.files import new_folder
from deepscm_pl.overlap import VERDICTS
from deepscm_pl.reports.pictures import draw_noise_results
from deepscm_pl.reports.tables import TextTable, noise_table

__all__ = ["CheckReport"]

_FORMAT = 1
_MOST_PANELS = 6
_MOST_PAIRS = 5
_CAPTIONS = {
    "graph": "The graph. Grey broken arrows: no dependence is seen along the edge. Red dotted "
    "lines: the table contradicts that the two variables are independent.",
    "random_graphs": "Contradicted independences of random graphs of the same shape (bars), and of "
    "this graph (line).",
    "dependences": "What remains of two variables after a regression on the variables given, in "
    "normal scores; the clearest dependences of the tests. Without dependence, nothing is tilted "
    "or curved.",
    "noise": "Noise inferred from the test split, against its prior N(0, 1).",
}


class CheckReport:
    """A report of a check.

    Args:
        check: The results.
        data: The data, from which duplicate images are shown; None for none.
        origin: The origin of model and data, as plain data for the JSON file.

    Attributes:
        tables: All tables that are not empty, by name.
        pictures: All pictures, by the name of their file without its ending.
    """

    def __init__(
        self,
        check: Check,
        data: CausalData | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        self.check = check
        self.origin = dict(origin or {})
        self.tables = dict(_tables(check))
        self.pictures = dict(_draw_pictures(check, data))

    def write(self, folder: Path) -> list[Path]:
        """Write ``check.md``, ``check.json`` and pictures into a new folder.

        Raises:
            ValueError: If the folder exists and is not empty, or cannot be written.
        """
        with new_folder(folder) as new:
            self.write_files(new)
        return sorted(folder.iterdir())

    def write_files(self, folder: Path) -> None:
        """Write all files into a folder that exists."""
        (folder / "check.json").write_text(as_json(self.as_plain_data()), encoding="utf-8")
        (folder / "check.md").write_text(self.as_markdown(), encoding="utf-8")
        for name, figure in self.pictures.items():
            save_figure(figure, folder / f"{name}.png")

    def verdict_table(self) -> TextTable:
        """Return one verdict for each item."""
        rows = [
            [item, *(part.strip() for part in text.partition(":")[::2])]
            for item, text in self.check.verdicts.items()
        ]
        return TextTable("Check", ["item", "verdict", "reason"], rows, words=3)

    def as_markdown(self) -> str:
        """Return the page in Markdown, with links to pictures in the same folder."""
        lines = [f"{for_markdown(k)}: {for_markdown(str(v))}." for k, v in self.origin.items() if v]
        verdicts = "\n".join(
            f"- **{for_markdown(item)}**: {for_markdown(text)}."
            for item, text in self.check.verdicts.items()
        )
        parts = ["# Check", *lines, f"## Verdicts\n\n{verdicts}"]
        for title, table, pictures in _SECTIONS:
            shown = [name for name in self.pictures if name.startswith(pictures) and pictures]
            if table not in self.tables and not shown:
                continue
            parts.append(f"## {title}")
            if table in self.tables:
                found = self.tables[table]
                parts += [f"{for_markdown(found.title)}.", found.as_markdown()]
            for name in shown:
                caption = _CAPTIONS.get(name, "Pairs of equal or nearly equal images.")
                parts.append(f"![{caption}]({name}.png)\n\n*{caption}*")
        if self.check.left_out:
            lines = [f"- {for_markdown(reason)}" for reason in self.check.left_out]
            parts.append("## Left out\n\n" + "\n".join(lines))
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def as_plain_data(self) -> dict[str, Any]:
        """Return all results as plain data without NaN."""
        check = self.check
        return {
            "format": _FORMAT,
            **self.origin,
            "verdicts": check.verdicts,
            "graph": None if check.graph is None else _plain_graph(check.graph),
            "leakage": {
                "units": {k: list(v) for k, v in (check.leakage.units or {}).items()},
                "rows": [[str(row) for row in group] for group in check.leakage.rows],
                "distinct": check.leakage.distinct,
            },
            "duplicates": {
                each.variable: {
                    "exact": [[str(row) for row in group] for group in each.exact],
                    "near": [[str(row) for row in pair] for pair in each.near],
                }
                for each in check.duplicates
            },
            "overlap": {each.text: dict(each.counts) for each in check.overlap},
            "noise": {
                f"{each.variable}/{each.part}": {
                    name: value for name, value in each.quantities.items() if math.isfinite(value)
                }
                for each in check.noise
            },
            "left_out": list(check.left_out),
        }


_SECTIONS = (
    ("Independences", "independences", "graph"),
    ("Dependences that are seen", "", "dependences"),
    ("Random graphs", "", "random_graphs"),
    ("Edges", "edges", ""),
    ("Equivalent graphs", "alternatives", ""),
    ("Leakage", "leakage", ""),
    ("Duplicate images", "duplicates", "duplicates"),
    ("Overlap of questions", "overlap", ""),
    ("Noise", "noise", "noise"),
)


def _plain_graph(found: GraphCheck) -> dict[str, Any]:
    return {
        "text": str(found.graph),
        "rows": found.rows,
        "level": found.level,
        "independences": [
            {
                "variables": [each.statement.first, each.statement.second],
                "given": list(each.statement.given),
                "p_value": each.dependence.p_value,
                "adjusted": each.adjusted,
                "correlation": each.dependence.correlation,
                "curved": each.dependence.is_curved,
                "rows": each.dependence.rows,
                "contradicted": each.contradicted,
            }
            for each in found.tests
        ],
        "edges": [
            {
                "edge": [each.cause, each.effect],
                "p_value": each.dependence.p_value,
                "correlation": each.dependence.correlation,
                "shown": each.shown,
            }
            for each in found.edges
        ],
        "untestable": [list(pair) for pair in found.untestable],
        "contradictions": found.contradictions,
        "random_graphs": found.random.tolist(),
        "as_good": None if math.isnan(found.as_good) else found.as_good,
        "equivalent": [str(each) for each in found.alternatives],
    }


def _tables(check: Check) -> Iterator[tuple[str, TextTable]]:
    if check.graph is not None:
        yield from _graph_tables(check.graph)
    if check.leakage.units or (check.leakage.rows and not check.leakage.is_expected):
        rows = [[unit, ", ".join(splits)] for unit, splits in (check.leakage.units or {}).items()]
        if not check.leakage.is_expected:
            rows += [["equal rows", ", ".join(map(str, group))] for group in check.leakage.rows]
        title = "Units and rows in several splits"
        yield "leakage", TextTable(title, ["unit", "splits"], rows, words=2)
    pairs = [
        [each.variable, kind, ", ".join(map(str, group))]
        for each in check.duplicates
        for kind, groups in (("equal", each.exact), ("nearly equal", each.near))
        for group in groups
    ]
    if pairs:
        yield "duplicates", TextTable("Duplicates", ["variable", "kind", "images"], pairs, words=3)
    if check.overlap:
        records = [
            {"intervention": each.title, **{v: str(each.counts[v]) for v in VERDICTS}}
            for each in check.overlap
        ]
        yield "overlap", TextTable.of_records("Rows of the test split by verdict", records)
    if check.noise:
        yield "noise", noise_table(check.noise)


def _graph_tables(found: GraphCheck) -> Iterator[tuple[str, TextTable]]:
    if found.tests:
        records = [
            {
                "independence": str(each.statement),
                "verdict": "contradicted" if each.contradicted else "holds",
                "form": "curve or spread" if each.dependence.is_curved else "line or class",
                "partial correlation": f"{each.dependence.correlation:+.3f}",
                "p": _probability(each.dependence.p_value),
                "p, Holm": _probability(each.adjusted),
                "rows": str(each.dependence.rows),
            }
            for each in sorted(found.tests, key=lambda each: each.dependence.p_value)
        ]
        title = "Independences that the graph implies"
        yield "independences", TextTable.of_records(title, records, words=3)
    if found.edges:
        records = [
            {
                "edge": f"{each.cause} -> {each.effect}",
                "verdict": "shown" if each.shown else "not shown",
                "partial correlation": f"{each.dependence.correlation:+.3f}",
                "p": _probability(each.dependence.p_value),
            }
            for each in found.edges
        ]
        title = "Dependence of cause and effect, given the other parents"
        yield "edges", TextTable.of_records(title, records, words=2)
    if found.alternatives:
        count = len(found.alternatives)
        some = [[str(each)] for each in found.alternatives[:_MOST_PAIRS]]
        title = f"Graphs that imply the same independences: the first {len(some)} of {count}"
        yield "alternatives", TextTable(title, ["graph"], some)


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _draw_pictures(check: Check, data: CausalData | None) -> Iterator[tuple[str, Figure]]:
    if check.graph is not None:
        faint = [(each.cause, each.effect) for each in check.graph.edges if not each.shown]
        found = (e.statement for e in check.graph.contradicted)
        wrong = {frozenset((each.first, each.second)): each for each in found}
        missing = [(each.first, each.second) for each in wrong.values()]
        yield "graph", draw_graph(check.graph.graph, faint, missing)
        if len(check.graph.random):
            yield "random_graphs", _draw_random(check.graph)
        if check.graph.tests and check.table is not None:
            yield "dependences", _draw_dependences(check.graph, check.table)
    for each in check.duplicates if data is not None else ():
        pairs = [(group[0], group[1]) for group in [*each.exact, *each.near]][:_MOST_PAIRS]
        if pairs and data is not None:
            panels = [
                [(str(row), data.variables(row.split)[each.variable][row.row]) for row in pair]
                for pair in pairs
            ]
            yield f"duplicates_{each.variable}", _draw_pairs(panels)
    if check.noise:
        yield "noise", draw_noise_results(check.noise)


def _draw_random(found: GraphCheck) -> Figure:
    figure = PlainFigure(figsize=(5, 3), dpi=150, layout="constrained")
    axes = figure.subplots()
    most = int(max(found.random.max(), found.contradictions))
    counts = np.bincount(found.random, minlength=most + 1)
    axes.bar(range(most + 1), counts, color="#9db4cf", width=0.9)
    axes.axvline(found.contradictions, color="#c8502d", linewidth=2)
    axes.set_xlabel(f"contradicted independences (p < {found.level:g})", fontsize=8)
    axes.set_ylabel("random graphs", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8)
    axes.set_title("the line is this graph", fontsize=9)
    return figure


def _draw_dependences(found: GraphCheck, table: MixedTable) -> Figure:
    """Scatter plots of residuals, those with the smallest p-value first."""
    tests = sorted(found.tests, key=lambda each: each.dependence.p_value)[:_MOST_PANELS]
    columns = min(3, len(tests))
    rows = -(-len(tests) // columns)
    figure = PlainFigure(figsize=(2.9 * columns, 2.9 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    test = IndependenceTest(table)
    for axes, each in zip(panels, tests, strict=False):
        one, other, given = each.statement.first, each.statement.second, each.statement.given
        missing = table.incomplete & {one, other, *given}
        left, right = (test.residuals(name, given, missing)[:, 0] for name in (other, one))
        colour = "#c8502d" if each.contradicted else "#1b6ca8"
        axes.plot(left[:1000], right[:1000], ".", color=colour, markersize=2, alpha=0.6)
        p_value = _probability(each.dependence.p_value)
        given_words = f"\ngiven {', '.join(given)}" if given else ""
        axes.set_title(wrapped(f"p {p_value}{given_words}", 34), fontsize=7)
        kind = "residual of the normal score" if given else "normal score"
        axes.set_xlabel(f"{other}, {kind}", fontsize=7)
        axes.set_ylabel(f"{one}, {kind}", fontsize=7)
        axes.tick_params(labelsize=6)
    for axes in panels[len(tests) :]:
        axes.set_axis_off()
    return figure


def _draw_pairs(pairs: Sequence[Sequence[tuple[str, Any]]]) -> Figure:
    figure = PlainFigure(figsize=(4, 2.1 * len(pairs)), dpi=150, layout="constrained")
    panels = figure.subplots(len(pairs), 2, squeeze=False)
    for line, pair in zip(panels, pairs, strict=True):
        for axes, (title, image) in zip(line, pair, strict=True):
            values = np.asarray(image)
            values = values if values.ndim == 3 else values[..., values.shape[-1] // 2]
            shown = values[0] if len(values) != 3 else values.transpose(1, 2, 0).astype(np.uint8)
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
            axes.set_title(wrapped(title, 26), fontsize=7)
            axes.set_axis_off()
    return figure
