"""Figures with plain texts, their files, and helpers for texts and axes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepscm_pl.escaping import for_picture
from deepscm_pl.files import DiskFullError, new_file
from deepscm_pl.numerals import format_number
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Variables

__all__ = [
    "PlainFigure",
    "as_array",
    "captions",
    "figure_of_panels",
    "figure_to_array",
    "finish_axes",
    "height_of",
    "make_ticks_readable",
    "save_figure",
    "thumbnail_pixels",
    "width_of",
    "wrapped",
]


class PlainFigure(Figure):
    """A figure that draws dollar signs and backslashes as they are, not as mathematics.

    Names of classes and units come from files: as mathematics, ``$x^{$`` would raise an error, and
    TeX could read files. Texts are also escaped and shortened by
    :func:`~deepscm_pl.escaping.for_picture`.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure with plain texts."""
        for text in self.findobj(Text):
            text.set_usetex(False)
            text.set_parse_math(False)
            shown = for_picture(text.get_text())
            if shown != text.get_text():
                text.set_text(shown)
        for axis in self.findobj(Axis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, ScalarFormatter):
                formatter.set_usetex(False)
                formatter.set_useMathText(False)
        # Ticks are created while the figure is drawn.
        with rc_context({"text.parse_math": False, "text.usetex": False}):
            super().draw(renderer)

    def thumbnail(self) -> Figure:
        """Return the figure to show in a picture that is 320 pixels wide."""
        return self

    def _repr_png_(self) -> bytes:
        """Return the picture for notebooks, which know only figures of pyplot."""
        content = BytesIO()
        self.savefig(content, format="png", bbox_inches="tight")
        return content.getvalue()


_UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure atomically, in the format of the ending of its name.

    The same figure gives the same bytes: files have no date, and identifiers in SVG are not random.

    Raises:
        ValueError: If the name does not end in ``.png``, ``.svg`` or ``.pdf``, or the folder cannot
            be written.
        DiskFullError: If the disk is full.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"path: expected a name ending in .png, .svg, .pdf, but got {path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary, rc_context({"svg.hashsalt": "deepscm_pl"}):
            figure.savefig(
                temporary,
                format=path.suffix[1:].lower(),
                bbox_inches="tight",
                metadata=_UNDATED.get(path.suffix.lower()),
            )
    except DiskFullError:
        raise
    except OSError as error:
        raise ValueError(f"path: {path} cannot be written ({error}); choose another.") from None
    return path


def figure_to_array(figure: Figure) -> NDArray[np.uint8]:
    """Return the pixels of a figure, ``(height, width, 3)``, red, green and blue from 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


_THUMBNAIL_WIDTH, _THUMBNAIL_PIXELS = 4.2, 320
"""Most inches of a figure with a layout of its own, of which fewer make letters larger, and the
width of the frames of TensorBoard, which drops rows and columns of the pixels of larger pictures.
"""


def _in_fewer_columns(figure: Figure, scale: float) -> float:
    """Arrange the panels of a figure for a smaller width.

    Returns:
        The number of rows, divided by the number that the panels have had.
    """
    places = {axes: axes.get_subplotspec() for axes in figure.axes}
    panels = [(axes, place) for axes, place in places.items() if place is not None]
    if len(panels) < 2:
        return 1.0
    before, columns = panels[0][1].get_gridspec().get_geometry()
    fewer = max(int(scale * columns), 1)
    rows = -(-len(panels) // fewer)
    grid = GridSpec(rows, fewer, figure=figure)
    for k, (axes, _) in enumerate(panels):
        axes.set_subplotspec(grid[k // fewer, k % fewer])
    return rows / before


def thumbnail_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return the pixels of a figure with legible letters, about 320 pixels wide.

    Returns:
        ``(height, width, 3)``, red, green and blue from 0 to 255.
    """
    shown = figure.thumbnail() if isinstance(figure, PlainFigure) else figure
    width, height = (float(size) for size in shown.get_size_inches())
    panels = {axes: axes.get_subplotspec() for axes in shown.axes}
    try:
        if shown.get_layout_engine() is not None:
            scale = min(1.0, _THUMBNAIL_WIDTH / width)
            rows = _in_fewer_columns(shown, scale)
            # Texts keep their height, so that axes need more of it.
            share = rows if rows == 1 else max(scale, 0.75) * rows
            shown.set_size_inches(scale * width, share * height)
        content, resolution = BytesIO(), _THUMBNAIL_PIXELS / shown.get_size_inches()[0]
        shown.savefig(content, format="png", dpi=resolution, bbox_inches="tight", pad_inches=0.04)
    finally:
        shown.set_size_inches(width, height)
        for axes, place in panels.items():
            if place is not None:
                axes.set_subplotspec(place)
    with Image.open(content) as picture:
        return np.asarray(picture.convert("RGB"))


_POINTS_PER_INCH = 72
_LINE = 1.25
"""Line height, in font sizes."""
_MEASURED = 5
"""Number of longest lines whose width is measured."""


def wrapped(text: str, width: int) -> str:
    """Break each line of a text into lines of at most ``width`` characters, after commas first.

    A part between commas that is longer is broken at spaces; words and ``1.2 million`` stay whole.

    Example:
        >>> print(wrapped("do(thickness = 1.5, intensity = 224)", width=20))
        do(thickness = 1.5,
        intensity = 224)
    """
    lines = []
    for line in for_picture(text).replace(" million", "\u00a0million").split("\n"):
        # Spaces within a part that fits, its comma included, do not break.
        parts = [p.replace(" ", "\u00a0") if len(p) < width else p for p in line.split(", ")]
        lines.append(fill(", ".join(parts), width, break_long_words=False, break_on_hyphens=False))
    return "\n".join(lines).replace("\u00a0", " ")


def width_of(texts: Iterable[str], size: float) -> float:
    """The width in inches of the widest line of some texts in a font of ``size`` points."""
    lines = {line for text in texts for line in for_picture(text).split("\n") if line.strip()}
    font = FontProperties(size=size)
    # Measuring is slow, and the widest line is one of those with most characters.
    longest = sorted(lines, key=lambda line: (len(line), line))[-_MEASURED:]
    widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in longest]
    return float(max(widths, default=0.0)) / _POINTS_PER_INCH


def height_of(texts: Iterable[str], size: float) -> float:
    """The height in inches of the text with most lines in a font of ``size`` points."""
    lines = max((for_picture(text).count("\n") + 1 for text in texts), default=0)
    return lines * _LINE * size / _POINTS_PER_INCH


def figure_of_panels(
    count: int, width: float, height: float, below: float = 0.5
) -> tuple[Figure, list[Axes]]:
    """Create a figure with axes for each panel, at most three beside each other.

    Args:
        count: Number of panels.
        width: Width of a panel, in inches.
        height: Height of a panel, in inches.
        below: Height of the legend, in inches.

    Raises:
        ValueError: If there is no panel.
    """
    if count < 1:
        raise ValueError("panels: expected at least one, but got none.")
    across = min(count, 2 if count == 4 else 3)
    down = -(-count // across)
    size = (width * across + 0.3, height * down + below)
    figure = PlainFigure(figsize=size, dpi=150, layout="constrained")
    return figure, [figure.add_subplot(down, across, k + 1) for k in range(count)]


def finish_axes(axes: Axes) -> None:
    """Format ticks, and remove the frame above and on the right; call it after drawing."""
    axes.tick_params(labelsize=8)
    axes.yaxis.get_offset_text().set_fontsize(8)
    make_ticks_readable(axes)
    axes.spines[["top", "right"]].set_visible(False)


def as_array(values: Tensor) -> NDArray[np.float64]:
    """Return the values of a tensor in double precision."""
    array: NDArray[np.float64] = values.detach().cpu().double().numpy()
    return array


_LARGE, _MILLION, _SMALL_NUMBERS = 1e4, 1e6, 1e-4
_MOST = 5
"""Largest number of intervals between large numbers."""
_STEPS = (1, 2, 5, 10)
_MOST_DIGITS = 6
_EXPONENT = re.compile(r"^1e([-−]?\d+)")
_RAISED = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def make_ticks_readable(axes: Axes) -> None:
    """Write large numbers on both axes in full, or in millions with a label to match.

    Very small ones are multiples of a power of ten. Call it after drawing.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().add_subplot(xlim=(0, 60_000), ylim=(0, 2e6), ylabel="volume (mm³)")
        >>> make_ticks_readable(axes)
        >>> [text.get_text() for text in axes.get_xticklabels()][:3]
        ['0', '20,000', '40,000']
        >>> axes.get_ylabel()
        'volume (million mm³)'
    """
    for axis in (axes.xaxis, axes.yaxis):
        largest = max(abs(end) for end in axis.get_view_interval())
        scale = _MILLION if largest >= _MILLION else 1.0
        if largest >= _LARGE:
            axis.set_major_locator(MaxNLocator(_MOST, steps=_STEPS))
            axis.set_major_formatter(
                FuncFormatter(lambda value, _, s=scale: format_number(value / s, _MOST_DIGITS))
            )
        elif largest < _SMALL_NUMBERS:
            axis.set_major_formatter(_PowersOfTen())
        if scale > 1:
            before, bracket, unit = axis.get_label_text().partition("(")
            axis.set_label_text(
                f"{before}{bracket}million {unit}" if bracket else f"{before} (millions)"
            )


class _PowersOfTen(ScalarFormatter):
    """Format numbers as multiples of a power of ten, which is written at the end of the axis."""

    def __init__(self) -> None:
        super().__init__(useMathText=False)

    def get_offset(self) -> str:
        """Return such as ``×10⁻⁶`` without mathematics."""
        return _EXPONENT.sub(
            lambda found: f"×10{found[1].translate(_RAISED)}", super().get_offset()
        )


def captions(scm: StructuralCausalModel, values: Variables) -> list[str]:
    """Return a caption for each row, with a line for each scalar variable.

    Args:
        scm: The model.
        values: ``(N, 1)`` of every scalar variable of the model, categories included.

    Returns:
        N texts, or none if the model has no scalar.

    Example:
        >>> import torch
        >>> from deepscm_pl.mechanisms import AffineFlow
        >>> scm = StructuralCausalModel("age", {"age": AffineFlow})
        >>> captions(scm, {"age": torch.tensor([[61.34], [40.0]])})
        ['age 61.3', 'age 40']
    """
    lines = [
        [f"{each.spoken} {each.format(value)}" for value in values[name].flatten().tolist()]
        for name, each in scm.variables.items()
        if each.domain.shape == (1,)
    ]
    return ["\n".join(row) for row in zip(*lines, strict=True)]
