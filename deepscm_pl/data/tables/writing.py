"""Writing of tables as CSV files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deepscm_pl.files import new_file

__all__ = ["write_table"]


def write_table(
    path: Path, columns: Mapping[str, Any], trim: Literal["-", "0"] = "-", index: str | None = None
) -> None:
    """Write a CSV file, in which float32 numbers have their shortest decimals.

    Args:
        path: The file, in an existing folder; it appears when it is complete.
        columns: ``(N,)`` each.
        trim: ``"0"`` writes whole numbers with a decimal point and a zero.
        index: Name of a first column of row numbers; None for none.
    """
    # Imported here, because it is slow to import.
    import pandas as pd

    texts = {
        name: [
            np.format_float_positional(each, trim=trim) if isinstance(each, np.float32) else each
            for each in values
        ]
        for name, values in columns.items()
    }
    frame = pd.DataFrame(texts)
    with new_file(path) as temporary:
        frame.to_csv(temporary, index=index is not None, index_label=index, lineterminator="\n")
