"""Tables of an evaluation, for terminals and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from deepscm_pl.lazy import first_use
from deepscm_pl.numerals import format_number

__all__ = [
    "TextTable",
    "association_table",
    "density_table",
    "effectiveness_table",
    "error_table",
    "estimated",
    "how_to_read",
    "noise_table",
    "print_table",
    "similarity_table",
    "soundness_table",
]

__getattr__ = first_use(__name__)

_EMPTY = "–"

QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles of the densities of a model."""

_ENOUGH_DRAWS = 100
"""Effective size of a sample below which its moments are omitted."""
_LARGE = 1e3
"""Numbers from this size on are written without decimals."""


@dataclass(frozen=True)
class TextTable:
    """A table of texts, which are escaped where they are written.

    Attributes:
        columns: Headings.
        words: Number of leading columns of words; the others are numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    @classmethod
    def of_records(
        cls, title: str, records: Sequence[Mapping[str, str]], words: int = 1
    ) -> TextTable:
        """Make a table from rows by heading; omit columns of numbers that are all unknown."""
        columns = [
            name
            for k, name in enumerate(records[0] if records else ())
            if k < words or any(record[name] != _EMPTY for record in records)
        ]
        return cls(title, columns, [[each[name] for name in columns] for each in records], words)

    def as_markdown(self) -> str:
        """Return the table in Markdown.

        Example:
            >>> print(TextTable("", ["what", "how many"], [["a", "2"]]).as_markdown().strip())
            | what | how many |
            |---|---:|
            | a | 2 |
        """
        lines = [f"| {' | '.join(map(for_markdown, row))} |" for row in (self.columns, *self.rows)]
        rule = ["---" if k < self.words else "---:" for k in range(len(self.columns))]
        return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]]) + "\n"

    def as_rich(self, width: int) -> RichTable:
        """Return the table for a terminal of ``width`` characters.

        Headings, and then words, are wrapped at spaces if necessary; numbers stay whole.
        """
        texts = [[for_terminal(cell) for cell in row] for row in (self.columns, *self.rows)]
        columns = list(zip(*texts, strict=True))
        whole = [max(map(cell_len, cells[1:]), default=1) for cells in columns]
        widths = [
            _longest(cells[0].split() if k >= self.words else " ".join(cells).split())
            for k, cells in enumerate(columns)
        ]
        widths[self.words :] = map(max, widths[self.words :], whole[self.words :])
        # A border, and a space on both sides of every text.
        spare = width - sum(widths) - 3 * len(widths) - 1
        for wanted in (whole, [_longest(cells) for cells in columns]):
            for k, size in enumerate(wanted):
                extra = max(0, min(size - widths[k], spare))
                widths[k] += extra
                spare -= extra
        # Use Text objects, because rich interprets markup in strings.
        table = RichTable(title=Text(for_terminal(self.title)))
        for k, cells in enumerate(columns):
            justify: Literal["left", "right"] = "left" if k < self.words else "right"
            table.add_column(Text(cells[0]), justify=justify, width=widths[k], overflow="fold")
        for row in texts[1:]:
            table.add_row(*map(Text, row))
        return table


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=1)


def print_table(table: TextTable) -> None:
    """Print a table in the width of the terminal, or of 120 characters in a file."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table.as_rich(console.width))


def _short(value: float | None) -> str:
    return _EMPTY if value is None or not math.isfinite(value) else format_number(value)


def _fixed(value: float | None, digits: int) -> str:
    return _EMPTY if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def estimated(estimate: Estimate | None, digits: int = 2, percent: bool = False) -> str:
    """Return the mean of an estimate as text, or a dash if it is unknown."""
    value = None if estimate is None else estimate.mean
    if percent and value is not None and math.isfinite(value):
        return f"{100 * value:.{digits}f} %"
    if value is not None and _LARGE <= abs(value) < math.inf:
        return f"{value:,.0f}"
    return _fixed(value, digits)


