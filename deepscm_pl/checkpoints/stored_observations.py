"""Observations that travel with a model: the first rows of its test split, in a file beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepscm_pl.checks import whole_number
from deepscm_pl.data import CausalData, Placement, Split
from deepscm_pl.digest import weights_digest
from deepscm_pl.escaping import one_line
from deepscm_pl.memory import format_bytes
from deepscm_pl.runs.safetensors_file import read_tensors, write_tensors
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.shipped.names import OBSERVATIONS
from deepscm_pl.worlds import KnownWorld, known_world
from deepscm_pl.worlds.catalogue import WORLDS

__all__ = [
    "FORMAT",
    "StoredObservations",
    "observations_beside",
    "observations_of",
    "require_rows",
    "write_observations",
]

FORMAT = 1
"""Number of the format of the file, raised whenever older versions would misread it."""

_MOST_BYTES = 200_000_000
_MOST_LEVEL = 255.0


@dataclass(frozen=True)
class _Stored:
    """The content of a file.

    Attributes:
        variables: ``(N, *event)`` of each variable, in raw units.
        world: The known world that made the observations; None for other data.
        placements: For each image variable the affine ``(4, 4)`` of each image, or None.
        is_complete: Whether nothing that the data have about these rows is left out.
    """

    variables: Mapping[str, Tensor]
    world: KnownWorld | None = None
    placements: Mapping[str, list[Any]] = field(default_factory=dict)
    is_complete: bool = False


class StoredObservations(CausalData):
    """The first rows of a test split, which travel with a model in place of the data of its run.

    They can be asked about like the test split; there are no other splits. Made by :meth:`read`.

    Args:
        stored: The content of the file.
        path: The file, for messages.

    Attributes:
        is_complete: Whether these rows are all that the data of the run have about them: the rows
            have no names, the images no headers of scans, and none is prepared from a file. Then
            the answers about them are the same with and without the data of the run.
    """

    def __init__(self, stored: _Stored, path: Path) -> None:
        self.path = path
        self.is_complete = stored.is_complete
        self._placements = stored.placements
        self._world = stored.world
        rows = torch.arange(len(next(iter(stored.variables.values()))))
        self._variables = {**stored.variables, "index": rows[:, None]}

    @classmethod
    def read(cls, path: str | Path, scm: StructuralCausalModel) -> StoredObservations:
        """Read a file that :func:`write_observations` has written for a model.

        Raises:
            ValueError: If the file is truncated, too large, of a newer format, or does not fit the
                model.
        """
        return cls(_read(Path(path), scm), Path(path))

    @property
    def count(self) -> int:
        """The number of observations."""
        return len(self._variables["index"])

    def has(self, rows: Sequence[int] | None) -> bool:
        """Whether rows of the test split are all here; not if they are None, for all rows."""
        return rows is not None and all(0 <= row < self.count for row in rows)

    @property
    def world(self) -> KnownWorld | None:
        """The known world that made the observations; None for other data."""
        return self._world

    def setup(self, stage: str | None = None) -> None:
        """Do nothing for the test; refuse to prepare other splits.

        Raises:
            ValueError: If the stage is that of a training.
        """
        if stage not in (None, "test", "predict"):
            raise self._refusal("train")

    def placement_of(self, name: str, split: Split, row: int) -> Placement | None:
        """The position of an image in the scanner, without the header of its scan."""
        found = self._placements.get(name)
        affine = None if found is None else found[row]
        return None if affine is None else Placement(np.array(affine, dtype=np.float64))

    def variables(self, split: Split) -> dict[str, Tensor]:
        """The rows of the test split that travel with the model.

        Raises:
            ValueError: If another split is asked for.
        """
        if split != "test":
            raise self._refusal(split)
        return dict(self._variables)

    def _refusal(self, split: str) -> ValueError:
        return ValueError(
            f"data: only {_counted(self.count)} of the test split travel with the model, and none "
            f"of the {'training' if split == 'train' else split} split; give the folder of the "
            "run's data (--data.root DIR, in Python root=)."
        )


def require_rows(data: CausalData, rows: Sequence[int]) -> None:
    """Check that rows of the test split exist.

    Raises:
        ValueError: Naming the first row that does not, and, for observations that travel with a
            model, where others are.
    """
    count = len(next(iter(data.variables("test").values())))
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong and isinstance(data, StoredObservations):
        raise ValueError(
            f"index: expected rows from 0 to {count - 1}, because {_counted(count)} of the test "
            f"split travel with the model, but got {wrong[0]}; for others, give the folder of the "
            "run's data (--data.root DIR, in Python root=)."
        )
    if wrong:
        raise ValueError(
            f"index: expected rows from 0 to {count - 1} of the test split, but got {wrong[0]}."
        )


def _counted(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def observations_beside(path: Path, scm: StructuralCausalModel) -> StoredObservations | None:
    """Read the observations that travel with the model in a file; None if there are none.

    Raises:
        ValueError: As of :meth:`StoredObservations.read`.
    """
    beside = path.with_name(OBSERVATIONS)
    return StoredObservations.read(beside, scm) if beside.is_file() else None


def write_observations(path: Path, scm: StructuralCausalModel, data: CausalData, count: int) -> int:
    """Write the first rows of the test split of a model's data, which its readers can ask about.

    Values are those of the data, in the smallest type that keeps them: bytes for whole numbers from
    0 to 255, such as grey levels and classes. Names of rows and headers of scans, which may name
    people, are left out. Positions of images in the scanner are kept.

    Args:
        path: The file, which is replaced if it exists.
        scm: The model.
        data: Its data.
        count: Number of rows.

    Returns:
        The size of the file in bytes.

    Raises:
        FileNotFoundError: If the data are not there.
        ValueError: If there are fewer rows, the observations are too large, or the file cannot be
            written.
    """
    content = observations_of(scm, data, count)
    write_tensors(*content, path)
    return path.stat().st_size


def observations_of(
    scm: StructuralCausalModel, data: CausalData, count: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take the tensors and the description that :func:`write_observations` writes."""
    whole_number("observations", count, least=1)
    data.prepare_data()
    data.setup("test")
    rows = data.variables("test")
    size = len(rows[scm.graph.nodes[0]])
    if count > size:
        raise ValueError(
            f"observations: expected at most {size}, the rows of the test split, but got {count}."
        )
    tensors = {name: _smallest(rows[name][:count]) for name in scm.graph}
    total = sum(each.numel() * each.element_size() for each in tensors.values())
    if total > _MOST_BYTES:
        raise ValueError(
            f"observations: expected at most {format_bytes(_MOST_BYTES)}, but {count} rows have "
            f"{format_bytes(total)}; choose about {max(count * _MOST_BYTES // total, 1)}."
        )
    world = data.world if isinstance(data.world, WORLDS) else None
    description = {
        "format": FORMAT,
        "split": "test",
        "rows": count,
        "weights": weights_digest(scm),
        "world": None if world is None else {"name": world.name, "parameters": world.parameters()},
        "placements": {name: _affines(data, name, count) for name in scm.image_variables},
        "complete": _is_complete(scm, data, count),
    }
    return tensors, description


