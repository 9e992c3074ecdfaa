"""The tables of an evaluation, as text for a terminal and for Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from textwrap import wrap
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from deepscm_pl.escaping import for_markdown, for_terminal
from deepscm_pl.evaluation.association import AssociationRow
from deepscm_pl.evaluation.densities import DensityResult
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.noise import NoiseResult
from deepscm_pl.evaluation.results import CounterfactualResult
from deepscm_pl.numerals import format_number

__all__ = [
    "Table",
    "association_table",
    "density_table",
    "effectiveness_table",
    "error_table",
    "how_to_read",
    "noise_table",
    "print_table",
    "similarity_table",
    "soundness_table",
]

_EMPTY = "–"

QUANTILES = (0.1, 0.5, 0.9)
"""Of the densities of a model, where no world is known."""

_ENOUGH_DRAWS = 100
"""Below so many draws' worth, a density is not described by numbers."""
_LARGE = 1e3
"""From here on digits behind the point would only hide those before it."""


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns, which may come from files: they are shown as they are.

    Attributes:
        title: What the table is about.
        columns: Headings.
        rows: A text for each column.
        words: How many of the first columns are words; the others are numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def without_empty_columns(self) -> Table:
        """The table without columns in which nothing is known."""
        kept = [
            k
            for k in range(len(self.columns))
            if k < self.words or any(row[k] != _EMPTY for row in self.rows)
        ]
        return replace(
            self,
            columns=[self.columns[k] for k in kept],
            rows=[[row[k] for k in kept] for row in self.rows],
        )

    def as_markdown(self) -> str:
        """The table in Markdown.

        Example:
            >>> print(Table("", ["what", "how many"], [["a", "2"]]).as_markdown().strip())
            | what | how many |
            |---|---:|
            | a | 2 |
        """
        rule = ["---" if k < self.words else "---:" for k in range(len(self.columns))]
        lines = [_line(self.columns), f"|{'|'.join(rule)}|", *map(_line, self.rows)]
        return "\n".join(lines) + "\n"

    def as_rich(self, width: int) -> RichTable:
        """The table for a terminal of ``width`` characters.

        Where it is too wide, headings are broken between words; where that is not enough, texts
        are, after commas, and in the end between words. Numbers stay whole.
        """
        shown = self._for_terminal()
        least = shown._least_widths()
        columns = [
            max(cell_len(name), size) for name, size in zip(shown.columns, least, strict=True)
        ]
        if _total(columns) > width:
            if _total(shown._least_widths()) > width:
                broken = [[cell.replace(", ", ",\n") for cell in row] for row in shown.rows]
                shown = replace(shown, rows=broken)
            if _total(shown._least_widths()) > width:
                shown = shown._narrowed()
            columns = shown._least_widths()
        return shown._as_rich(columns)

    def _as_rich(self, widths: Sequence[int]) -> RichTable:
        """The table in columns of these widths; texts, for rich finds markup in strings."""
        table = RichTable(title=Text(self.title))
        for k, column in enumerate(self.columns):
            justify: Literal["left", "right"] = "left" if k < self.words else "right"
            table.add_column(Text(column), justify=justify, width=widths[k])
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def _for_terminal(self) -> Table:
        """The table without characters that a terminal obeys."""
        return replace(
            self,
            title=for_terminal(self.title),
            columns=[for_terminal(column) for column in self.columns],
            rows=[[for_terminal(cell) for cell in row] for row in self.rows],
        )

    def _narrowed(self) -> Table:
        """The table with columns of words as narrow as their longest word."""
        longest = [
            max((cell_len(word) for row in self.rows for word in row[k].split()), default=1)
            for k in range(self.words)
        ]
        narrow = [[_wrapped(row[k], size) for k, size in enumerate(longest)] for row in self.rows]
        rows = [[*words, *row[self.words :]] for words, row in zip(narrow, self.rows, strict=True)]
        return replace(self, rows=rows)

    def _least_widths(self) -> list[int]:
        """The width of each column if its heading has a line for each word."""
        lines = [
            [*column.split(), *(line for row in self.rows for line in row[k].splitlines())]
            for k, column in enumerate(self.columns)
        ]
        return [max(map(cell_len, each), default=1) for each in lines]


def _wrapped(text: str, width: int) -> str:
    """Lines of at most ``width`` characters, broken between words."""
    lines = (wrap(line, width, break_on_hyphens=False) for line in text.splitlines())
    return "\n".join(part for parts in lines for part in parts)


def _total(columns: Sequence[int]) -> int:
    """The width of a table with its lines, and a space on both sides of every text."""
    return sum(columns) + 3 * len(columns) + 1


