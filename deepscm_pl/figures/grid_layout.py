"""The content of grids of images, and the places of images and texts in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor

from deepscm_pl.figures.output import height_of, width_of, wrapped
from deepscm_pl.figures.pixels import PLANES, as_pictures, inches_per_pixel

__all__ = [
    "PRINT",
    "THUMBNAIL",
    "GridCell",
    "GridLayout",
    "GridStyle",
    "ImageGrid",
    "as_picture",
    "thumbnail_grid",
]

_GAP, _BETWEEN_ROWS, _PAD = 0.05, 0.08, 0.05
"""Distances in inches."""
_BAR_TEXTS = 0.36
"""Width of the numbers beside a colour bar, in inches."""
_CHARACTER = 0.56
"""Width of a usual character, in font sizes."""
_DRAWN = 1.06
"""Width of a drawn text, whose characters are moved to whole pixels, in measured widths."""
_POINTS_PER_INCH = 72


@dataclass(frozen=True)
class GridStyle:
    """Sizes of a grid.

    Attributes:
        title: Font size of the title and of the labels of axes, in points.
        text: Font size of other texts but captions.
        caption: Font size of captions.
        letter: Font size of the names and sides of planes.
        between: Least distance of texts beside each other, in inches.
        widest: Width to which texts may widen an image, in inches.
        total: Width of the whole grid, in inches; None for as much as it needs.
        dots_per_inch: Resolution.
    """

    title: float = 9.0
    text: float = 7.5
    caption: float = 7.0
    letter: float = 7.0
    between: float = 0.12
    widest: float = 1.6
    total: float | None = None
    dots_per_inch: int = 150


PRINT = GridStyle()
THUMBNAIL = GridStyle(
    title=8.0, text=7.5, caption=7.0, letter=5.5, between=0.05, total=3.2, dots_per_inch=100
)
"""For pictures that are shown 320 pixels wide."""


@dataclass(frozen=True)
class GridCell:
    """One cell of a grid: images from top to bottom, and below them a signed difference.

    Differences of images in colour are drawn in colour: grey is no change, and a channel is bright
    where it has increased and dark where it has decreased.

    Attributes:
        images: Grey levels ``(C, H, W)``, C of 1 or 3, or ``(C, X, Y, Z)``, whose middle planes are
            drawn. A cell without images is hatched, with a label.
        difference: Minuend and subtrahend of the difference.
        label: The text in a cell without images.
    """

    images: Sequence[Tensor]
    difference: tuple[Tensor, Tensor] | None = None
    caption: str = ""
    label: str = "impossible"

    @property
    def count(self) -> int:
        """Number of images, the difference included."""
        return len(self.images) + (self.difference is not None)


@dataclass(frozen=True)
class ImageGrid:
    """The content of a grid of images.

    Attributes:
        rows: Cells from top to bottom and from left to right, of images of one shape.
        column_titles: Texts above the columns.
        row_titles: Texts on the left of the rows.
        image_names: Names of the images of a cell, written on the left of the first column in
            which cells have more than one image.
        ticks: Texts below the columns.
        x_label: Label below the ticks.
        y_label: Label on the left of the row titles.
        marks: For each row a position to mark, counted in columns from the first.
    """

    rows: Sequence[Sequence[GridCell]]
    title: str = ""
    column_titles: Sequence[str] = ()
    row_titles: Sequence[str] = ()
    image_names: Sequence[str] = ()
    ticks: Sequence[str] = ()
    x_label: str = ""
    y_label: str = ""
    marks: Sequence[float] = ()


def as_picture(image: Tensor) -> Tensor:
    """Return an image unchanged, and a volume as its middle planes."""
    return as_pictures(image, image.dim())


class GridLayout:
    """Sizes in inches; positions are relative to the upper left corner of the first cell.

    Args:
        grids: Grids of one layout.
        style: Font sizes and widths.
        bar_label: Label of colour bars.
        bar_width: Width of a colour bar; 0 without differences.
    """

    def __init__(
        self,
        grids: Sequence[ImageGrid],
        style: GridStyle,
        bar_label: str = "",
        bar_width: float = 0.0,
    ) -> None:
        self.style, self.bar_width = style, bar_width
        grid = grids[0]
        cells = [cell for each in grids for row in each.rows for cell in row]
        self.images = max(1, *(cell.count for cell in cells))
        self.named_column = next(
            (k for k, cell in enumerate(grid.rows[0]) if len(cell.images) != 1), 0
        )
        first = grid.rows[0][0]
        self.has_reference = first.count < self.images and not first.difference
        self.has_reference &= not any(row[0].difference for row in grid.rows)
        self.left = _PAD + width_of(grid.row_titles, style.text)
        self.left += 0.06 if grid.row_titles else 0.0
        self.left += 1.4 * height_of([grid.y_label], style.title) if grid.y_label else 0.0
        names = grid.image_names if len(grid.image_names) > 1 else ()
        longest_name = _DRAWN * width_of(names, style.text)
        for self.has_upright_names in (True, False):
            size = height_of(names, style.text) if self.has_upright_names else longest_name
            self.names = size + _PAD if names else 0.0
            self._set_cells(grid, cells)
            if longest_name <= self.cell_height + _GAP:
                break
        self._set_bars(bar_label)
        self._set_rows(grids)
        columns = len(grid.rows[0]) * self.pitch + self.names
        self.bars = columns + _PAD
        longest = max(width_of([each.title], style.title) for each in grids)
        x_label = width_of([grid.x_label], style.title)
        self.width = max(self.left + columns + self.right, self.left + x_label, longest) + _PAD
        self.height = self.top + self.rows_height + self.bottom

    def _set_cells(self, grid: ImageGrid, cells: Sequence[GridCell]) -> None:
        """Width and height of images, and the distance of columns."""
        style = self.style
        image = next((cell.images[0] for cell in cells if cell.images), None)
        if image is None:
            raise ValueError("grids: expected at least one image, but got none.")
        picture = as_picture(image).shape[-2:]
        captions = {cell.caption for cell in cells}
        natural = max(width_of(grid.column_titles, style.text), width_of(captions, style.caption))
        self.cell_width = picture[1] * inches_per_pixel(image.shape)
        if style.total is not None:
            columns, margin = len(grid.rows[0]), 0.0 if self.has_reference else 0.4
            free = style.total - self.left - self.names - _PAD - margin * bool(self.bar_width)
            self.cell_width = free / columns - _GAP
        else:
            self.cell_width = max(self.cell_width, min(_DRAWN * natural, style.widest))
        self.cell_height = self.cell_width * picture[0] / picture[1]
        self.names_planes = False
        if image.dim() == 4:
            narrowest = min(image.shape[1:3]) * self.cell_width / picture[1]
            self.names_planes = _DRAWN * width_of(PLANES, style.letter) + 0.04 <= narrowest
        self.title_characters = self._characters(grid.column_titles, style.text)
        self.caption_characters = self._characters(captions, style.caption)
        self.titles = [wrapped(title, self.title_characters) for title in grid.column_titles]
        shown = [wrapped(caption, self.caption_characters) for caption in captions]
        texts = max(
            width_of([*self.titles, *grid.ticks], style.text), width_of(shown, style.caption)
        )
        texts *= _DRAWN
        self.pitch = max(self.cell_width + _GAP, texts + style.between if texts else 0.0)

    def _characters(self, texts: Iterable[str], size: float) -> int:
        """The number of characters of a line that is as wide as an image."""
        texts = list(texts)
        if _DRAWN * width_of(texts, size) <= self.cell_width + 0.01:
            return max((len(line) for text in texts for line in text.split("\n")), default=1) + 1
        return max(8, int(self.cell_width * _POINTS_PER_INCH / (_CHARACTER * size)))

    def _set_bars(self, label: str) -> None:
        """The label of colour bars, and the width of the margin where they stand."""
        size = self.style.caption
        fitting = int(0.9 * self.cell_height * _POINTS_PER_INCH / (_CHARACTER * size))
        self.bar_label = wrapped(label, max(8, fitting)) if label else ""
        needed = self.bar_width + _BAR_TEXTS + height_of([self.bar_label], size)
        # In a narrow place below the reference only the numbers are written.
        if self.has_reference and needed > self.cell_width:
            self.bar_label = ""
        self.right = 0.0 if self.has_reference or not self.bar_width else _PAD + needed

    def _set_rows(self, grids: Sequence[ImageGrid]) -> None:
        """Heights of rows, which differ with the lines of their captions, and of the margins."""
        grid, style = grids[0], self.style
        block = self.images * (self.cell_height + _GAP) - _GAP
        self.row_heights = []
        for n in range(len(grid.rows)):
            texts = [
                wrapped(cell.caption, self.caption_characters)
                for each in grids
                for cell in each.rows[n]
                if cell.caption
            ]
            caption = 0.06 + height_of(texts, style.caption) if texts else 0.0
            between = _BETWEEN_ROWS if texts or self.images > 1 else _GAP
            between = max(between, 0.1 if grid.marks else 0.0)
            title = height_of(grid.row_titles[n : n + 1], style.text)
            self.row_heights.append(max(block + caption, title) + between)
        self.row_tops = [0.0, *accumulate(self.row_heights)]
        self.rows_height = self.row_tops[-1] - _GAP
        self.title_height = max(
            height_of([each.title], style.title) + _PAD if each.title else 0.0 for each in grids
        )
        self.plane_names = height_of(["x"], style.letter) + 0.02 if self.names_planes else 0.0
        self.top = height_of(self.titles, style.text) + self.plane_names + self.title_height + 0.07
        self.tick_distance = 0.08 if grid.marks else 0.02
        self.bottom = _PAD + self.tick_distance + height_of(grid.ticks, style.text)
        self.bottom += height_of([grid.x_label], style.title) + 0.05 if grid.x_label else 0.0

    def centre(self, column: float) -> float:
        """The horizontal centre of a column."""
        return (column + 0.5) * self.pitch + (self.names if column >= self.named_column else 0.0)

    def box(self, row: int, column: int, image: int) -> tuple[float, float, float, float]:
        """Left, right, lower and upper end of an image."""
        left = self.centre(column) - self.cell_width / 2
        top = self.row_tops[row] + image * (self.cell_height + _GAP)
        return left, left + self.cell_width, top + self.cell_height, top


_MOST_ROWS, _HIGHEST, _WIDEST = 3, 1.3, 4.0
"""The largest number of rows of a thumbnail, about its largest height divided by its width, and its
largest width in inches, if words are long."""


def thumbnail_grid(grid: ImageGrid) -> ImageGrid:
    """Choose rows and columns of a grid that can be recognised in a small picture.

    Of a matrix, rows and columns are spread over its axes; of other grids they are the first.
    Captions are omitted, and ``do(age = 40)`` is shortened to ``age = 40``.
    """
    image = next(cell.images[0] for row in grid.rows for cell in row if cell.images)
    images = max(cell.count for row in grid.rows for cell in row)
    height, width = as_picture(image).shape[-2:]
    is_matrix = bool(grid.y_label or grid.ticks) and not grid.image_names
    words = [word for title in grid.column_titles for word in _shortened(title).split()]
    pitch = _DRAWN * width_of(words, THUMBNAIL.text) + THUMBNAIL.between
    most = 3 if image.dim() == 4 or len(grid.image_names) > 1 else 6
    most = max(2, min(most, int(_WIDEST / pitch)))
    columns = _chosen(len(grid.rows[0]), most, is_matrix)
    fitting = int(_HIGHEST * len(columns) * width / (images * height))
    most = max(1, min(_MOST_ROWS, fitting))
    rows = _chosen(len(grid.rows), most, is_matrix and not grid.marks)
    titles, is_whole = grid.column_titles, len(columns) == len(grid.rows[0])
    return replace(
        grid,
        rows=[
            [replace(grid.rows[n][k], caption="") for k in columns if k < len(grid.rows[n])]
            for n in rows
        ],
        column_titles=[_shortened(titles[k]) for k in columns if k < len(titles)],
        row_titles=[grid.row_titles[n] for n in rows] if grid.y_label else (),
        ticks=[grid.ticks[k] for k in columns] if grid.ticks else (),
        marks=[grid.marks[n] for n in rows] if grid.marks and is_whole else (),
    )


def _chosen(count: int, most: int, is_spread: bool) -> list[int]:
    """At most ``most`` of ``count`` numbers, the first or evenly spread."""
    if count <= most or not is_spread:
        return list(range(min(count, most)))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def _shortened(title: str) -> str:
    is_do = title.startswith("do(") and title.endswith(")")
    return title[3:-1] if is_do else title
