"""Tables and image files, as the data modules read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepscm_pl.data.scans.cohort import find_sources
from deepscm_pl.data.tables import MISSING, Table

__all__ = ["find_images", "missing_cells", "read_cells"]

Texts = NDArray[np.object_]


def read_cells(table: Path) -> dict[str, Texts]:
    """Read the cells of a table as texts, ``(N,)`` by column."""
    import pandas as pd

    frame = pd.read_csv(table, dtype=str, na_filter=False, sep=None, engine="python")
    return {str(name).strip(): frame[name].str.strip().to_numpy(object) for name in frame}


def missing_cells(texts: Texts) -> NDArray[np.bool_]:
    """Find the cells without a value."""
    return np.array([text.lower() in MISSING for text in texts])


def find_images(table: Path, cells: Mapping[str, Texts], pattern: str) -> list[Path]:
    """Find the image of each row."""
    read = Table(table, cells, next(iter(cells)))
    return [each.path for each in find_sources(read, table.parent, pattern)]
