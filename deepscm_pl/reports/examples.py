"""Some rows under every intervention, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.evaluation.examples import Example
from deepscm_pl.figures import as_pictures
from deepscm_pl.figures.output import PlainFigure, height_of, width_of, wrapped
from deepscm_pl.figures.pixels import (
    DIVERGING,
    difference_limit,
    inches_per_element,
    to_rgb,
)

__all__ = ["draw_examples"]

_ROW_NAMES = ("model", "truth", "difference")
_FONT = 7.5
"""Of all texts, in points."""
_GAP, _MARGIN, _BETWEEN_ROWS = 0.04, 0.1, 0.2
"""In inches, as all sizes here."""


def draw_examples(examples: Sequence[Example], labels: Sequence[str]) -> Figure:
    """Some rows under every intervention: counterfactual, truth, and their difference below.

    Volumes are shown as their middle planes.

    Where an intervention is impossible there is a hatched field.

    Args:
        examples: The factual first, then each intervention.
        labels: Of the rows, in as many lines as they like.
    """
    titles = [wrapped(example.title, 20) for example in examples]
    scale = inches_per_element(examples[0].images.shape[1:])
    examples = [_in_pictures(example) for example in examples]
    layout = _ExampleLayout.of(examples, titles, labels, scale)
    figure = PlainFigure(figsize=(layout.width, layout.height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for k, title in enumerate(titles):
        place = (layout.left(k) + layout.cell_width / 2, layout.head - 0.05)
        axes.text(*place, title, ha="center", va="bottom", fontsize=_FONT)
    for row, label in enumerate(labels):
        top = layout.top(row, 0)
        axes.text(layout.margin - 0.08, top, label, ha="right", va="top", fontsize=_FONT)
        for line, name in enumerate(_ROW_NAMES if layout.lines > 1 else ()):
            place = (layout.left(1) - 0.06, layout.top(row, line) + layout.cell_height / 2)
            axes.text(*place, name, ha="right", va="center", fontsize=_FONT)
    limit = _limit(examples)
    for k, example in enumerate(examples):
        for row in range(len(labels)):
            _draw_cells(axes, layout, example, k, row, limit)
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    if layout.lines > 1:
        _add_scale(figure, layout, limit)
    return figure


@dataclass(frozen=True)
class _ExampleLayout:
    """Where images lie, in inches from the left and from the top."""

    columns: int
    rows: int
    lines: int
    cell_width: float
    cell_height: float
    pitch: float
    """From one column to the next."""
    row_height: float
    margin: float
    """On the left of the factual."""
    names: float
    """Between the factual and the counterfactuals."""
    head: float
    foot: float

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        titles: Sequence[str],
        labels: Sequence[str],
        scale: float,
    ) -> _ExampleLayout:
        """The layout of these examples, their names included."""
        height, width = examples[0].images.shape[-2:]
        lines = 1 if all(example.truth is None for example in examples) else len(_ROW_NAMES)
        cells = lines * (height * scale + _GAP)
        return cls(
            columns=len(examples),
            rows=len(labels),
            lines=lines,
            cell_width=width * scale,
            cell_height=height * scale,
            pitch=max(width * scale + _GAP, width_of(titles, _FONT) + 0.14),
            row_height=max(cells, height_of(labels, _FONT)) + _BETWEEN_ROWS,
            margin=_MARGIN + width_of(labels, _FONT) + 0.08,
            names=width_of(_ROW_NAMES, _FONT) + 0.12 if lines > 1 else 0.0,
            head=_MARGIN + height_of(titles, _FONT) + 0.05,
            foot=0.55 if lines > 1 else 0.0,
        )

    @property
    def width(self) -> float:
        """Of the picture."""
        return self.left(self.columns - 1) + self.cell_width + self._aside + _MARGIN

    @property
    def height(self) -> float:
        """Of the picture."""
        return self.head + self.rows * self.row_height + self.foot

    @property
    def _aside(self) -> float:
        """On both sides of a counterfactual, for its title."""
        return (self.pitch - self.cell_width) / 2

    def left(self, column: int) -> float:
        """The left end of the images of a column."""
        if column == 0:
            return self.margin
        first = self.margin + self.cell_width + _GAP + self.names + self._aside
        return first + (column - 1) * self.pitch

    def top(self, row: int, line: int) -> float:
        """The upper end of the images of a line of a row."""
        return self.head + row * self.row_height + line * (self.cell_height + _GAP)

    def box(self, column: int, row: int, line: int) -> tuple[float, float, float, float]:
        """Left, right, lower and upper end of an image."""
        left, top = self.left(column), self.top(row, line)
        return left, left + self.cell_width, top + self.cell_height, top


def _in_pictures(example: Example) -> Example:
    event = example.images.dim() - 1
    truth = None if example.truth is None else as_pictures(example.truth, event)
    return replace(example, images=as_pictures(example.images, event), truth=truth)


def _draw_cells(
    axes: Axes, layout: _ExampleLayout, example: Example, column: int, row: int, limit: float
) -> None:
    """The images of a row in a column: the answer and, if it is known, truth and difference."""
    if not bool(example.possible[row]):
        _draw_impossible(axes, layout, column, row)
        return
    shown: list[tuple[NDArray[np.float64], dict[str, Any]]] = [(to_rgb(example.images[row]), {})]
    if example.truth is not None:
        scale = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}
        shown += [
            (to_rgb(example.truth[row]), {}),
            (_differences(example)[row].numpy(), scale),
        ]
    for line, (image, colours) in enumerate(shown):
        place = layout.box(column, row, line)
        axes.imshow(image, extent=place, aspect="auto", interpolation="nearest", **colours)


def _draw_impossible(axes: Axes, layout: _ExampleLayout, column: int, row: int) -> None:
    left, right, _, top = layout.box(column, row, 0)
    bottom = layout.box(column, row, layout.lines - 1)[2]
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, facecolor="0.95", edgecolor="0.8",
                  hatch="///", linewidth=0)
    )  # fmt: skip
    axes.text((left + right) / 2, (top + bottom) / 2, "impossible", ha="center", va="center",
              fontsize=_FONT, bbox={"facecolor": "0.95", "linewidth": 0, "pad": 1.5})  # fmt: skip


def _differences(example: Example) -> Tensor:
    """Grey levels by which the answer is brighter than the truth, ``(R, H, W)``."""
    if example.truth is None:
        return torch.zeros(0)
    return (example.images.double() - example.truth.double()).mean(dim=1)


def _limit(examples: Sequence[Example]) -> float:
    """The difference of the darkest colours: larger than nearly all that there are."""
    found = [_differences(each)[each.possible].flatten() for each in examples if
             each.truth is not None]  # fmt: skip
    return difference_limit(torch.cat(found).numpy() if found else np.zeros(0))


def _add_scale(figure: Figure, layout: _ExampleLayout, limit: float) -> None:
    """The scale of the differences, below all images."""
    width = min(3.0, layout.width - 1.0)
    place = ((layout.width - width) / 2, layout.foot - 0.16, width, 0.12)
    size = (layout.width, layout.height, layout.width, layout.height)
    bar_axes = figure.add_axes(tuple(np.divide(place, size)))
    mappable = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    bar = figure.colorbar(mappable, cax=bar_axes, orientation="horizontal", extend="both")
    bar.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
    bar.ax.tick_params(labelsize=_FONT)
    bar.set_label("difference: model − truth (grey levels)", fontsize=_FONT + 0.5, labelpad=1)
