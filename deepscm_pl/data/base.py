"""Data modules whose batches are variables of a causal model."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deepscm_pl.checks import process_count, seed_number, whole_number
from deepscm_pl.configuration import describe
from deepscm_pl.data.loading import EpochSampler, ResumableLoader, ShardSampler, data_seed
from deepscm_pl.data.placement import Placement
from deepscm_pl.variables import Variable
from deepscm_pl.worlds import KnownWorld

__all__ = [
    "Augmentation",
    "CausalDataModule",
    "InMemoryDataset",
    "PublishedSplit",
    "SourceSplits",
    "Split",
    "take_rows",
]

Split = Literal["train", "validation", "test"]

Augmentation: TypeAlias = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""What is made of a batch of training rows, such as random crops of its images."""

PublishedSplit = Literal["train", "test"]
"""A split in which a data set is published; validation rows are held out of its ``"train"``."""


RowIndex: TypeAlias = Tensor | slice
"""Some rows of a split: their numbers, or from where to where."""


@dataclass(frozen=True)
class SourceSplits:
    """The two splits in which a data set is published, as whole tensors.

    Attributes:
        train: Name to tensor ``(N, ...)``; split further into training and validation.
        test: Name to tensor ``(M, ...)``, of the same names.
    """

    train: Mapping[str, Tensor]
    test: Mapping[str, Tensor]


class InMemoryDataset(Dataset[dict[str, Tensor]]):
    """Rows of tensors held in memory, gathered a batch at a time.

    A batch is one indexed copy per variable instead of a Python loop over items. Bytes (images)
    become float32 grey levels 0 to 255 when they are gathered; other types stay.

    Args:
        variables: Name to tensor ``(N, ...)``, of equal lengths. Only the rows that are asked for
            are read of a tensor that is mapped from a file.
        augmentation: What is made of a batch before it is used; None leaves it as it is.

    Raises:
        ValueError: If there is no variable or their lengths differ.

    Example:
        >>> dataset = InMemoryDataset({"x": torch.tensor([[1.0], [2.0], [3.0]])})
        >>> dataset.__getitems__([2, 0])["x"]
        tensor([[3.],
                [1.]])
    """

    def __init__(
        self, variables: Mapping[str, Tensor], augmentation: Augmentation | None = None
    ) -> None:
        lengths = {name: len(tensor) for name, tensor in variables.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"variables must be of one length, at least one, got {lengths}.")
        self.variables = dict(variables)
        self.augmentation = augmentation

    def __len__(self) -> int:
        """The number of rows."""
        return len(next(iter(self.variables.values())))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The variables of one row, without batch dimension."""
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The variables of several rows, with a leading batch dimension."""
        rows = torch.as_tensor(indices)
        batch = {name: _as_values(tensor[rows]) for name, tensor in self.variables.items()}
        return batch if self.augmentation is None else self.augmentation(batch)