def _is_complete(scm: StructuralCausalModel, data: CausalData, count: int) -> bool:
    """Whether the file has all that the data have about the rows."""
    places = [
        data.placement_of(name, "test", row) for name in scm.image_variables for row in range(count)
    ]
    has_headers = any(each is not None and each.header is not None for each in places)
    return data.row_names("test") is None and not has_headers and not data.prepares_files


def _affines(data: CausalData, name: str, count: int) -> list[Any]:
    found = [data.placement_of(name, "test", row) for row in range(count)]
    return [None if each is None else each.affine.tolist() for each in found]


def _smallest(values: Tensor) -> Tensor:
    """A copy of the values in the smallest type that keeps them."""
    values = values.detach().cpu().clone(memory_format=torch.contiguous_format)
    found = values.double()
    if bool(((found == found.round()) & (found >= 0) & (found <= _MOST_LEVEL)).all()):
        return values.to(torch.uint8)
    if values.dtype == torch.float64 and bool(
        ((found.float().double() == found) | found.isnan()).all()
    ):
        return values.float()
    return values


def _read(path: Path, scm: StructuralCausalModel) -> _Stored:
    size = path.stat().st_size
    if size > 2 * _MOST_BYTES:
        raise ValueError(
            f"observations: {path} is refused: expected at most {format_bytes(2 * _MOST_BYTES)}, "
            f"but it has {format_bytes(size)}."
        )
    tensors, description = read_tensors(path, "observations", "file of observations")
    _check_format(path, description)
    if description.get("weights") != weights_digest(scm):
        raise ValueError(
            f"observations: {path} belongs to another model than the one beside it; export the "
            "model again with --observations, or remove the file."
        )
    try:
        problem = next(_problems(scm, tensors, description), None)
        if problem is None:
            return _Stored(
                {name: tensors[name] for name in scm.graph},
                _world(description.get("world")),
                {name: description["placements"][name] for name in scm.image_variables},
                description.get("complete", False),
            )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problem = one_line(error)
    raise ValueError(
        f"observations: {path} does not fit its model ({problem}); export the model again."
    )


def _check_format(path: Path, description: Mapping[str, Any]) -> None:
    found = description.get("format")
    if type(found) is not int or found < 1:
        raise ValueError(
            f"observations: {path} has no valid format: expected a whole number from 1, but got "
            f"{one_line(repr(found), 40)}; export the model again."
        )
    if found > FORMAT:
        raise ValueError(
            f"observations: {path} has format {one_line(found, 40)}, and this program reads "
            f"formats up to {FORMAT}; install a newer version of deepscm_pl."
        )


def _world(described: Any) -> KnownWorld | None:
    return None if described is None else known_world(described["name"], described["parameters"])


def _problems(
    scm: StructuralCausalModel, tensors: Mapping[str, Tensor], description: Mapping[str, Any]
) -> Iterator[str]:
    """Reasons why tensors are no observations of a model."""
    count = whole_number("rows", description["rows"], least=1)
    if {*tensors} != {*scm.graph}:
        yield f"it has {', '.join(sorted(tensors)) or 'nothing'} instead of {', '.join(scm.graph)}"
    for name in scm.graph:
        domain = scm[name].domain
        expected = (count, *domain.shape)
        if tensors[name].shape != expected:
            yield f"{name} has shape {tuple(tensors[name].shape)} instead of {expected}"
        values = tensors[name].to(scm.dtype)
        inside = domain.contains(values)
        if domain.shape == (1,):  # where a value may be missing
            inside |= values.isnan()
        if not bool(inside.all()):
            yield f"{name} has values outside of {domain}"
    if type(complete := description.get("complete", False)) is not bool:
        yield f"complete is {one_line(repr(complete), 40)} instead of true or false"
    for name in scm.image_variables:
        affines = description["placements"][name]
        if len(affines) != count or not all(map(_is_affine, affines)):
            yield f"the positions of {name} are not one matrix of 4 × 4 for each row"


def _is_affine(value: Any) -> bool:
    if value is None:
        return True
    is_square = isinstance(value, list) and [len(row) for row in value] == [4] * 4
    return is_square and all(
        isinstance(each, int | float) and math.isfinite(each) for row in value for each in row
    )