def association_table(rows: Sequence[AssociationRow], reference_name: str) -> TextTable:
    """Return a row for each quantity, with its standard error and a number to compare with."""
    records = [
        {
            "quantity": row.label,
            "unit": row.unit,
            "mean": _fixed(row.estimate.mean, 3),
            "standard error": _fixed(row.estimate.standard_error, 3),
            "rows": str(row.estimate.rows),
            reference_name: _EMPTY if row.reference is None else f"{row.reference:g}",
        }
        for row in rows
    ]
    title = "Association: means over the rows of the test split"
    return TextTable.of_records(title, records, words=2)


def density_table(results: Sequence[DensityResult]) -> TextTable:
    """Return the distance of each density from that of the world, or moments without a world."""
    if any(each.world is None for each in results):
        records = [row for each in results for row in _moments(each)]
        return TextTable.of_records("Intervention: densities of the model", records, words=2)
    records = [
        {
            "density": each.title,
            "unit": each.unit,
            "distance": _short(each.distance),
            "two samples of the world": _short(each.floor),
        }
        for each in results
    ]
    title = "Intervention: Wasserstein distance of model and world"
    return TextTable.of_records(title, records, words=2)


def _moments(result: DensityResult) -> Iterator[dict[str, str]]:
    """The moments of a density, or probabilities of its classes, except the first of two."""
    headings = ["mean", "standard deviation", "10 %", "median", "90 %"]
    empty = dict.fromkeys(headings, _EMPTY)
    if not result.classes:
        model = result.model
        numbers = [model.mean, model.deviation, *map(model.quantile, QUANTILES)]
        known = model.effective_size >= _ENOUGH_DRAWS
        found = dict(zip(headings, map(_short, numbers), strict=True)) if known else empty
        yield {"density": result.title, "unit": result.unit, **found, "probability": _EMPTY}
    given = result.title.removeprefix(f"p({result.variable}")
    for k, name in enumerate(result.classes):
        if k or len(result.classes) != 2:
            title = f"p({result.variable} = {name}{given}"
            probability = _short(result.probability(k))
            yield {"density": title, "unit": "", **empty, "probability": probability}


def error_table(results: Sequence[CounterfactualResult]) -> TextTable:
    """Return the error of each intervention against the truth, with both baselines."""
    of_first = _of_first(results)
    records = []
    for each in results:
        error, particles = each.error.mean_absolute_error, each.particles.mean_absolute_error
        ratio = each.particles.ratio.particle_mean
        records.append(
            {
                **_intervention(each),
                "error of a draw": estimated(error.particle),
                "factual unchanged": estimated(error.factual),
                "another original": estimated(error.stranger),
                "ratio to unchanged": estimated(each.error.ratio.particle, 3),
                f"error, mean of particles{of_first}": estimated(particles.particle_mean),
                f"ratio, mean of particles{of_first}": estimated(ratio, 3),
            }
        )
    title = (
        "Counterfactual: error against the truth (mean absolute, in grey levels), and its ratio to "
        "that of the factual unchanged"
    )
    return TextTable.of_records(title, records)


def similarity_table(results: Sequence[CounterfactualResult]) -> TextTable:
    """Return PSNR and SSIM of each intervention, with both baselines."""
    of_first, records = _of_first(results), []
    for each in results:
        single, mean = each.error, each.particles
        psnr = (single.peak_signal_to_noise_ratio, mean.peak_signal_to_noise_ratio)
        ssim = (single.structural_similarity, mean.structural_similarity)
        for name, digits, (error, particles) in (("PSNR (dB)", 2, psnr), ("SSIM", 3, ssim)):
            records.append(
                {
                    "intervention": each.question.title,
                    "measure": name,
                    "rows": str(each.rows),
                    "a draw": estimated(error.particle, digits),
                    "factual unchanged": estimated(error.factual, digits),
                    "another original": estimated(error.stranger, digits),
                    f"mean of particles{of_first}": estimated(particles.particle_mean, digits),
                }
            )
    title = "Counterfactual: similarity to the truth, by signal-to-noise ratio and by structure"
    return TextTable.of_records(title, records, words=2)


