"""The data of a causal model, as those who ask about them see them: no training, no Lightning."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor

from deepscm_pl.data.placement import Placement
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import KnownWorld

__all__ = ["CausalData", "Split"]

Split = Literal["train", "validation", "test"]


class CausalData(ABC):
    """Observations of the variables of a causal model, in splits, and what is known about them.

    Questions and evaluations need no more than this. A training needs a
    :class:`~deepscm_pl.data.CausalDataModule`, which also makes batches.

    Example:
        >>> import torch
        >>> class Doses(CausalData):
        ...     def variables(self, split):
        ...         return {"dose": torch.tensor([[1.0], [2.0]])}
        >>> Doses().variables("test")["dose"].shape
        torch.Size([2, 1])
        >>> Doses().row_names("test") is None
        True
    """

    def prepare_data(self) -> None:  # noqa: B027 - most data need no preparation
        """Make what is made once, such as a cache of images; nothing by default."""

    def setup(self, stage: str | None = None) -> None:  # noqa: B027 - data may be in memory
        """Read what a stage (``"fit"``, ``"test"``) needs; nothing by default.

        Raises:
            FileNotFoundError: If the data are missing.
            ValueError: If they are invalid, or have no split of this stage.
        """

    @abstractmethod
    def variables(self, split: Split) -> dict[str, Tensor]:
        """All rows of a split, ``(N, *event)`` of each variable; images may be uint8.

        Do not change the tensors in place. Take statistics only from ``"train"``.

        Raises:
            ValueError: If the split does not exist.
        """

    @property
    def world(self) -> KnownWorld | None:
        """The known world that generated the data; None for other data."""
        return None

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The unit and the class names of each variable, as far as they are known.

        The model copies them before it is trained. Override this in your own class; by default,
        these are the units of the world.
        """
        kind, base = type(self), CausalData
        if kind.units is base.units and kind.class_names is base.class_names:
            return self._of_world()
        warnings.warn(
            f"{kind.__name__}: override descriptions instead of units and class_names.",
            DeprecationWarning,
            stacklevel=2,
        )
        units, classes = self.units, self.class_names
        return {
            name: Variable(name, unit=units.get(name, ""), classes=tuple(classes.get(name, ())))
            for name in {**units, **classes}
        }

    @property
    def units(self) -> dict[str, str]:
        """The units in :attr:`descriptions`, of the variables that have one."""
        return {name: each.unit for name, each in self._own().items() if each.unit}

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The class names in :attr:`descriptions`, of the variables that have some."""
        return {name: each.classes for name, each in self._own().items() if each.classes}

    def _own(self) -> dict[str, Variable]:
        # The default of descriptions may call units and class_names, which must not call it again.
        is_own = type(self).descriptions is not CausalData.descriptions
        return self.descriptions if is_own else self._of_world()

    def _of_world(self) -> dict[str, Variable]:
        known = {} if self.world is None else self.world.units
        return {name: Variable(name, unit=unit) for name, unit in known.items()}

    def originals(self, split: Split) -> NDArray[Any]:
        """The originals of the images, in the order of :meth:`variables`.

        ``world.render`` draws true counterfactuals from them.

        Raises:
            ValueError: If the split does not exist, or there is not one original for each image.
        """
        raise self._without_originals()

    def _without_originals(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} has no originals, because its images were not drawn in a known "
            "world; use data from a known world, such as those of MorphoMNISTDataModule."
        )

    @property
    def prepares_files(self) -> bool:
        """Whether images are made from files, so that :meth:`prepare_file` accepts new ones."""
        return type(self).prepare_file is not CausalData.prepare_file

    def prepare_file(self, path: Path) -> list[tuple[Tensor, Placement | None]]:
        """Preprocess a new file like the files of the data.

        Returns:
            Images ``(C, *sizes)`` with their placement, if it is known: one for each slice of the
            file.

        Raises:
            ValueError: If these data are not made from files, or the file does not fit.
        """
        raise ValueError(
            f"prepare_file: {type(self).__name__} does not prepare its images from files; give "
            "images that are already prepared."
        )

    def identifiers(self, split: Split) -> list[str] | None:
        """The subject of each row of :meth:`variables`; None without subjects."""
        return None

    def row_names(self, split: Split) -> list[str] | None:
        """A name for each row of :meth:`variables` in answers and errors: subject, visit and slice.

        None if rows only have numbers.
        """
        return self.identifiers(split)

    def placement(self, split: Split, row: int) -> Placement | None:
        """The position in the scanner of the image in a row of :meth:`variables`, if known."""
        return None

    def placement_of(self, name: str, split: Split, row: int) -> Placement | None:
        """The position of one of several images in a row; see :meth:`placement`."""
        return self.placement(split, row)
