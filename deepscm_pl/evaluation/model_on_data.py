"""A model and the rows of a test split on which it is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data import CausalData, KnownWorld
from deepscm_pl.data.base import Split
from deepscm_pl.ensemble import Ensemble
from deepscm_pl.mechanisms.missing import complete_rows
from deepscm_pl.scm import StructuralCausalModel

__all__ = ["ModelOnData"]

_MIN_ROWS = 3
"""Needed for a correlation, and for the true image of another row."""

_FEW_COMPLETE = 30
_INFERRED_AT_A_TIME = 256


@dataclass(frozen=True)
class ModelOnData:
    """A model, rows of a test split, and their known world if there is one.

    Create it with :meth:`of`, which checks that model and data match.

    Attributes:
        scm: The model.
        variables: Recorded values of the model's variables, ``(N, *event)``, images as bytes.
        world: The known world that generated the rows, if any.
        originals: Inputs from which the world draws the images, one for each row, if available.
        why_no_originals: The reason if they are missing.
        other_attributes: Attributes of the world that are not in the model, ``(N,)`` each; the
            truth depends on them, too.
        available: Number of rows of the test split, if known.
        identifiers: The person of each row; None if every row belongs to another person.
        training: Scalar variables of the training split, ``(n, 1)`` each; empty if unknown.
        incomplete: Number of rows with missing values.
        is_inferred: Whether their values are inferred by the model; if not, they are left out.
        ensemble: Models whose particles answer counterfactual questions; ``scm`` is the first.
    """

    scm: StructuralCausalModel
    variables: Mapping[str, Tensor]
    world: KnownWorld | None
    originals: NDArray[Any] | None
    why_no_originals: str = ""
    other_attributes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    available: int | None = None
    identifiers: Sequence[str] | None = None
    training: Mapping[str, Tensor] = field(default_factory=dict)
    incomplete: int = 0
    is_inferred: bool = False
    ensemble: Ensemble | None = None

    @classmethod
    def of(
        cls,
        scm: StructuralCausalModel,
        data: CausalData,
        rows: int | None = None,
        least: int = _MIN_ROWS,
        split: Split = "test",
        is_complete: bool = True,
    ) -> ModelOnData:
        """Take the first ``rows`` rows of a split, or all; set units and classes in ``scm``.

        Rows with missing values are left out, so that no answer of the model is compared with a
        value that the model has inferred, unless fewer than 30 rows, and fewer than half, are
        complete.

        Args:
            scm: The model.
            data: The data.
            rows: Number of rows; None for all.
            least: Minimal number of rows.
            split: The split, from which the model has not learned.
            is_complete: Whether rows with missing values are left out.

        Raises:
            ValueError: If the data lacks a variable of the model or has it in another shape or with
                other classes, or the split has fewer than ``rows`` or ``least`` rows.
        """
        values = data.variables(split)
        _check_variables(scm, values)
        scm.describe(data.descriptions)
        available = len(next(iter(values.values())))
        complete = complete_rows(values, scm.scalar_variables) if is_complete else None
        incomplete = 0 if complete is None else available - len(complete)
        is_inferred = complete is not None and _are_few(len(complete), available)
        if is_inferred:
            values, complete = {**values, **_inferred(scm, values)}, None
        elif complete is not None:
            available, rows = len(complete), rows and min(rows, len(complete))
        size = _checked_size(rows, least, available)
        chosen: slice | Tensor = slice(size) if complete is None else complete[:size]
        identifiers, world = data.identifiers(split), data.world
        if identifiers is not None:
            identifiers = [identifiers[row] for row in torch.arange(len(identifiers))[chosen]]
        model = cls(
            scm,
            {name: values[name][chosen] for name in scm.graph.nodes},
            world,
            None,
            available=available,
            incomplete=incomplete,
            is_inferred=is_inferred,
            identifiers=identifiers,
            training=_scalars(scm, data.variables("train")),
        )
        if world is None:
            return model
        others = [name for name in world.attributes if name not in model.variables]
        if missing := [name for name in others if name not in values]:
            reason = f"the {split} split lacks {', '.join(missing)}, which affects the images."
            return replace(model, why_no_originals=reason)
        columns = {name: _column(values[name][chosen]) for name in others}
        try:
            originals = data.originals(split)[chosen]
        except ValueError as error:
            return replace(model, why_no_originals=str(error), other_attributes=columns)
        return replace(model, originals=originals, other_attributes=columns)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.variables[self.scm.graph.nodes[0]])

    @property
    def answering(self) -> StructuralCausalModel | Ensemble:
        """The ensemble, or the model without one."""
        return self.ensemble or self.scm

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the scalar variables of the model."""
        return self.scm.scalar_variables

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the scalars that are attributes of the world, too; empty without a world."""
        known = () if self.world is None else self.world.attributes
        return tuple(name for name in known if name in self.scalars)

    @property
    def distributed(self) -> tuple[str, ...]:
        """Names of the variables with densities of rung 2.

        These are :attr:`attributes`, or without a world all scalars that no image causes: sampling
        the effects of an image would require sampling the image.
        """
        if self.world is not None:
            return self.attributes
        graph, images = self.scm.graph, set(self.scm.image_variables)
        return tuple(name for name in self.scalars if not graph.ancestors(name) & images)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the attributes that can be measured in images."""
        measurable = () if self.world is None else self.world.image_attributes
        return tuple(name for name in self.attributes if name in measurable)

    @property
    def individuals(self) -> int:
        """Number of different persons."""
        return len(self) if self.identifiers is None else len(set(self.identifiers))

    def independent_rows(self, stop: int) -> Tensor:
        """Return the first row of each person among the rows before ``stop``, in ascending order.

        Further slices and visits of a person are not independent of the first.
        """
        names = list(range(stop)) if self.identifiers is None else self.identifiers[:stop]
        _, first = np.unique(np.asarray(names), return_index=True)
        return torch.from_numpy(np.sort(first))

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Return scalar variables and other attributes of the world as arrays ``(N,)``."""
        scalars = {name: _column(self.variables[name]) for name in self.scalars}
        return scalars | dict(self.other_attributes)

    def unit(self, name: str) -> str:
        """Return the unit of a variable, empty if unknown."""
        return self.scm.variables[name].unit if name in self.scalars else "grey levels"

    def rows(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return rows in the floating-point type and on the device of the model."""
        device, dtype = self.scm.fitted.device, self.scm.dtype
        return {name: value[start:stop].to(device, dtype) for name, value in self.variables.items()}

    def batches(self, start: int, stop: int, size: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield batches of the rows from ``start`` to ``stop``, each with its first index."""
        for first in range(start, stop, size):
            yield first, self.rows(first, min(first + size, stop))


def _are_few(complete: int, available: int) -> bool:
    """Whether complete rows are so few that inferred values are better than leaving rows out."""
    return complete < min(_FEW_COMPLETE, available // 2)


def _inferred(scm: StructuralCausalModel, split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scalars of a split, each missing value replaced by one draw of its posterior."""
    size = len(split[scm.graph.nodes[0]])
    parts: list[Mapping[str, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for start in range(0, size, _INFERRED_AT_A_TIME):
            some = {name: split[name][start : start + _INFERRED_AT_A_TIME] for name in scm.graph}
            given = {name: value.to(scm.fitted.device, scm.dtype) for name, value in some.items()}
            found = scm.completed(given)
            parts.append({name: found[name].cpu() for name in scm.scalar_variables})
    return {name: torch.cat([part[name] for part in parts]) for name in scm.scalar_variables}


def _scalars(scm: StructuralCausalModel, split: Mapping[str, Tensor]) -> dict[str, Tensor]:
    rows = complete_rows(split, scm.scalar_variables)
    if rows is not None and _are_few(len(rows), len(next(iter(split.values())))):
        return {}
    chosen = slice(None) if rows is None else rows
    return {name: split[name][chosen] for name in scm.scalar_variables}


def _checked_size(rows: int | None, least: int, available: int) -> int:
    if available < least:
        raise ValueError(
            f"rows: expected a test split of at least {least} complete rows, but it has "
            f"{available}; "
            "test on more, or skip the evaluation with --evaluation.enabled false."
        )
    size = available if rows is None else rows
    if not least <= size <= available:
        raise ValueError(
            f"rows: expected from {least} to {available}, the rows of the test split, but "
            f"got {size}; choose another number of rows."
        )
    return size


def _column(values: Tensor) -> NDArray[np.float64]:
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
                f"{name}: the model expects values of shape {expected}, but the data set has shape "
                f"{found}; change the shape in the mechanism of {name} or in the data."
            )