def _of_first(results: Sequence[CounterfactualResult]) -> str:
    """Return `` (first 500)`` if particles cover fewer rows than single draws, and else ``""``."""
    found = [each.particles.ratio.particle_mean for each in results]
    detail = max((each.rows for each in found if each is not None), default=0)
    return f" (first {detail})" if 0 < detail < max(each.rows for each in results) else ""


def _intervention(result: CounterfactualResult) -> dict[str, str]:
    return {"intervention": result.question.title, "rows": str(result.rows)}


def effectiveness_table(
    results: Sequence[CounterfactualResult], attributes: Sequence[str], unit: Callable[[str], str]
) -> TextTable:
    """Return errors of attributes measured in counterfactual images."""
    records = []
    for each in results:
        for name in attributes:
            if name not in each.effectiveness:
                continue
            found = each.effectiveness[name]
            true, floor = found.true, found.noise_floor
            records.append(
                {
                    "intervention": each.question.title,
                    "attribute": name,
                    "unit": unit(name) or _EMPTY,
                    "error": estimated(found.intended.absolute_error, 3),
                    "bias": estimated(found.intended.bias, 3),
                    "error against the truth": estimated(true.absolute_error if true else None, 3),
                    "noise floor": estimated(floor.absolute_error if floor else None, 3),
                    "unmeasurable": estimated(found.intended.unmeasurable, 2, percent=True),
                }
            )
    title = "Effectiveness: attributes measured in counterfactual images"
    return TextTable.of_records(title, records, words=3)


def soundness_table(results: Sequence[CounterfactualResult]) -> TextTable:
    """Return reversibility, identity, minimality and coverage of each intervention."""
    records = []
    for each in results:
        change, covered = each.minimality, each.coverage.varying
        records.append(
            {
                **_intervention(each),
                "there and back": estimated(each.reversibility.get(1)),
                "10 times": estimated(each.reversibility.get(10)),
                "identity kept": estimated(each.identity.kept, 1, percent=True),
                "by the truth": estimated(each.identity.truth, 1, percent=True),
                "change": estimated(change.counterfactual),
                "true change": estimated(change.truth),
                "change ÷ true change": estimated(change.ratio, 3),
                "coverage of 50 %": estimated(covered.get(0.5), 1, percent=True),
                "of 90 %": estimated(covered.get(0.9), 1, percent=True),
            }
        )
    title = "Soundness: reversibility and change in grey levels, identity and coverage in percent"
    return TextTable.of_records(title, records)


def noise_table(results: Sequence[NoiseResult]) -> TextTable:
    """Return statistics of the abducted noise of each variable, whose prior is N(0, 1)."""
    records = []
    for each in results:
        found = each.statistics
        related = ", ".join(f"{name} {value:+.3f}" for name, value in found.correlations.items())
        records.append(
            {
                "noise": f"{each.part} of {each.variable}",
                "correlation with parents": related or _EMPTY,
                "by chance up to": _fixed(found.correlation_by_chance, 3),
                "rows": str(each.rows),
                "numbers": str(each.entries),
                "Kolmogorov–Smirnov": _fixed(found.kolmogorov_smirnov, 4),
                # Entries of one image are dependent, so that p is not defined.
                "p": _fixed(found.p_value if each.entries == 1 else None, 3),
                "mean": _fixed(found.mean, 3),
                "standard deviation": _fixed(found.standard_deviation, 3),
            }
        )
    title = "Noise: inferred from the test split, against its prior N(0, 1)"
    return TextTable.of_records(title, records, words=2)


