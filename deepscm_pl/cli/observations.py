"""The observations that a counterfactual question is about."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import load_data

__all__ = ["observations_from_csv", "observations_from_test_split"]


def observations_from_test_split(
    scm: StructuralCausalModel,
    path: Path,
    rows: Sequence[int],
    root: Path | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Rows of the test split of the run that a checkpoint comes from.

    Args:
        scm: The model.
        path: The checkpoint, which remembers its data.
        rows: Row numbers, from 0.
        root: Folder of the data, where it has moved since.

    Returns:
        Values ``(len(rows), *event)`` of every variable, and a name for each row.

    Raises:
        ValueError: If the checkpoint does not remember its data, they have no root but one is
            given, or a row does not exist.
    """
    datamodule = load_data(path, root)
    datamodule.prepare_data()
    datamodule.setup("test")
    variables = datamodule.variables("test")
    size = len(variables[scm.graph.nodes[0]])
    wrong = [row for row in rows if not 0 <= row < size]
    if wrong:
        raise ValueError(
            f"index: expected rows from 0 to {size - 1} of the test split, but got {wrong[0]}."
        )
    chosen = torch.as_tensor(list(rows))
    values = {name: variables[name][chosen].to(scm.dtype) for name in scm.graph.nodes}
    return values, [f"test {row}" for row in rows]


def observations_from_csv(
    scm: StructuralCausalModel, path: Path
) -> tuple[dict[str, Tensor], list[str]]:
    """A table with a column for each variable; images by their paths, relative to the table.

    Returns:
        Values ``(rows, *event)`` of every variable, and a name for each row.

    Raises:
        FileNotFoundError: If the table or an image does not exist.
        ValueError: If a column is missing, a cell is no number, or an image has another shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"observations: there is no file {path}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns, rows = reader.fieldnames or [], list(reader)
    missing = [name for name in scm.graph.nodes if name not in columns]
    if missing or not rows:
        raise ValueError(
            f"observations: expected {path} to have the columns {', '.join(scm.graph.nodes)} and "
            f"at least one row, but {', '.join(missing) or 'every row'} is missing."
        )
    values = {
        name: torch.stack(
            [_read_cell(scm, path, line, name, row) for line, row in enumerate(rows, 2)]
        )
        for name in scm.graph.nodes
    }
    return values, [f"{path.name} {number}" for number in range(len(rows))]


def _read_cell(
    scm: StructuralCausalModel, path: Path, line: int, name: str, row: dict[str, str]
) -> Tensor:
    where = f"observations: {path}, line {line}, {name}"
    cell = row[name] or ""
    if name in scm.image_variables:
        return _read_image(where, path.parent / cell, scm[name].domain.shape).to(scm.dtype)
    try:
        return torch.tensor([float(cell)], dtype=scm.dtype)
    except ValueError:
        raise ValueError(f"{where}: expected a number, but got {cell!r}.") from None


def _read_image(where: str, path: Path, shape: tuple[int, ...]) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no image {path}.")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{where}: {path} is no image ({error}).") from None
    array = torch.from_numpy(pixels.copy())
    array = array[None] if array.dim() == 2 else array.movedim(-1, 0)
    if tuple(array.shape) != shape:
        raise ValueError(
            f"{where}: expected an image of {shape[2]}×{shape[1]} pixels (width × height), but "
            f"{path} has {array.shape[2]}×{array.shape[1]}; resize it as the training data."
        )
    return array