def print_table(table: Table) -> None:
    """Print a table; into a file, or where nobody says how wide the terminal is, 120 wide."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table.as_rich(console.width))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(for_markdown, cells)) + " |"


def _short(value: float | None) -> str:
    return _EMPTY if value is None or not math.isfinite(value) else format_number(value)


def _fixed(value: float | None, digits: int) -> str:
    return _EMPTY if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _as_percent(share: float | None, digits: int) -> str:
    percent = _fixed(None if share is None else 100 * share, digits)
    return percent if percent == _EMPTY else f"{percent} %"


def _estimated(estimate: Estimate | None, digits: int = 2, percent: bool = False) -> str:
    value = None if estimate is None else estimate.mean
    if percent:
        return _as_percent(value, digits)
    if value is not None and _LARGE <= abs(value) < math.inf:
        return f"{value:,.0f}"
    return _fixed(value, digits)


def association_table(rows: Sequence[AssociationRow], reference_name: str) -> Table:
    """Quantity, unit, mean, standard error, rows, and what to compare with."""
    return Table(
        "Association: means over the images of the test split",
        ["quantity", "unit", "mean", "standard error", "images", reference_name],
        [
            [
                row.label,
                row.unit,
                _fixed(row.estimate.mean, 3),
                _fixed(row.estimate.standard_error, 3),
                str(row.estimate.rows),
                _EMPTY if row.reference is None else f"{row.reference:g}",
            ]
            for row in rows
        ],
        words=2,
    ).without_empty_columns()


def density_table(results: Sequence[DensityResult]) -> Table:
    """Each density with its distance from the world's, or without a world what it is like."""
    if any(each.world is None for each in results):
        return _model_density_table(results)
    return Table(
        "Intervention: Wasserstein distance of model and world",
        ["density", "unit", "distance", "two samples of the world"],
        [[each.title, each.unit, *map(_short, (each.distance, each.floor))] for each in results],
        words=2,
    )


def _model_density_table(results: Sequence[DensityResult]) -> Table:
    """Mean, spread and quantiles of each density, and the probability of each class."""
    return Table(
        "Intervention: densities of the model",
        ["density", "unit", "mean", "standard deviation", "10 %", "median", "90 %", "probability"],
        [row for each in results for row in _rows_of_density(each)],
        words=2,
    ).without_empty_columns()


def _rows_of_density(result: DensityResult) -> list[list[str]]:
    """One row, or one for each class, of which two need a single one."""
    classes = list(enumerate(result.classes))
    if not classes:
        numbers: list[float | None] = [result.model.mean, result.model.deviation]
        numbers += [result.model.quantile(share) for share in QUANTILES]
        if result.model.effective_size < _ENOUGH_DRAWS:
            numbers = [None] * len(numbers)
        return [[result.title, result.unit, *map(_short, numbers), _EMPTY]]
    empty = [_EMPTY] * (2 + len(QUANTILES))
    given = result.title.removeprefix(f"p({result.variable}")
    return [
        [f"p({result.variable} = {name}{given}", "", *empty, _short(result.probability(k))]
        for k, name in classes[1 if len(classes) == 2 else 0 :]
    ]


def error_table(results: Sequence[CounterfactualResult]) -> Table:
    """Each intervention with its error against the truth and both baselines.

    Particles are of fewer rows than single draws, which their headings say.
    """
    of_first = _of_first(results)

    def cells(each: CounterfactualResult) -> dict[str, str]:
        error, particles = each.error.mean_absolute_error, each.particles.mean_absolute_error
        ratio = each.particles.ratio.particle_mean
        return {
            "error of a draw": _estimated(error.particle),
            "factual unchanged": _estimated(error.factual),
            "another original": _estimated(error.stranger),
            "ratio to unchanged": _estimated(each.error.ratio.particle, 3),
            f"error, mean of particles{of_first}": _estimated(particles.particle_mean),
            f"ratio, mean of particles{of_first}": _estimated(ratio, 3),
        }

    return _by_intervention(
        "Counterfactual: error against the truth (mean absolute, in grey levels), and its ratio to "
        "that of the factual unchanged",
        results,
        cells,
    )


def similarity_table(results: Sequence[CounterfactualResult]) -> Table:
    """Each intervention with two more measures, of the answer and of both baselines."""
    rows = []
    for each in results:
        for name, digits, error, particles in (
            (
                "PSNR (dB)",
                2,
                each.error.peak_signal_to_noise_ratio,
                each.particles.peak_signal_to_noise_ratio,
            ),
            ("SSIM", 3, each.error.structural_similarity, each.particles.structural_similarity),
        ):
            found = (error.particle, error.factual, error.stranger, particles.particle_mean)
            texts = (_estimated(estimate, digits) for estimate in found)
            rows.append([each.question.title, name, str(each.rows), *texts])
    headings = ["intervention", "measure", "images", "a draw", "factual unchanged"]
    headings += ["another original", f"mean of particles{_of_first(results)}"]
    title = "Counterfactual: similarity to the truth, by signal-to-noise ratio and by structure"
    return Table(title, headings, rows, words=2).without_empty_columns()


