"""Whether intervals of particles hold the truth as often as they should."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from matplotlib import colormaps
from matplotlib.figure import Figure

from deepscm_pl.evaluation.counterfactuals import COVERAGE_LEVELS, CounterfactualResult
from deepscm_pl.figures.plain import PlainFigure
from deepscm_pl.figures.text import height_of, width_of, wrapped

__all__ = ["draw_coverage", "has_coverage"]

_MARKERS = "osD^v<>Ph*Xd"
_LINES: tuple[str, ...] = ("-", "--", "-.", ":")
_SIZE = 4.0
"""Of the axes, in inches."""


def draw_coverage(results: Sequence[CounterfactualResult], particles: str) -> Figure:
    """How often the truth lies in intervals of each level, over pixels that vary.

    Args:
        results: At least one, with coverage.
        particles: How many particles intervals are of, and of which images.
    """
    titles = [wrapped(result.question.title, 40) for result in results]
    beside, lines = width_of(titles, 8) + 1.2, "\n".join([*titles, "exact"])
    size = (_SIZE + beside, max(_SIZE, 1.3 * height_of([lines], 8) + 0.4))
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="0.85", linewidth=5, label="exact")
    for k, (result, title) in enumerate(zip(results, titles, strict=True)):
        levels, shares = _known(result)
        axes.plot(levels, shares, color=colormaps["tab10"](k % 10), linestyle=_LINES[k % 4],
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
    """Whether there is a level at which coverage is known: at none where no pixel varies."""
    return bool(_known(result)[0])


def _known(result: CounterfactualResult) -> tuple[list[float], list[float]]:
    """The levels at which coverage is known, and the coverage, in percent.

    A few particles do not tell intervals of a high level apart.
    """
    found = {
        level: result.quantities.get(f"coverage/varying/{level:g}") for level in COVERAGE_LEVELS
    }
    known = {level: each.mean for level, each in found.items() if each and isfinite(each.mean)}
    return [100 * level for level in known], [100 * share for share in known.values()]
