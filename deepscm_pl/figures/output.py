"""From a figure to a file or to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepscm_pl.files import DiskFullError, new_file

__all__ = ["figure_to_array", "save_figure"]

_FORMATS = (".png", ".svg", ".pdf")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format that the name ends in, complete or not at all.

    Raises:
        ValueError: If the name does not end in ``.png``, ``.svg`` or ``.pdf``, or the folder cannot
            be written.
        DiskFullError: If the disk is full.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"path: expected a name ending in {', '.join(_FORMATS)}, but got {path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower(), bbox_inches="tight")
    except DiskFullError:
        raise
    except OSError as error:
        raise ValueError(f"path: {path} cannot be written ({error}); choose another.") from None
    return path


def figure_to_array(figure: Figure) -> NDArray[np.uint8]:
    """The pixels of a figure, ``(height, width, 3)``, red, green and blue from 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
