"""Brain MRI, or any scans of subjects in a table, as variables of a causal model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from deepscm_pl.checks import process_count, real_number
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
from deepscm_pl.data.scans.cache import PreparedImages, cached_images
from deepscm_pl.data.scans.cohort import Cohort, CohortSettings, MissingValues, check_fractions
from deepscm_pl.data.scans.preprocessing import Normalisation, Preprocessing
from deepscm_pl.data.scans.slices import Axis, RandomCrop, centre_crop, centre_offset
from deepscm_pl.data.tables import Attribute, AttributeKind
from deepscm_pl.data.truth import ORIGINALS_FILE, WORLD_FILE, read_originals
from deepscm_pl.escaping import for_terminal
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import KnownWorld, read_world

__all__ = ["BrainMRIDataModule"]


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
        table: A CSV, TSV or Parquet file, relative to ``root``.
        images: A pattern for the image file of a row, relative to ``root``: ``{column}`` stands for
            what the row says there, as in ``sub-{id}/anat/*T1w.nii.gz``. A glob must match one
            file.
        identifier: The column that names the subjects, read as text.
        visits: Columns that tell several rows of one subject apart.
        columns: Variable to column, or a list of columns that keep their name. None takes all
            columns but those of other arguments.
        kinds: Variable to ``continuous``, ``positive``, ``binary`` or ``categorical``, where that
            is not to be inferred.
        units: Variable to what it is measured in, such as ``mm³``, for captions and tables. None
            takes those of the known world, if there is one.
        missing: ``refuse`` stops at a row without a value in one of ``columns``; ``drop`` leaves
            such rows out, and says how many.
        split_column: A column that says ``train``, ``validation`` or ``test``; None divides the
            subjects at random.
        fractions: Shares of training, validation and test where subjects are divided at random.
        stratify: Columns that are to be distributed alike in all splits.
        split_seed: Seed of that division.
        axis: The direction in which volumes are cut into slices; None leaves volumes whole.
        slices: Which slices: indices, or fractions of the extent from 0.0 to 1.0, interpolated
            where they lie between two. Each becomes a row, in the split of its subject.
        normalisation: ``none`` takes 8-bit images as they are. ``percentiles`` makes the first of
            two percentiles of a scan's foreground black and the second white, ``window`` does so
            with two given numbers.
        percentiles: For ``percentiles``, from 0 to 100.
        window: For ``window``, in the numbers of the files.
        foreground_above: Elements above it are foreground, in the numbers of the files.
        crop_foreground: Whether what is around the foreground is cut away.
        margin: Elements that are left around the foreground then.
        field_of_view: What images are cut or padded to around their middle, in elements of their
            files, before they are resampled or resized.
        voxel_size: What images are resampled to, in mm, a number for each of their axes.
        shape: What images are resized to; with ``voxel_size``, what they are cut or padded to.
        random_crop: Sizes of a random part of each image that training sees; validation and test
            see the middle.
        batch_size: Rows per batch.
        num_workers: Worker processes of each data loader.
        drop_last: Whether training leaves out a smaller last batch.
        cache_dir: Where prepared images are kept; None for ``~/.cache/deepscm_pl``.
        workers: Processes that prepare images; None takes as many as pays.
        memory: How large prepared images may be to be held in memory, in GiB for each process of
            the training.
        progress: Whether preparing shows a progress bar.

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
        ...     folder / "heads", images="{eid}_T1_unbiased_brain_rigid_to_mni.png",
        ...     split_column="split", cache_dir=folder / "cache", progress=False)
        >>> data.variables("train")["image"].shape
        torch.Size([8, 1, 32, 32])
        >>> [f"{each.name}: {each.kind}" for each in data.attributes][:2]
        ['age: positive', 'sex: binary']
    """

    def __init__(
        self,
        root: str | Path,
        table: str = "subjects.csv",
        images: str = "{eid}_T1_unbiased_brain_rigid_to_mni.png",
        identifier: str = "eid",
        visits: Sequence[str] = (),
        columns: dict[str, str] | list[str] | None = None,
        kinds: Mapping[str, AttributeKind] | None = None,
        units: Mapping[str, str] | None = None,
        missing: MissingValues = "refuse",
        split_column: str | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        stratify: Sequence[str] = (),
        split_seed: int = 0,
        axis: Axis | None = None,
        slices: Sequence[int | float] = (),
        normalisation: Normalisation = "none",
        percentiles: Sequence[float] = (0.5, 99.5),
        window: Sequence[float] | None = None,
        foreground_above: float = 0.0,
        crop_foreground: bool = False,
        margin: int = 0,
        field_of_view: Sequence[int] | None = None,
        voxel_size: Sequence[float] | None = None,
        shape: Sequence[int] | None = None,
        random_crop: Sequence[int] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        drop_last: bool = False,
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        memory: float = 4.0,
        progress: bool = True,
    ) -> None:
        super().__init__(
            batch_size, split_seed=split_seed, num_workers=num_workers, drop_last=drop_last
        )
        self.root = Path(root).expanduser().absolute()
        self.table = str(table)
        self.images = images
        self.identifier = identifier
        self.visits = list(visits)
        self.columns = dict(columns) if isinstance(columns, Mapping) else columns
        self.kinds = dict(kinds or {})
        self._units = None if units is None else dict(units)
        if missing not in get_args(MissingValues):
            raise ValueError(f"missing: expected refuse or drop, but got {missing!r}.")
        self.missing: MissingValues = missing
        if split_column is not None and stratify:
            raise ValueError(
                "stratify: expected none where split_column says who is in which split, but got "
                f"{list(stratify)}; leave one of both out."
            )
        self.split_column = split_column
        self.fractions = list(fractions)
        check_fractions(self.fractions)
        self.stratify = list(stratify)
        self.axis = axis
        self.slices = list(slices)
        self.normalisation: Normalisation = normalisation
        self.percentiles = list(percentiles)
        self.window = None if window is None else list(window)
        self.foreground_above = foreground_above
        self.crop_foreground = crop_foreground
        self.margin = margin
        self.field_of_view = None if field_of_view is None else list(field_of_view)
        self.voxel_size = None if voxel_size is None else list(voxel_size)
        self.shape = None if shape is None else list(shape)
        self.random_crop = None if random_crop is None else list(random_crop)
        self.cache_dir = Path(cache_dir or "~/.cache/deepscm_pl").expanduser().absolute()
        self.workers = None if workers is None else process_count("workers", workers)
        self.memory = real_number("memory", memory, least=0, hint="give GiB")
        self.progress = progress
        _ = self.preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to every image."""
        return Preprocessing(
            normalisation=self.normalisation,
            percentiles=_floats(self.percentiles),
            window=None if self.window is None else _floats(self.window),
            foreground_above=self.foreground_above,
            crop_foreground=self.crop_foreground,
            margin=self.margin,
            axis=self.axis,
            slices=tuple(self.slices),
            field_of_view=None if self.field_of_view is None else tuple(self.field_of_view),
            voxel_size=None if self.voxel_size is None else tuple(self.voxel_size),
            shape=None if self.shape is None else tuple(self.shape),
        )

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The variables that come from the table, with their kinds and what class indices mean."""
        return self._cohort.attributes

    @property
    def descriptions(self) -> dict[str, Variable]:
        """The unit of each variable, as far as it is known, and the texts in columns of classes."""
        units = self._units
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
        path = (self.root / self.table).with_name(WORLD_FILE)
        if not path.is_file() or self.random_crop or not self.preprocessing.is_identity:
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
        slices = [f", {self.axis} {position}" for position in self.slices]
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
        prepared = self.preprocessing(path)
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
        path = (self.root / self.table).with_name(ORIGINALS_FILE)
        originals = read_originals(path, names[first:] if split == "test" else names[:first])
        drawn, found = world.drawn_shape(originals)[1:], tuple(self._prepared.images.shape[2:])
        if drawn != found:
            raise ValueError(
                f"{path} belongs to images of shape {drawn}, but those of the data set are of "
                f"shape {found}, and so there are no true counterfactuals; generate the data set "
                "again with `deepscm data brain`."
            )
        return originals

    def _check_units(self) -> None:
        names = [attribute.name for attribute in self.attributes]
        for name in self._units or {}:
            if name not in names:
                raise ValueError(f"units: {name!r} is not one of the variables {', '.join(names)}.")

    @cached_property
    def _cohort(self) -> Cohort:
        return CohortSettings(
            root=self.root,
            table=self.root / self.table,
            images=self.images,
            identifier=self.identifier,
            visits=self.visits,
            columns=self.columns,
            kinds=self.kinds,
            split_column=self.split_column,
            fractions=self.fractions,
            stratify=self.stratify,
            split_seed=self.split_seed,
            missing=self.missing,
        ).read()

    @cached_property
    def _prepared(self) -> PreparedImages:
        return self._images()

    def _images(self) -> PreparedImages:
        sources, preprocessing = self._cohort.sources, self.preprocessing
        prepared = cached_images(
            sources, preprocessing, self.cache_dir, self.workers, self.progress, self.memory
        )
        if not preprocessing.makes_heads_one_size:
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


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
