"""Pictures of coverage, errors and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from deepscm_pl import figures
from deepscm_pl.escaping import for_picture
from deepscm_pl.evaluation.estimate import Estimate
from deepscm_pl.evaluation.noise import NoiseResult
from deepscm_pl.evaluation.results import CounterfactualResult
from deepscm_pl.figures.output import PlainFigure, height_of, width_of, wrapped

__all__ = ["draw_coverage", "draw_errors", "draw_noise_results", "has_coverage"]

_MARKERS = "osD^v<>Ph*Xd"
_LINE_STYLES: tuple[str, ...] = ("-", "--", "-.", ":")
_AXES_SIZE = 4.0
"""Size of the axes, in inches."""


def draw_coverage(results: Sequence[CounterfactualResult], particles: str) -> Figure:
    """Draw the coverage of varying pixels by intervals of each level.

    Args:
        results: At least one, with coverage.
        particles: Description of the number of particles and rows, used as the title.
    """
    titles = [wrapped(result.question.title, 40) for result in results]
    beside, lines = width_of(titles, 8) + 1.2, "\n".join([*titles, "exact"])
    size = (_AXES_SIZE + beside, max(_AXES_SIZE, 1.3 * height_of([lines], 8) + 0.4))
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="0.85", linewidth=5, label="exact")
    for k, (result, title) in enumerate(zip(results, titles, strict=True)):
        levels, shares = _known(result)
        axes.plot(levels, shares, color=colormaps["tab10"](k % 10), linestyle=_LINE_STYLES[k % 4],
                  marker=_MARKERS[k % len(_MARKERS)], markerfacecolor="none", markersize=5,
                  linewidth=1.2, label=title)  # fmt: skip
    axes.set_title(particles, fontsize=9)
    axes.set_xlabel("level of the central interval of the particles (%)", fontsize=8)
    axes.set_ylabel("varying pixels whose truth lies inside (%)", fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False,
                handlelength=3.5, borderaxespad=0)  # fmt: skip
    return figure


def has_coverage(result: CounterfactualResult) -> bool:
    """Return whether coverage is known at a level, which needs varying pixels."""
    return bool(_known(result)[0])


def _known(result: CounterfactualResult) -> tuple[list[float], list[float]]:
    """Levels with known coverage, and the coverage, in percent."""
    covered = result.coverage.varying
    known = {level: each.mean for level, each in covered.items() if isfinite(each.mean)}
    return [100 * level for level in known], [100 * share for share in known.values()]


_MODEL, _OTHER, _LINE = "#1b6ca8", "#c8502d", "#333333"
_BANDS = ("0.955", "white")
_AXIS = (
    "error against the true counterfactual ÷ that of the factual unchanged\n"
    "(logarithmic, ± 2 standard errors; at 1 the model is no better than doing nothing)"
)


@dataclass(frozen=True)
class _Series:
    """The estimates of one kind of answer for each intervention."""

    label: str
    marker: str
    colour: str
    filled: bool
    below: float
    """Distance below the middle of the row of an intervention, in rows."""
    estimates: Sequence[Estimate | None]


def draw_errors(results: Sequence[CounterfactualResult], particles: str = "") -> Figure:
    """Draw errors of interventions relative to the error of the factual unchanged.

    Args:
        results: At least one, with truth.
        particles: Description of the number of particles and rows; empty omits their mean.
    """
    titles = [wrapped(result.question.title, 40) for result in results]
    size = (width_of(titles, 8) + 5.2, 0.56 * len(results) + 1.5)
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    series = _series(results, particles)
    _scale_axis(axes, series)
    for row in range(len(results)):
        axes.axhspan(row - 0.5, row + 0.5, color=_BANDS[row % 2], linewidth=0, zorder=0)
    axes.axvline(1, color=_LINE, linestyle="--", linewidth=1, label="factual unchanged", zorder=1)
    for each in series:
        _draw_series(axes, each)
    axes.set_yticks(range(len(results)), map(for_picture, titles), fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(_AXIS, fontsize=8)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _series(results: Sequence[CounterfactualResult], particles: str) -> list[_Series]:
    means = [result.particles.ratio.particle_mean for result in results]
    draws = [result.error.ratio.particle for result in results]
    others = [_another_original(result) for result in results]
    rows = max(result.rows + result.left_out for result in results)
    series = [
        _Series(f"mean of {particles}", "o", _MODEL, True, -0.27, means),
        _Series(f"single draw, {rows} rows", "o", _MODEL, False, 0.0, draws),
        _Series("another original, same attributes", "D", _OTHER, True, 0.27, others),
    ]
    return series if particles else series[1:]


def _another_original(result: CounterfactualResult) -> Estimate | None:
    error = result.error.mean_absolute_error
    other, factual = error.stranger, error.factual
    if other is None or factual is None or not factual.mean > 0:
        return None
    return Estimate(other.mean / factual.mean, float("nan"), other.rows)


def _scale_axis(axes: Axes, series: Sequence[_Series]) -> None:
    """Set a logarithmic axis with room for all dots and, on their right, their values."""
    ends = [1.0]
    for each in series:
        known = [estimate for estimate in each.estimates if estimate is not None]
        ends += [estimate.mean for estimate in known]
        ends += [estimate.mean + _half_width(estimate) for estimate in known]
    positive = [end for end in ends if 0 < end < np.inf]
    low, high = min(positive), max(positive)
    span = max(high / low, 2.0)
    axes.set_xscale("log")
    axes.set_xlim(low / span ** (0.25 if 0 in ends else 0.06), high * span**0.16)
    steps = (1.0, 2.0, 5.0) if span < 300 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _half_width(estimate: Estimate) -> float:
    """Two standard errors, or 0 if unknown."""
    return float(np.nan_to_num(2 * estimate.standard_error, posinf=0.0))


def _draw_series(axes: Axes, series: _Series) -> None:
    face = series.colour if series.filled else "white"
    style: dict[str, Any] = {"color": series.colour, "markerfacecolor": face}
    style |= {"markersize": 5, "linewidth": 1}
    axes.plot([], [], series.marker, label=series.label, **style)
    for row, estimate in enumerate(series.estimates):
        if estimate is None or not np.isfinite(estimate.mean):
            continue
        height, width = row + series.below, _half_width(estimate)
        # An arrow at the left end of the logarithmic axis marks an error of 0.
        at = estimate.mean if estimate.mean > 0 else axes.get_xlim()[0]
        marker = series.marker if estimate.mean > 0 else "<"
        ends = [max(at - width, axes.get_xlim()[0]), at + width]
        axes.plot(ends, [height, height], color=series.colour, linewidth=1.2)
        axes.plot([at], [height], marker, clip_on=False, **style)
        text = axes.annotate(_three_digits(estimate.mean), (ends[1], height), (5, -0.5), fontsize=7,
                             textcoords="offset points", va="center_baseline")  # fmt: skip
        # The outline keeps the text readable on the line at 1.
        text.set_path_effects([withStroke(linewidth=3, foreground=_BANDS[row % 2])])


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".") if value else "0"


def draw_noise_results(results: Sequence[NoiseResult]) -> Figure:
    """Draw histograms of abducted noise, and the prior N(0, 1)."""
    return figures.draw_noise({_noise_title(result): result.sample for result in results})


def _noise_title(result: NoiseResult) -> str:
    """Return such as ``z of image``, and below it ``n = 500 rows, 64 numbers each``."""
    numbers = f", {result.entries} numbers each" if result.entries > 1 else ""
    return f"{result.part} of {result.variable}\nn = {result.rows} rows{numbers}"