def _of_first(results: Sequence[CounterfactualResult]) -> str:
    """`` (first 500)``, where particles are of fewer rows than single draws."""
    found = [each.particles.ratio.particle_mean for each in results]
    detail = max((each.rows for each in found if each is not None), default=0)
    return f" (first {detail})" if 0 < detail < max(each.rows for each in results) else ""


def effectiveness_table(
    results: Sequence[CounterfactualResult], attributes: Sequence[str], unit: Callable[[str], str]
) -> Table:
    """Measured attributes against what they should be."""
    columns = ["error", "bias", "error against the truth", "noise floor", "unmeasurable"]
    rows = []
    for each in results:
        for name in attributes:
            if name in each.effectiveness:
                found = each.effectiveness[name]
                texts = (
                    _estimated(found.intended.absolute_error, 3),
                    _estimated(found.intended.bias, 3),
                    _estimated(found.true.absolute_error if found.true else None, 3),
                    _estimated(found.noise_floor.absolute_error if found.noise_floor else None, 3),
                    _estimated(found.intended.unmeasurable, 2, percent=True),
                )
                rows.append([each.question.title, name, unit(name) or _EMPTY, *texts])
    return Table(
        "Effectiveness: attributes measured in counterfactual images",
        ["intervention", "attribute", "unit", *columns],
        rows,
        words=3,
    ).without_empty_columns()


def soundness_table(results: Sequence[CounterfactualResult]) -> Table:
    """Reversibility, identity, minimality, coverage."""

    def cells(each: CounterfactualResult) -> dict[str, str]:
        change, covered = each.minimality, each.coverage.varying
        return {
            "there and back": _estimated(each.reversibility.get(1)),
            "10 times": _estimated(each.reversibility.get(10)),
            "identity kept": _estimated(each.identity.kept, 1, percent=True),
            "by the truth": _estimated(each.identity.truth, 1, percent=True),
            "change": _estimated(change.counterfactual),
            "true change": _estimated(change.truth),
            "change ÷ true change": _estimated(change.ratio, 3),
            "coverage of 50 %": _estimated(covered.get(0.5), 1, percent=True),
            "of 90 %": _estimated(covered.get(0.9), 1, percent=True),
        }

    return _by_intervention(
        "Soundness: reversibility and change in grey levels, identity and coverage in percent",
        results,
        cells,
    )


def _by_intervention(
    title: str,
    results: Sequence[CounterfactualResult],
    cells: Callable[[CounterfactualResult], dict[str, str]],
) -> Table:
    """A line for each intervention; cells by their headings."""
    rows = [[each.question.title, str(each.rows), *cells(each).values()] for each in results]
    return Table(
        title, ["intervention", "images", *cells(results[0])], rows
    ).without_empty_columns()


def noise_table(results: Sequence[NoiseResult]) -> Table:
    """The abducted noise of each variable against N(0, 1)."""
    return Table(
        "Noise: inferred from the test split, against its prior N(0, 1)",
        [
            "noise",
            "correlation with parents",
            "by chance up to",
            "images",
            "numbers",
            "Kolmogorov–Smirnov",
            "p",
            "mean",
            "standard deviation",
        ],
        [
            [
                f"{each.part} of {each.variable}",
                _correlations(each.statistics.correlations),
                _fixed(_by_chance(each), 3),
                str(each.rows),
                str(each.entries),
                _fixed(each.statistics.kolmogorov_smirnov, 4),
                # Entries of one image depend on each other, so that p would say nothing.
                _fixed(each.statistics.p_value if each.entries == 1 else None, 3),
                _fixed(each.statistics.mean, 3),
                _fixed(each.statistics.standard_deviation, 3),
            ]
            for each in results
        ],
        words=2,
    )


def _by_chance(result: NoiseResult) -> float | None:
    """What the largest correlation with an independent parent stays below in 95 % of samples."""
    if result.rows < 2 or not result.statistics.correlations:
        return None
    # A correlation of n independent pairs is about N(0, 1/n), the largest of m the m-th power.
    single = 0.95 ** (1 / result.entries)
    return min(1.0, NormalDist().inv_cdf((1 + single) / 2) / math.sqrt(result.rows))