_SENTENCES: Mapping[str, Mapping[str, str]] = {
    "association": {
        "": (
            "The higher log p, the better the model explains the images; ≥ marks a lower bound, "
            "the evidence lower bound with its number of draws of the latent for each image."
        ),
        "bits per dimension": (
            "Bits per dimension are comparable between images of any size: fewer are better, and "
            "a uniform distribution has 8."
        ),
        "no likelihood": (
            "A variable without a likelihood has the loss of its mechanism in a validation instead "
            "of log p, and the model has no joint log p. Samples of a trained generator vary about "
            "as much as the data; 0 is a collapse. A critic that recognises half of observed and "
            "generated images is deceived."
        ),
        "gain of K": (
            "Bounds with K draws are tighter, but cover fewer rows: compare them by their gain "
            "over the bound of the same rows. A larger gain means a worse encoder."
        ),
    },
    "densities": {
        "two samples of the world": (
            "*Distance* is how far, on average, probability has to be moved to turn the model's "
            "density into the world's; 0 is perfect. *Two samples of the world* is the distance "
            "between two finite samples of the same world: a model with a similar distance cannot "
            "be distinguished from it. p(effect | do(cause)) depends on the value, because a cause "
            "changes its effect; p(cause | do(effect)) must not, because an effect does not change "
            "its cause."
        ),
        "90 %": (
            "Densities of the model, given only these values. p(effect | do(cause)) depends on the "
            "value, because a cause changes its effect. p(cause | effect) is the information of "
            "an observed effect about its cause, which an intervention on the effect lacks."
        ),
        "": "If an effect has several root causes, its density given all of them is included.",
    },
    "errors": {
        "": (
            "*Error of a draw* is the difference between a counterfactual image of the model and "
            "that of the known world. It has two baselines: *factual unchanged*, the error of no "
            "change at all, and *another original*, the error of the true image of another "
            "original with the same attributes: a perfect intervention on another individual. A "
            "model with a larger error has lost the identity. *Ratio to unchanged*: 0 is perfect, "
            "and at 1 the model is no better than no change at all."
        ),
    },
    "similarity": {
        "": (
            "Higher values of the peak signal-to-noise ratio (PSNR) and of the structural "
            "similarity (SSIM, at most 1) are better; the baselines are those above."
        ),
    },
    "effectiveness": {
        "": (
            "Attributes are measured in the images of the model. *Error* and *bias* refer to the "
            "model's own target, set or predicted;"
        ),
        "error against the truth": (
            "*error against the truth*, for effects of the intervention, refers to the value in "
            "the world, and reveals a wrong causal mechanism;"
        ),
        "attribute": (
            "0 is perfect, and the *noise floor*, the measurement error in true images, is about "
            "the best measurable result. *Unmeasurable* images are excluded from the errors."
        ),
    },
    "reaction": {
        "": (
            "Each cause is set to its value in another test row. *Change of the image* is the "
            "difference to the factual image, divided by that of two test images: near 0, the "
            "image does not react."
        ),
        "asked changes shown": (
            "A predictor, trained on the training images, reads the cause from the images. *Asked "
            "changes shown* is the share of the asked changes that it reads: 100 % is perfect, and "
            "near 0 the image does not react. *Error of counterfactuals* is that of the values "
            "read against those asked; *of test images*, that of the predictor itself, is about "
            "the best possible. The predictor learns from combinations of causes that occur in the "
            "data, and is less reliable for others."
        ),
    },
    "shown": {
        "share of pixel noise": (
            "*Share of pixel noise*: the part of the answers that the pixel noise of the factual "
            "image carries, and not the decoder. Near 100 %, counterfactual images repeat the "
            "factual ones, whatever was asked."
        ),
        "error shown": (
            "*Error shown* compares what a predictor reads with the value in the answer: *set* by "
            "the intervention, *effect* of it, or *kept*. It should be close to the *error in test "
            "images*."
        ),
    },
    "soundness": {
        "there and back": (
            "*There and back* is the error after an intervention and its inverse, *10 times* that "
            "after ten such cycles; 0 is perfect."
        ),
        "identity kept": (
            "*Identity kept* is how often a classifier predicts the same class as for the factual "
            "image."
        ),
        "by the truth": (
            "*By the truth* is how often it does so for the true image; both should be similar."
        ),
        "change ÷ true change": (
            "*Change ÷ true change*: above 1, the model changes more than necessary; below 1, less."
        ),
        "coverage of 50 %": (
            "*Coverage* is how often the true pixel is inside the central interval of the "
            "particles, over pixels that vary. It should equal the level of the interval; a model "
            "with less is overconfident, with more underconfident."
        ),
    },
    "intervals": {
        "": (
            "*Spread ÷ error* is the standard deviation of the particles over the error of their "
            "mean: about 1 for an exact model, and below if the particles are too sure. *Particles "
            "hold* is the share of varying pixels whose truth lies inside the 90 % interval of the "
            "particles, *width* its mean width;"
        ),
        "calibrated hold": (
            "*calibrated hold* is that of the calibrated intervals, which should be 90 %, with "
            "*calibrated width*; *of all pixels* includes those that do not vary."
        ),
    },
    "overlap": {
        "": (
            "*Supported* answers are near training data, answers at the *edge* have few effective "
            "training rows near the values of the parents, and *extrapolated* answers have none, "
            "or set a value beyond the training data: no data support them, whatever the other "
            "tables say."
        ),
    },
    "overlap_errors": {
        "": (
            "Each continuous cause is set to values within and beyond the training data, where the "
            "known world gives the truth. The verdicts can be trusted if the error rises from "
            "*supported* to *extrapolated*; where it does not, the model happens to extrapolate "
            "well in this world. *Ratio*: the error divided by that of the factual value unchanged."
        ),
    },
    "composition": {
        "": (
            "A null intervention, repeated once and ten times, must not change the image. *All "
            "noise inferred*: zero by construction, whatever the model has learned, where pixel "
            "noise is inferred exactly; a larger error is a defect of the mechanism. *Without "
            "pixel noise*: the image of the inferred latent alone, encoded anew each time, which "
            "shows what the latent does not keep of an image; it is zero without a latent."
        ),
    },
    "sensitivity": {
        "": (
            "Data determine association and intervention, but not the coupling of the noise under "
            "different parents, which counterfactuals also depend on and each mechanism chooses. "
            "*Moves by*: how far answers move if one mechanism had another coupling with equal "
            "densities; *change*: how far the intervention itself moves the variable. A ratio "
            "near 0 means that the answer hardly depends on the choice; near 1 or above, it is "
            "the choice. *Independent* keeps nothing of an individual and *reversed* exchanges "
            "high and low: they are extremes, not plausible alternatives. No test on data "
            "can tell couplings apart. Classes: share of answers that differ."
        ),
    },
    "noise": {
        "": (
            "The noise that a correct model infers is standard normal and independent of the "
            "parents: *Kolmogorov–Smirnov*, the largest difference between the two distribution "
            "functions, and *mean* are near 0, *standard deviation* is near 1, and *p*, known "
            "for scalar noise only, is rarely below 0.05. *Correlation with parents*, the "
            "largest for multi-dimensional noise, is below *by chance up to* in 95 % of correct "
            "models. Both account for the estimation of the mechanism from the training split. "
            "A larger correlation means that the mechanism or the graph does not fit."
        ),
    },
}
"""Explanations for each table, by a text in its headings or first column; "" for any table."""


def how_to_read(name: str, table: TextTable) -> str:
    """Explain the columns and rows of a table of a report.

    Example:
        >>> table = TextTable("", ["intervention", "there and back"], [["do(a = 1)", "0.00"]])
        >>> how_to_read("soundness", table)
        '*There and back* is the error after an intervention and its inverse, ...'
    """
    shown = "\n".join([*table.columns, *(row[0] for row in table.rows)])
    return " ".join(sentence for sought, sentence in _SENTENCES[name].items() if sought in shown)