class CausalDataModule(pl.LightningDataModule, ABC):
    """Variables of a causal model, in training, validation and test splits.

    A batch is a dictionary from the name of a variable to a tensor: scalars ``(B, 1)`` float32,
    images ``(B, C, H, W)`` or volumes ``(B, C, X, Y, Z)``, from left to right, back to front and
    bottom to top, float32 in grey levels 0 to 255, and two that are not part of the
    model: ``label`` ``(B, 1)`` int64 and ``index`` ``(B, 1)`` int64, the row in the published
    split that the item comes from.

    The published training split is divided at random, but always alike for one ``split_seed``,
    into training and validation; the published test split is never touched until it is tested
    on. Use :meth:`variables` for statistics of the training split.

    Subclasses implement :meth:`load`, :meth:`divide` if the training split is not to be divided at
    random, and :meth:`training_dataset` if its rows are to be augmented.

    Args:
        batch_size: Rows per batch.
        validation_size: Rows of the published training split that are held out to validate on.
        split_seed: Seed of the division, independent of any global seed.
        num_workers: Worker processes of each data loader. Gathering a batch is one indexed copy,
            so 0, the main process, is usually fastest.
        drop_last: Whether training leaves out a last batch that is smaller than the others.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        batch_size: int = 256,
        validation_size: int = 6000,
        split_seed: int = 0,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        self.validation_size = whole_number("validation_size", validation_size, least=1)
        self.split_seed = seed_number("split_seed", split_seed)
        self.num_workers = process_count("num_workers", num_workers, least=0)
        self.drop_last = drop_last
        self._datasets: dict[Split, InMemoryDataset] | None = None

    @abstractmethod
    def load(self) -> SourceSplits:
        """Loads the published splits, in their order and with a row per item.

        Scalars are ``(N, 1)`` float32, images ``(N, C, H, W)`` uint8 and ``label`` ``(N, 1)``
        int64. The base class adds ``index``, the row.
        """

    @property
    def world(self) -> KnownWorld | None:
        """The world that the data come from, if it is known."""
        return None

    @property
    def descriptions(self) -> dict[str, Variable]:
        """What is known of each variable: its unit, and the names of its class indices 0, 1, ...

        The model that is trained takes it over and is saved with it. Override it in a class of your
        own; this one knows the units of the world.
        """
        kind, base = type(self), CausalDataModule
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
        """The unit of each variable that has one, of :attr:`descriptions`."""
        return {name: each.unit for name, each in self._own().items() if each.unit}

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The names of the classes of each variable that has some, of :attr:`descriptions`."""
        return {name: each.classes for name, each in self._own().items() if each.classes}

    def _own(self) -> dict[str, Variable]:
        # Where nothing overrides descriptions, they are made of units and class_names.
        is_own = type(self).descriptions is not CausalDataModule.descriptions
        return self.descriptions if is_own else self._of_world()

    def _of_world(self) -> dict[str, Variable]:
        known = {} if self.world is None else self.world.units
        return {name: Variable(name, unit=unit) for name, unit in known.items()}

    def load_originals(self, split: PublishedSplit) -> NDArray[Any]:
        """Loads the originals from which the images of a published split were drawn.

        Args:
            split: ``"train"`` or ``"test"``, in the order of :meth:`load`.

        Returns:
            What the world draws from, N rows: grey levels ``(N, H, W)`` for worlds of digits.

        Raises:
            ValueError: If there are none.
        """
        raise ValueError(
            f"{type(self).__name__} has no originals, because its images were not drawn in a known "
            "world; ask for truth where data.world is not None, as of MorphoMNISTDataModule."
        )

    def prepare_file(self, path: Path) -> list[tuple[Tensor, Placement | None]]:
        """The images of a new file, made what those of the data are before a model sees them.

        Args:
            path: The file.

        Returns:
            Each image ``(C, *sizes)`` and where it lies, where that is known: one, or one for each
            slice that the data have of a file.

        Raises:
            ValueError: If these data are not prepared from files, or the file is not as it should
                be.
        """
        raise ValueError(
            f"prepare: {type(self).__name__} does not prepare its images from files; give images "
            "as the model sees them, and leave it out."
        )

    def originals(self, split: Split) -> NDArray[Any]:
        """The originals from which the images were drawn, row by row those of :meth:`variables`.

        With them ``world.render`` draws true counterfactuals.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            N rows, as :meth:`load_originals` gives them.

        Raises:
            ValueError: If there is no such split, there are no originals, or not as many as images.
        """
        rows = self.variables(split)["index"].squeeze(-1).numpy()
        source = self.load_originals("test" if split == "test" else "train")
        size = sum(len(self._dataset(each)) for each in _published(split))
        if len(source) != size:
            raise ValueError(
                f"there should be an original for each of the {size} images that the {split} split "
                f"was taken from, but there are {len(source)}; generate the data set again."
            )
        return source[rows]

    def identifiers(self, split: Split) -> list[str] | None:
        """Whose each row of a split is.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            A text per row of :meth:`variables`; None where rows have nothing but their number.
        """
        return None

    def row_names(self, split: Split) -> list[str] | None:
        """What answers and errors call each row: whose it is, and which of theirs.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            A text per row of :meth:`variables`; None where rows have nothing but their number.
        """
        return self.identifiers(split)

    def placement(self, split: Split, row: int) -> Placement | None:
        """Where the elements of an image lie in the scanner, for files that keep it.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            row: Of :meth:`variables`.

        Returns:
            None where images have no place, as drawings of digits.
        """
        return None

    def configuration(self) -> dict[str, Any]:
        """How this module was made, as plain data for a checkpoint.

        Every argument of a subclass's constructor is kept in the attribute of its name. Paths are
        made absolute, so that the checkpoint serves from any folder.
        """
        arguments = {
            name: getattr(self, name)
            for name in inspect.signature(type(self).__init__).parameters
            if name != "self"
        }
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {
                name: describe(value.resolve() if isinstance(value, Path) else value)
                for name, value in arguments.items()
            },
        }

    def setup(self, stage: str | None = None) -> None:
        """Loads and divides the data, once; later calls do nothing.

        Every stage loads every split, so that a broken test file fails before training and not
        after it.

        Args:
            stage: Lightning's stage; not used.

        Raises:
            ValueError: If ``validation_size`` leaves no row to train on.
        """
        if self._datasets is None:
            source = self.load()
            train, test = _with_index(source.train), _with_index(source.test)
            training_rows, validation_rows = self.divide(len(train["index"]))
            self._datasets = {
                "train": InMemoryDataset(take_rows(train, training_rows)),
                "validation": InMemoryDataset(take_rows(train, validation_rows)),
                "test": InMemoryDataset(test),
            }

    def variables(self, split: Split) -> dict[str, Tensor]:
        """A whole split: for statistics, and for choosing rows.

        Images are ``(N, C, H, W)`` uint8; the other variables are as in a batch. The tensors are
        those that batches are gathered from: do not change them in place.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``. Take statistics from ``"train"``
                only.

        Returns:
            Name to tensor, in the order of the published file.

        Raises:
            ValueError: If there is no such split.
        """
        return dict(self._dataset(split).variables)

    def training_dataset(self) -> InMemoryDataset:
        """The rows that batches of the training split are gathered from; for augmentation."""
        return self._dataset("train")

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the training split, shuffled anew in each epoch.

        The order follows from the seed of the run and the epoch. Several processes share each
        epoch, and a training that is interrupted goes on with the next batch.
        """
        dataset = self.training_dataset()
        order = EpochSampler(dataset, data_seed())
        loader = ResumableLoader(
            dataset, sampler=order, drop_last=self.drop_last, **self._settings()
        )
        if len(loader) == 0:
            most = len(order) if self.drop_last else len(dataset)
            raise ValueError(
                f"batch_size: expected at most {most}, the rows of an epoch, with drop_last, but "
                f"got {self.batch_size}; lower it or drop none."
            )
        return loader

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the validation split, in order."""
        return self._loader(self._dataset("validation"))

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the test split, in order."""
        return self._loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the test split, in order; several processes share the batches of one."""
        return self._loader(self._dataset("test"), whole_batches=True)

    def _loader(
        self, dataset: InMemoryDataset, whole_batches: bool = False
    ) -> DataLoader[dict[str, Tensor]]:
        """Batches in order, each row in one process."""
        # Without a batch a process may sit out a prediction, but not a mean of all processes.
        self.allow_zero_length_dataloader_with_multiple_devices = whole_batches
        sampler = ShardSampler(dataset, self.batch_size if whole_batches else 1)
        return DataLoader(dataset, sampler=sampler, **self._settings())

    def _settings(self) -> dict[str, Any]:
        """What all loaders have in common."""
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "collate_fn": _already_a_batch,
        }

    def _dataset(self, split: Split) -> InMemoryDataset:
        self.setup()
        datasets = self._datasets or {}
        if split not in datasets:
            raise ValueError(f"split must be one of {', '.join(datasets)}, got {split!r}.")
        return datasets[split]

    def divide(self, size: int) -> tuple[RowIndex, RowIndex]:
        """Divides the published training split into training and validation.

        Args:
            size: The rows of the published split.

        Returns:
            Rows to train on and rows to validate on, each in ascending order; as slices where they
            are consecutive, which take nothing out of the tensors that :meth:`load` gives.

        Raises:
            ValueError: If ``validation_size`` leaves no row to train on.
        """
        if self.validation_size >= size:
            raise ValueError(
                f"validation_size must be below {size}, the rows of the training split, "
                f"got {self.validation_size}."
            )
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(size, generator=generator)
        validation, training = order[: self.validation_size], order[self.validation_size :]
        return training.sort().values, validation.sort().values


def _published(split: Split) -> tuple[Split, ...]:
    """The splits that were published as one with the given one."""
    return ("test",) if split == "test" else ("train", "validation")


def _already_a_batch(batch: object) -> object:
    return batch


def _as_values(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.uint8 else tensor


def _with_index(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    size = len(next(iter(variables.values())))
    return {**variables, "index": torch.arange(size).unsqueeze(-1)}


def take_rows(variables: Mapping[str, Tensor], rows: RowIndex) -> dict[str, Tensor]:
    """Some rows of every variable."""
    return {name: tensor[rows] for name, tensor in variables.items()}
