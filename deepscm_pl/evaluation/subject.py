"""What is evaluated: a model, the rows of a test split, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data import CausalDataModule, KnownWorld
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["Subject"]

_ENOUGH = 3
"""The rows that a correlation, or a true image of another row, needs at least."""


@dataclass(frozen=True)
class Subject:
    """A model and the rows that it is evaluated on.

    Make it with :meth:`of`, which checks that they belong together.

    Attributes:
        scm: The model.
        variables: Recorded values of every variable of the model, ``(N, *event)``, images as bytes.
        world: The world that the rows come from, if it is known.
        originals: What the world draws the images from, N rows, if there is any.
        why_no_originals: The reason where there is none.
        other_attributes: Attributes of the world that the model lacks, ``(N,)`` each: the truth
            depends on them, too.
        available: How many rows the test split has; None where that is not known.
        identifiers: Whose each of the N rows is; None where every row is another's.
    """

    scm: StructuralCausalModel
    variables: Mapping[str, Tensor]
    world: KnownWorld | None
    originals: NDArray[Any] | None
    why_no_originals: str = ""
    other_attributes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    available: int | None = None
    identifiers: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        scm: StructuralCausalModel,
        data: CausalDataModule,
        rows: int | None = None,
        least: int = _ENOUGH,
    ) -> Subject:
        """The first ``rows`` rows of the test split of ``data``, or all.

        The model takes over the units and class names of the data.

        Args:
            scm: The model.
            data: The data.
            rows: How many; None for all.
            least: How many there have to be.

        Raises:
            ValueError: If the model has variables that the data lacks, or of another shape or other
                classes; if the split is smaller than ``rows``, or has fewer than ``least``.
        """
        split = data.variables("test")
        _check_variables(scm, split)
        scm.describe(data.descriptions)
        available = len(next(iter(split.values())))
        size = _size(rows, least, available)
        variables = {name: split[name][:size] for name in scm.graph.nodes}
        identifiers = data.identifiers("test")
        known = cls(
            scm,
            variables,
            data.world,
            None,
            available=available,
            identifiers=None if identifiers is None else identifiers[:size],
        )
        return known if data.world is None else known._with_truth(data, data.world, split)

    def _with_truth(
        self, data: CausalDataModule, world: KnownWorld, split: Mapping[str, Tensor]
    ) -> Subject:
        """With what the world draws the rows' images from, or why there is nothing."""
        others = [name for name in world.attributes if name not in self.variables]
        lacking = [name for name in others if name not in split]
        if lacking:
            reason = (
                f"the test split lacks {', '.join(lacking)}, which the world draws images with."
            )
            return replace(self, why_no_originals=reason)
        columns = {name: _column(split[name][: len(self)]) for name in others}
        try:
            originals = data.originals("test")[: len(self)]
        except ValueError as error:
            return replace(self, why_no_originals=str(error), other_attributes=columns)
        return replace(self, originals=originals, other_attributes=columns)

    def __len__(self) -> int:
        """N, the rows."""
        return len(self.variables[self.scm.graph.nodes[0]])

    @property
    def scalars(self) -> tuple[str, ...]:
        """The variables of the model that are single numbers."""
        return self.scm.scalar_variables

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of the world that the model has, too; none without a world."""
        known = () if self.world is None else self.world.attributes
        return tuple(name for name in known if name in self.scalars)

    @property
    def distributed(self) -> tuple[str, ...]:
        """What has densities of rung 2: :attr:`attributes`; without a world all scalars.

        But those that an image causes: each of their draws would need one to be drawn.
        """
        if self.world is not None:
            return self.attributes
        graph, images = self.scm.graph, set(self.scm.image_variables)
        return tuple(name for name in self.scalars if not graph.ancestors(name) & images)

    @property
    def measured(self) -> tuple[str, ...]:
        """Those of :attr:`attributes` that images show, and that can be measured in them."""
        shown = () if self.world is None else self.world.image_attributes
        return tuple(name for name in self.attributes if name in shown)

    @property
    def individuals(self) -> int:
        """How many there are of those whose rows these are."""
        return len(self) if self.identifiers is None else len(set(self.identifiers))

    def independent_rows(self, stop: int) -> Tensor:
        """The first row of everyone among the rows before ``stop``, ascending.

        Slices and visits of one person are alike, and tell less than as many people would.
        """
        names = list(range(stop)) if self.identifiers is None else self.identifiers[:stop]
        _, first = np.unique(np.asarray(names), return_index=True)
        return torch.from_numpy(np.sort(first))

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """The scalar variables and other attributes of the world as arrays, ``(N,)`` each."""
        scalars = {name: _column(self.variables[name]) for name in self.scalars}
        return scalars | dict(self.other_attributes)

    def unit(self, name: str) -> str:
        """What a variable is measured in, as far as is known."""
        if name not in self.scalars:
            return "grey levels"
        return self.scm.variables[name].unit

    def rows(self, start: int, stop: int) -> dict[str, Tensor]:
        """Some rows as the model takes them: in floating point, on its device."""
        device, dtype = self.scm.fitted.device, self.scm.dtype
        return {name: value[start:stop].to(device, dtype) for name, value in self.variables.items()}

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Rows from ``start`` to ``stop`` in batches, each with its first row."""
        for first in range(start, stop, size):
            yield first, self.rows(first, min(first + size, stop))


def _size(rows: int | None, least: int, available: int) -> int:
    """How many rows to take."""
    if available < least:
        raise ValueError(
            f"rows: expected a test split of at least {least} rows, but it has {available}; "
            "test on more, or leave the evaluation out with --evaluation.enabled false."
        )
    size = available if rows is None else rows
    if not least <= size <= available:
        raise ValueError(
            f"rows: expected from {least} to {available}, the rows of the test split, but "
            f"got {size}; ask for other rows."
        )
    return size


def _column(values: Tensor) -> NDArray[np.float64]:
    """Values ``(N, 1)`` as an array ``(N,)``."""
    column: NDArray[np.float64] = values.squeeze(-1).double().cpu().numpy()
    return column


def _check_variables(scm: StructuralCausalModel, split: Mapping[str, Tensor]) -> None:
    nodes = scm.graph.nodes
    if any(name not in split for name in nodes):
        raise ValueError(
            f"the model has the variables {', '.join(nodes)}, but the data set has "
            f"{', '.join(split)}; evaluate the checkpoint on data with the variables that it was "
            "trained on."
        )
    for name in nodes:
        expected, found = tuple(scm[name].domain.shape), tuple(split[name].shape[1:])
        if expected != found:
            raise ValueError(
                f"{name}: the model expects values of shape {expected}, but those of the data set "
                f"are of shape {found}; give the mechanism of {name} this shape, or the "
                "other to the data."
            )
