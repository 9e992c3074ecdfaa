"""Brain MRI, or any scans of subjects in a table, as variables of a causal model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from deepscm_pl.data.base import (
    CausalDataModule,
    InMemoryDataset,
    PublishedSplit,
    SourceSplits,
    Split,
)
from deepscm_pl.data.images import check_voxel_sizes, read_header
from deepscm_pl.data.loading import data_seed
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.scans.cache import Cache, PreparedImages, cached_images
from deepscm_pl.data.scans.cohort import Cohort, Division, Subjects, read_cohort
from deepscm_pl.data.scans.preprocessing import Preprocessing, Slicing
from deepscm_pl.data.scans.slices import RandomCrop, centre_crop, centre_offset
from deepscm_pl.data.tables import Attribute
from deepscm_pl.data.truth import ORIGINALS_FILE, WORLD_FILE, read_originals
from deepscm_pl.escaping import for_terminal
from deepscm_pl.older import names_successors
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import KnownWorld, read_world

__all__ = ["BrainMRIDataModule"]


@names_successors
class BrainMRIDataModule(CausalDataModule):
    """Scans of subjects in a table: slices or volumes, and the attributes that cause them.

    The table has a row for each subject, or for each visit of one. Its columns become variables
    ``(N, 1)`` float32: numbers in their own units, or class indices. The images become ``image``,
    grey levels ``(N, 1, *sizes)``: slices of rows and columns, or volumes (left to right, back to
    front, bottom to top). An axial slice has its rows from front to back and its columns from left
    to right, a coronal one its rows from top to bottom and its columns from left to right, a
    sagittal one its rows from top to bottom and its columns from back to front.

    Files are PNG (8 or 16 bits), JPEG (8 bits), NumPy arrays, or NIfTI, which is turned so that its
    axes point to the right, forward and up. They are prepared once, and kept in ``cache_dir`` under
    the settings and the names, sizes and times of the files. Of what is larger than ``memory`` only
    the rows of a batch are read at a time.

    Where the table lies beside the ``world.json`` of a folder made by ``deepscm data brain``, and
    images are left as they are, :attr:`world` knows the truth of every counterfactual.

    Args:
        root: The folder of the data.
        subjects: The table, and what is taken from it.
        splits: How subjects are divided.
        slicing: How volumes are cut into slices.
        preprocessing: The steps from a file to an image.
        random_crop: Sizes of a random part of each image that training sees; validation and test
            see the middle.
        cache: Where prepared images are kept, and how they are prepared.
        batch_size: Rows per batch.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training leaves out a smaller last batch.

    Raises:
        ValueError: If an argument is out of range, or two do not go together; on setup, if a row of
            the table or an image is not as it should be.
        FileNotFoundError: On setup, if the table or an image is missing.

    Example:
        >>> import tempfile
        >>> from deepscm_pl.data import generate_brain
        >>> folder = Path(tempfile.mkdtemp())
        >>> generate_brain(folder / "heads", size=10, shape=(32, 32), workers=1, progress=False)
        >>> data = BrainMRIDataModule(
        ...     folder / "heads",
        ...     subjects=Subjects(images="{eid}_T1_unbiased_brain_rigid_to_mni.png"),
        ...     splits=Division(column="split"),
        ...     cache=Cache(folder / "cache", progress=False),
        ... )
        >>> data.variables("train")["image"].shape
        torch.Size([8, 1, 32, 32])
        >>> [f"{each.name}: {each.kind}" for each in data.attributes][:2]
        ['age: positive', 'sex: binary']
    """

    def __init__(
        self,
        root: str | Path,
        subjects: Subjects = Subjects(),  # noqa: B008
        splits: Division = Division(),  # noqa: B008
        slicing: Slicing = Slicing(),  # noqa: B008
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008
        random_crop: Sequence[int] | None = None,
        cache: Cache = Cache(),  # noqa: B008
        batch_size: int = 64,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers=num_workers, drop_last=drop_last)
        self.root = Path(root).expanduser().absolute()
        self.subjects = subjects
        self.splits = splits
        self.slicing = slicing
        self.preprocessing = preprocessing
        self.random_crop = None if random_crop is None else list(random_crop)
        self.cache = cache

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The variables that come from the table, with their kinds and what class indices mean."""
        return self._cohort.attributes

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The unit of each variable, as far as it is known, and the texts in columns of classes."""
        units = self.subjects.units
        if units is None:
            units = {name: each.unit for name, each in super().descriptions.items()}
        classes = {each.name: each.levels for each in self.attributes}
        return {
            name: Variable(name, unit=units.get(name, ""), classes=tuple(classes.get(name, ())))
            for name in {**classes, **units}
        }

    @property
    def world(self) -> KnownWorld | None:
        """The world that the heads were drawn in, if it is known and images are as it draws them.

        Raises:
            ValueError: If ``world.json`` is broken.
        """
        path = (self.root / self.subjects.table).with_name(WORLD_FILE)
        unchanged = self.preprocessing.is_identity and self.slicing.axis is None
        if not path.is_file() or self.random_crop or not unchanged:
            return None
        world = read_world(path)
        known = {attribute.name for attribute in self.attributes}
        return world if known.issuperset(world.attributes) else None

    def prepare_data(self) -> None:
        """Prepares the images, unless they are in the cache."""
        self._images()

    def load(self) -> SourceSplits:
        """The rows that are trained and validated on, in this order, and those to test on."""
        rank_zero_info("%s", for_terminal(self._cohort.summary(), lines=True))
        self._check_units()
        variables = {
            attribute.name: torch.from_numpy(attribute.values)[:, None].repeat_interleave(
                self._prepared.per_source, dim=0
            )
            for attribute in self.attributes
        }
        images = self._prepared.images
        if self.random_crop is not None:
            images = centre_crop(images, self.random_crop)
        variables["image"] = images
        first = self._first_row("test")
        return SourceSplits(
            train={name: values[:first] for name, values in variables.items()},
            test={name: values[first:] for name, values in variables.items()},
        )

    def divide(self, size: int) -> tuple[slice, slice]:
        """Training rows come first, then those to validate on."""
        first = self._first_row("validation")
        return slice(0, first), slice(first, size)

    def training_dataset(self) -> InMemoryDataset:
        """Training rows, of which random crops are taken if so wished."""
        variables = self.variables("train")
        if self.random_crop is None:
            return InMemoryDataset(variables)
        whole = self._prepared.images[: self._first_row("validation")]
        crop = RandomCrop(self.random_crop, data_seed())
        return InMemoryDataset({**variables, "image": whole}, crop)

    def identifiers(self, split: Split) -> list[str]:
        """The subject of each row of a split.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            A text per row of :meth:`variables`.

        Raises:
            ValueError: If there is no such split.
        """
        repeated = self._cohort.identifiers.repeat(self._prepared.per_source)
        return [str(each) for each in repeated[self._rows(split)]]

    def row_names(self, split: Split) -> list[str]:
        """The subject, visit and slice of each row of a split, as far as there are several.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            A text per row of :meth:`variables`, such as ``0042, session 2, axial 0.45``.

        Raises:
            ValueError: If there is no such split.
        """
        slices = [f", {self.slicing.axis} {position}" for position in self.slicing.slices]
        which = slices if len(slices) > 1 else [""] * self._prepared.per_source
        names = [f"{visit}{each}" for visit in self._cohort.visits for each in which]
        return [names[row] for row in self._rows(split)]

    def placement(self, split: Split, row: int) -> Placement | None:
        """Where the elements of a prepared image lie; the middle where crops are random.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            row: Of :meth:`variables`.

        Returns:
            None where the file does not say, as PNG does not.
        """
        number = int(self._rows(split)[row])
        affine = self._prepared.affines[number]
        if not np.isfinite(affine).all():
            return None
        header = self._prepared.headers[number]
        if self.random_crop is not None:
            affine = affine @ _crop_offset(self._prepared.images.shape[2:], self.random_crop)
        return Placement(affine, read_header(header.tobytes()) if header.any() else None)

    def prepare_file(self, path: Path) -> list[tuple[Tensor, Placement | None]]:
        """What a scan becomes, from which this data set need not be: each slice, or the volume.

        Its elements have to be as large as those of the data, unless ``voxel_size`` is given.

        Args:
            path: The file.

        Returns:
            Grey levels ``(1, *sizes)`` and where they lie.

        Raises:
            ValueError: If the file cannot be read, or does not fit the settings.
        """
        prepared = self.preprocessing(path, self.slicing)
        images = torch.from_numpy(prepared.images)
        step = np.eye(4)
        if self.random_crop is not None:
            step = _crop_offset(images.shape[2:], self.random_crop)
            images = centre_crop(images, self.random_crop)
        header = None if prepared.header is None else read_header(prepared.header)
        return [
            (image, Placement(affine @ step, header) if np.isfinite(affine).all() else None)
            for image, affine in zip(images, prepared.affines, strict=True)
        ]

    def load_originals(self, split: PublishedSplit) -> NDArray[Any]:
        """What makes the heads of a split themselves, in the order of :meth:`load`."""
        world = self.world
        if world is None:
            return super().load_originals(split)
        names = self._cohort.identifiers
        first = sum(self._cohort.counts[:2])
        path = (self.root / self.subjects.table).with_name(ORIGINALS_FILE)
        originals = read_originals(path, names[first:] if split == "test" else names[:first])
        drawn, found = (
            world.renderer.drawn_shape(originals)[1:],
            tuple(self._prepared.images.shape[2:]),
        )
        if drawn != found:
            raise ValueError(
                f"{path} belongs to images of shape {drawn}, but those of the data set are of "
                f"shape {found}, and so there are no true counterfactuals; generate the data set "
                "again with `deepscm data brain`."
            )
        return originals

    def _check_units(self) -> None:
        names = [attribute.name for attribute in self.attributes]
        for name in self.subjects.units or {}:
            if name not in names:
                raise ValueError(f"units: {name!r} is not one of the variables {', '.join(names)}.")

    @cached_property
    def _cohort(self) -> Cohort:
        return read_cohort(self.root, self.subjects, self.splits)

    @cached_property
    def _prepared(self) -> PreparedImages:
        return self._images()

    def _images(self) -> PreparedImages:
        sources = self._cohort.sources
        prepared = cached_images(sources, self.preprocessing, self.slicing, self.cache)
        if not self.preprocessing.makes_heads_one_size:
            check_voxel_sizes(prepared.affines, sources, prepared.images.dim() - 2)
        return prepared

    def _first_row(self, split: Split) -> int:
        """The first row of a split among all, of which those to train on are the first."""
        train, validation, _ = self._cohort.counts
        before = {"train": 0, "validation": train, "test": train + validation}
        return before[split] * self._prepared.per_source

    def _rows(self, split: Split) -> NDArray[np.int64]:
        """The rows of a split among all."""
        index: Tensor = self.variables(split)["index"].squeeze(-1)
        return index.numpy() + (self._first_row("test") if split == "test" else 0)


def _crop_offset(shape: Sequence[int], sizes: Sequence[int]) -> NDArray[np.float64]:
    """From an element of the middle to the same element of the whole image, ``(4, 4)``."""
    step = np.eye(4)
    offset = centre_offset(shape, sizes)
    step[: len(offset), 3] = offset
    return step
