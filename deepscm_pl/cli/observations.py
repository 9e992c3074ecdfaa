"""The observations that a counterfactual question is about."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from deepscm_pl.class_names import class_named
from deepscm_pl.data.nifti import NIFTI_SUFFIXES
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.scans.reading import read_header, read_scan
from deepscm_pl.escaping import from_spreadsheet
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training import load_data
from deepscm_pl.types import Domain

__all__ = ["Observations", "observations_from_csv", "observations_from_test_split"]


@dataclass(frozen=True)
class Observations:
    """What was observed.

    Attributes:
        values: ``(N, *event)`` of every variable.
        rows: A name for each of the N.
        placements: For each image variable where each of the N images lies, None where that is not
            known.
    """

    values: Mapping[str, Tensor]
    rows: Sequence[str]
    placements: Mapping[str, Sequence[Placement | None]]


def observations_from_test_split(
    scm: StructuralCausalModel,
    path: Path,
    rows: Sequence[int],
    root: Path | None = None,
) -> Observations:
    """Rows of the test split of the run that a checkpoint comes from.

    Args:
        scm: The model.
        path: The checkpoint, which remembers its data.
        rows: Row numbers, from 0.
        root: Folder of the data, where it has moved since.

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
    places = [datamodule.placement("test", row) for row in rows]
    placements = dict.fromkeys(scm.image_variables, places)
    names = datamodule.row_names("test")
    titles = [f"test {row}" if names is None else f"test {row} ({names[row]})" for row in rows]
    return Observations(values, titles, placements)


_Cell = tuple[Tensor, Placement | None]
"""A value, and where it lies if it is an image."""


def observations_from_csv(
    scm: StructuralCausalModel,
    path: Path,
    class_names: Mapping[str, Sequence[str]],
    prepare: Callable[[Path], Sequence[_Cell]] | None = None,
) -> Observations:
    """A table with a column for each variable; images by their paths, relative to the table.

    Classes are given by their names, where they have some, or by their indices. Images are PNG or
    JPEG, or arrays ``.npy`` of the shape of the model's images, with or without channel; or, with
    their place, NIfTI. Volumes are arrays or NIfTI.

    Args:
        scm: The model.
        path: The table.
        class_names: Of the categorical variables whose classes have names.
        prepare: Makes the images of a file what the model sees, if they are not yet; each of
            several is an observation of its own.

    Raises:
        FileNotFoundError: If the table or an image does not exist.
        ValueError: If a column is missing, a cell is no number, or an image has another shape.
    """
    rows = _read_rows(path, scm.graph.nodes)
    reader_of_images = _reader(scm, prepare)
    observed: list[dict[str, _Cell]] = []
    titles: list[str] = []
    for number, row in enumerate(rows):
        where = f"observations: {path}, line {number + 2}"
        cells = {
            name: reader_of_images(f"{where}, {name}", path.parent / row[name], name)
            if name in scm.image_variables
            else [_read_scalar(scm, f"{where}, {name}", row[name], class_names.get(name, ()))]
            for name in scm.graph.nodes
        }
        count = max(map(len, cells.values()))
        observed += [
            {name: cell[k if len(cell) > 1 else 0] for name, cell in cells.items()}
            for k in range(count)
        ]
        one = f"{path.name} {number}"
        titles += [f"{one}, slice {k}" for k in range(count)] if count > 1 else [one]
    return Observations(
        {name: torch.stack([each[name][0] for each in observed]) for name in scm.graph.nodes},
        titles,
        {name: [each[name][1] for each in observed] for name in scm.image_variables},
    )