def _correlations(correlations: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:+.3f}" for name, value in correlations.items()) or _EMPTY


_SENTENCES: Mapping[str, Sequence[tuple[str, str]]] = {
    "association": [
        (
            "",
            "The higher log p, the better the model explains the images; ≥ marks a lower bound of "
            "it, the evidence lower bound with its draws of the latent for each image.",
        ),
        (
            "bits per dimension",
            "Bits per dimension put images of any size on one scale: the fewer, the better, and 8 "
            "for a uniform distribution.",
        ),
        (
            "gain of K",
            "Bounds with K draws are tighter, but of fewer images: compare them by their gain over "
            "the bound of the same images, which is the larger, the worse the encoder.",
        ),
    ],
    "densities": [
        (
            "two samples of the world",
            "*Distance* is how far, on average, probability has to be moved to turn the model's "
            "density into the world's; 0 is perfect. *Two samples of the world* is how far apart "
            "two finite samples of the same world are: a model about as near cannot be told from "
            "it. An effect follows its cause, so that p(effect | do(cause)) moves with the value; "
            "a cause does not follow its effect, so that p(cause | do(effect)) must not.",
        ),
        (
            "90 %",
            "What the model says of those on whom nothing is known but what is given. An effect "
            "follows its cause: p(effect | do(cause)) moves with the value. p(cause | effect) is "
            "what observing the effect tells of its cause, which setting it would not.",
        ),
        ("", "Where an effect has several first causes, it is also given all of them at once."),
    ],
    "errors": [
        (
            "",
            "*Error of a draw* is how far a counterfactual image of the model is from what the "
            "world says it would have been. It has two baselines: *factual unchanged*, the error "
            "of doing nothing, and *another original*, the error of the true image of another "
            "original with the same attributes, which is the intervention done perfectly on "
            "someone else; a model above that has lost the identity. *Ratio to unchanged*: 0 is "
            "perfect, and at 1 the model is no better than doing nothing.",
        ),
    ],
    "similarity": [
        (
            "",
            "Peak signal-to-noise ratio (PSNR) and structural similarity (SSIM, 1 at best) are the "
            "better, the higher; the baselines are those above.",
        ),
    ],
    "effectiveness": [
        (
            "",
            "Attributes are measured in the images of the model. *Error* and *bias* are against "
            "the value that the model itself intended;",
        ),
        (
            "error against the truth",
            "*error against the truth*, where an attribute follows what was done, is against the "
            "world's, and shows a wrong causal mechanism;",
        ),
        (
            "",
            "0 is perfect, and about the *noise floor*, the error of measuring true images, is as "
            "good as can be told. *Unmeasurable* images are left out of the errors.",
        ),
    ],
    "soundness": [
        (
            "there and back",
            "*There and back*, and *10 times* so, is the error of doing and undoing; 0 is perfect.",
        ),
        (
            "identity kept",
            "*Identity kept* is how often a classifier sees the same class as in the factual "
            "image.",
        ),
        (
            "by the truth",
            "*By the truth* is how often it does in the true image: about as often is right.",
        ),
        (
            "change ÷ true change",
            "*Change ÷ true change*: above 1 the model changes more than it has to, below 1 less.",
        ),
        (
            "coverage of 50 %",
            "*Coverage* is how often the true pixel lies in the central interval of the particles, "
            "over pixels that vary: it should be the level of the interval; below it the model is "
            "too sure, above it not sure enough.",
        ),
    ],
    "noise": [
        (
            "",
            "The noise that a right model infers is standard normal and independent of the "
            "parents: *Kolmogorov–Smirnov*, the largest distance of the two distribution "
            "functions, and *mean* are near 0, *standard deviation* is near 1, and *p*, known "
            "where the noise is a single number, is rarely below 0.05. *Correlation with parents*, "
            "of many numbers the largest, stays below *by chance up to* in 95 of 100 models that "
            "are right: about 2/√n for one number of n images, more for the largest of many. "
            "Beyond it, the mechanism or the graph does not fit.",
        ),
    ],
}
"""For each table, what to look for in it, and what to say if it is there."""


def how_to_read(name: str, table: Table) -> str:
    """What is good and what is bad in a table of a report, of what it shows.

    Example:
        >>> table = Table("", ["intervention", "there and back"], [["do(a = 1)", "0.00"]])
        >>> how_to_read("soundness", table)
        '*There and back*, and *10 times* so, is the error of doing and undoing; 0 is perfect.'
    """
    shown = "\n".join([*table.columns, *(row[0] for row in table.rows)])
    return " ".join(said for sought, said in _SENTENCES[name] if sought in shown)
