"""A picture of the first rows under every intervention."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from deepscm_pl.evaluation.examples import Example
from deepscm_pl.figures.grid import GridCell, ImageGrid, draw_grids

__all__ = ["draw_examples"]


def draw_examples(
    examples: Sequence[Example], labels: Sequence[str], captions: Sequence[Sequence[str]] = ()
) -> Figure:
    """Draw the counterfactual, the truth, and their difference for every intervention.

    Impossible interventions are hatched.

    Args:
        examples: The factual first, then each intervention.
        labels: A text of one or more lines for each row.
        captions: A text for each row of each intervention, such as ``extrapolated``, or none.
    """
    texts = [[""] * len(labels), *captions] if captions else [[""] * len(labels)] * len(examples)
    grid = ImageGrid(
        [
            [_cell(each, row, text[row]) for each, text in zip(examples, texts, strict=True)]
            for row in range(len(labels))
        ],
        column_titles=[example.title for example in examples],
        row_titles=labels,
        image_names=["model", "truth", "difference"]
        if any(example.truth is not None for example in examples)
        else (),
    )
    return draw_grids([grid], difference_label="difference: model − truth (grey levels)")


def _cell(example: Example, row: int, caption: str) -> GridCell:
    if not example.possible[row]:
        return GridCell([])
    if example.truth is None:
        return GridCell([example.images[row]], caption=caption)
    pair = (example.images[row], example.truth[row])
    return GridCell(pair, difference=pair, caption=caption)