def _read_rows(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table that has the columns named."""
    if not path.is_file():
        raise FileNotFoundError(f"observations: there is no file {path}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns, found = reader.fieldnames or [], list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"observations: {path} is no table of UTF-8 ({error}).") from None
    rows = [{name: from_spreadsheet(row[name] or "") for name in columns} for row in found]
    missing = [name for name in names if name not in columns]
    if missing or not rows:
        raise ValueError(
            f"observations: expected {path} to have the columns {', '.join(names)} and "
            f"at least one row, but {', '.join(missing) or 'every row'} is missing."
        )
    return rows


def _reader(
    scm: StructuralCausalModel, prepare: Callable[[Path], Sequence[_Cell]] | None
) -> Callable[[str, Path, str], Sequence[_Cell]]:
    """What reads the images of a file, given where in the table it is named."""

    def read(where: str, path: Path, name: str) -> Sequence[_Cell]:
        if not path.is_file():
            raise FileNotFoundError(f"{where}: there is no image {path}.")
        domain = scm[name].domain
        if prepare is None:
            found: Sequence[_Cell] = [_read_image(where, path, domain)]
        else:
            try:
                found = prepare(path)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        for image, _ in found:
            _check_image(where, path, image, domain, is_prepared=prepare is not None)
        return [(image.to(scm.dtype), place) for image, place in found]

    return read


def _read_scalar(
    scm: StructuralCausalModel, where: str, cell: str, classes: Sequence[str]
) -> _Cell:
    return torch.tensor([_read_number(where, cell, classes)], dtype=scm.dtype), None


def _read_number(where: str, cell: str, classes: Sequence[str]) -> float:
    """A number, or the index of a class."""
    if classes:
        found = class_named(cell, classes)
        if found is None:
            raise ValueError(f"{where}: expected one of {', '.join(classes)}, but got {cell!r}.")
        return found
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{where}: expected a number, but got {cell!r}.") from None


def _read_image(where: str, path: Path, domain: Domain) -> tuple[Tensor, Placement | None]:
    """An image as it is in its file, and where it lies if the file says so."""
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return _read_nifti(where, path, len(domain.shape) - 1)
    if path.suffix.lower() == ".npy":
        return _read_array(where, path, domain.shape), None
    return _read_picture(where, path, domain.shape), None


def _check_image(where: str, path: Path, image: Tensor, domain: Domain, is_prepared: bool) -> None:
    """Raise unless an image is of the shape, and has the values, that the model knows."""
    advice = "ask a model of such images" if is_prepared else (
        "prepare it as the training data, or ask with --prepare"
    )  # fmt: skip
    if tuple(image.shape) != domain.shape:
        raise ValueError(
            f"{where}: expected {_sizes(domain.shape)}, but {path} has "
            f"{_sizes(image.shape, short=True)}; {advice}."
        )
    if not bool(domain.contains(image.double()).all()):
        raise ValueError(
            f"{where}: expected {domain}, but {path} has from {image.min().item():g} to "
            f"{image.max().item():g}; {advice}."
        )


def _read_nifti(where: str, path: Path, dimensions: int) -> tuple[Tensor, Placement | None]:
    try:
        scan = read_scan(path)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    flat = dimensions == 2
    if scan.flat != flat:
        kinds = {True: "a single slice", False: "a volume"}
        raise ValueError(
            f"{where}: expected {kinds[flat]}, but {path} is {kinds[scan.flat]} of shape "
            f"{scan.array.shape}; cut it as the training data, or ask with "
            "--prepare."
        )
    array = scan.array[..., 0] if scan.flat else scan.array
    image = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))[None]
    if scan.affine is None:
        return image, None
    header = None if scan.header is None else read_header(scan.header)
    return image, Placement(scan.affine, header)


def _read_array(where: str, path: Path, shape: Sequence[int]) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
        image = torch.from_numpy(np.asarray(array, dtype=np.float64))
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{where}: {path} is no array of numbers ({error}).") from None
    return image[None] if image.dim() == len(shape) - 1 and shape[0] == 1 else image


def _read_picture(where: str, path: Path, shape: Sequence[int]) -> Tensor:
    if len(shape) != 3:
        raise ValueError(
            f"{where}: expected a volume as .nii, .nii.gz or .npy, but got {path}; a picture has "
            "no depth."
        )
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L" if shape[0] == 1 else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{where}: {path} is no image ({error}).") from None
    image = torch.from_numpy(pixels.copy())
    return image[None] if image.dim() == 2 else image.movedim(-1, 0)


def _sizes(shape: Sequence[int], short: bool = False) -> str:
    """Such as ``an image of 28×24 pixels (width × height)``."""
    if len(shape) == 3:
        size = f"{shape[2]}×{shape[1]}"
        return size if short else f"an image of {size} pixels (width × height)"
    size = "×".join(map(str, shape[1:]))
    return size if short else f"a volume of {size} voxels"
