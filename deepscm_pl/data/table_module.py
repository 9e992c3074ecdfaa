"""Rows of a table, with or without images, as variables of a causal model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from deepscm_pl.data.base import CausalDataModule, SourceSplits, Split
from deepscm_pl.data.cohort import Cohort, Division, RowSettings, TableSettings, read_cohort
from deepscm_pl.data.images import check_voxel_sizes, read_header
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.scans.cache import Cache, PreparedImages, cached_images
from deepscm_pl.data.scans.preprocessing import Preprocessing, Slicing
from deepscm_pl.data.tables.attributes import Attribute
from deepscm_pl.escaping import for_terminal
from deepscm_pl.variables import Variable

__all__ = ["TableDataModule"]


class TableDataModule(CausalDataModule):
    r"""Rows of a table: numbers, classes, and images from any number of columns, or none.

    Columns become variables ``(N, 1)`` float32: numbers in their own units, class indices, and NaN
    where a value is missing, with ``missing: infer``. Their kinds are inferred, logged with the
    reason, and overridden by one word each. Images become variables in grey levels ``(N, C,
    *sizes)``; they are preprocessed once and cached.

    Args:
        root: Folder of the data.
        table: The table, and the use of its columns.
        splits: The division of the units.
        preprocessing: The steps from an image file to an image.
        cache: The cache of preprocessed images.
        batch_size: Rows per batch.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training omits a smaller last batch.

    Raises:
        ValueError: If an argument is out of range; on setup, if a row of the table or an image is
            invalid.
        FileNotFoundError: On setup, if the table or an image is missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = [f"{40 + n},{'low' if n % 2 else 'high'},{n / 7:.2f}" for n in range(20)]
        >>> _ = (folder / "table.csv").write_text("\n".join(["age,risk,score", *rows]))
        >>> data = TableDataModule(folder, splits=Division(fractions=(0.5, 0.25, 0.25)))
        >>> [f"{each.name}: {each.kind}" for each in data.attributes]
        ['age: positive', 'risk: binary', 'score: continuous']
        >>> data.variables("train")["age"].shape
        torch.Size([10, 1])
    """

    def __init__(
        self,
        root: str | Path,
        table: TableSettings = TableSettings(),  # noqa: B008
        splits: Division = Division(),  # noqa: B008
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008
        cache: Cache = Cache(),  # noqa: B008
        batch_size: int = 64,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers=num_workers, drop_last=drop_last)
        self.root = Path(root).expanduser().absolute()
        self.table: RowSettings = table
        self.splits = splits
        self.slicing = Slicing()
        self.preprocessing = preprocessing
        self.cache = cache

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The variables of the table, with their kinds, reasons and class names."""
        return self._cohort.attributes

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The units, and the class names in columns of classes."""
        units = self.table.units
        if units is None:
            units = {name: each.unit for name, each in super().descriptions.items()}
        classes = {each.name: each.levels for each in self.attributes}
        return {
            name: Variable(name, unit=units.get(name, ""), classes=tuple(classes.get(name, ())))
            for name in {**classes, **units}
        }

    def prepare_data(self) -> None:
        """Preprocess the images unless they are in the cache."""
        self._prepare()

    def load(self) -> SourceSplits:
        """The rows for training and validation, in this order, and for the test."""
        notes = [line for each in self._prepared.values() for line in each.summary()]
        rank_zero_info("%s", for_terminal("\n".join([self._cohort.summary(), *notes]), lines=True))
        self._check_units()
        variables = {
            attribute.name: torch.from_numpy(attribute.values)[:, None].repeat_interleave(
                self._per_source, dim=0
            )
            for attribute in self.attributes
        }
        for name, prepared in self._prepared.items():
            variables[name] = self._cropped(prepared.images)
        first = self._first_row("test")
        return SourceSplits(
            train={name: values[:first] for name, values in variables.items()},
            test={name: values[first:] for name, values in variables.items()},
        )

    def divide(self, size: int) -> tuple[slice, slice]:
        """Training rows come first, then validation rows."""
        first = self._first_row("validation")
        return slice(0, first), slice(first, size)

    def identifiers(self, split: Split) -> list[str]:
        """The unit of each row of a split."""
        repeated = self._cohort.identifiers.repeat(self._per_source)
        return [str(each) for each in repeated[self._rows(split)]]

    def row_names(self, split: Split) -> list[str]:
        """The unit, visit and slice of each row, such as ``0042, session 2, axial 0.45``."""
        slices = [f", {self.slicing.axis} {position}" for position in self.slicing.slices]
        which = slices if len(slices) > 1 else [""] * self._per_source
        names = [f"{visit}{each}" for visit in self._cohort.visits for each in which]
        return [names[row] for row in self._rows(split)]

    def placement(self, split: Split, row: int) -> Placement | None:
        """The position of the first image of a row."""
        return self.placement_of(next(iter(self._prepared), ""), split, row)

    def placement_of(self, name: str, split: Split, row: int) -> Placement | None:
        """The position of a preprocessed image, of its centre crop if crops are random."""
        prepared = self._prepared.get(name)
        if prepared is None:
            return None
        number = int(self._rows(split)[row])
        header, affine = prepared.headers[number], prepared.affines[number]
        if not np.isfinite(affine).all():
            return None
        affine = affine @ self._crop_step(prepared.images.shape[2:])
        return Placement(affine, read_header(header.tobytes()) if header.any() else None)

    def prepare_file(self, path: Path) -> list[tuple[Tensor, Placement | None]]:
        """Preprocess an image that may be from outside the data set.

        Its voxels must be as large as those of the data, unless ``voxel_size`` is set.

        Returns:
            Grey levels ``(C, *sizes)`` with their placement, for each slice, or of the volume.

        Raises:
            ValueError: If the file cannot be read, or does not fit the settings.
        """
        prepared = self.preprocessing(path, self.slicing)
        for note in prepared.notes:
            rank_zero_info("%s", for_terminal(f"{path}: {note}"))
        images = torch.from_numpy(prepared.images)
        step = self._crop_step(images.shape[2:])
        header = None if prepared.header is None else read_header(prepared.header)
        return [
            (image, Placement(affine @ step, header) if np.isfinite(affine).all() else None)
            for image, affine in zip(self._cropped(images), prepared.affines, strict=True)
        ]

    def _cropped(self, images: Tensor) -> Tensor:
        """The part of images ``(N, C, *sizes)`` that models see."""
        return images

    def _crop_step(self, shape: torch.Size) -> NDArray[np.float64]:
        """From a voxel index of that part to one of a whole image, ``(4, 4)``."""
        return np.eye(4)

    def _check_units(self) -> None:
        names = [attribute.name for attribute in self.attributes]
        for name in self.table.units or {}:
            if name not in names:
                raise ValueError(f"units: {name!r} is not one of the variables {', '.join(names)}.")

    @cached_property
    def _cohort(self) -> Cohort:
        return read_cohort(self.root, self.table, self.splits)

    @cached_property
    def _prepared(self) -> dict[str, PreparedImages]:
        return self._prepare()

    def _prepare(self) -> dict[str, PreparedImages]:
        found = {}
        for name, sources in self._cohort.sources.items():
            prepared = cached_images(sources, self.preprocessing, self.slicing, self.cache)
            if not self.preprocessing.makes_heads_one_size:
                check_voxel_sizes(prepared.affines, sources, prepared.images.dim() - 2)
            found[name] = prepared
        return found

    @property
    def _per_source(self) -> int:
        """The number of rows of a model for each row of the table."""
        return next((each.per_source for each in self._prepared.values()), 1)

    def _first_row(self, split: Split) -> int:
        """The first row of a split among all rows."""
        train, validation, _ = self._cohort.counts
        before = {"train": 0, "validation": train, "test": train + validation}
        return before[split] * self._per_source

    def _rows(self, split: Split) -> NDArray[np.int64]:
        """The rows of a split among all rows."""
        index: Tensor = self.variables(split)["index"].squeeze(-1)
        return index.numpy() + (self._first_row("test") if split == "test" else 0)
