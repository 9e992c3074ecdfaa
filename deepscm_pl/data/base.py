"""Data modules whose batches are variables of a causal model."""

from __future__ import annotations

import inspect
from abc import abstractmethod
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
from deepscm_pl.data.causal_data import CausalData, Split
from deepscm_pl.data.loading import EpochSampler, ResumableLoader, ShardSampler, data_seed

__all__ = [
    "Augmentation",
    "CausalDataModule",
    "InMemoryDataset",
    "PublishedSplit",
    "SourceSplits",
    "Split",
    "take_rows",
]

Augmentation: TypeAlias = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A function of a batch of training rows, such as random crops of its images."""

PublishedSplit = Literal["train", "test"]
"""A split in which a data set is published; validation rows are held out of its ``"train"``."""


RowIndex: TypeAlias = Tensor | slice
"""Rows of a split: row numbers, or a range."""


@dataclass(frozen=True)
class SourceSplits:
    """The two published splits of a data set, each from names to tensors ``(N, ...)``.

    ``train`` is divided further into training and validation.
    """

    train: Mapping[str, Tensor]
    test: Mapping[str, Tensor]


class InMemoryDataset(Dataset[dict[str, Tensor]]):
    """Rows of tensors in memory, gathered a batch at a time by one indexed copy per variable.

    In a batch, 8-bit images become float32 grey levels 0 to 255; other types are unchanged. If a
    tensor is mapped from a file, only the rows of the batch are read.

    Args:
        variables: Name to tensor ``(N, ...)``, of equal lengths.
        augmentation: Function of a batch, such as random crops of its images; None for none.

    Raises:
        ValueError: If there is no variable, or lengths differ.

    Example:
        >>> dataset = InMemoryDataset({"x": torch.tensor([[1.0], [2.0], [3.0]])})
        >>> dataset.__getitems__([2, 0])["x"].flatten()
        tensor([3., 1.])
    """

    def __init__(
        self, variables: Mapping[str, Tensor], augmentation: Augmentation | None = None
    ) -> None:
        lengths = {name: len(tensor) for name, tensor in variables.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"variables: expected tensors of one length, but got {lengths or 'none'}."
            )
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


class CausalDataModule(pl.LightningDataModule, CausalData):
    """Variables of a causal model in batches of training, validation and test splits.

    A batch maps names to float32 tensors: scalars ``(B, 1)``, and in grey levels 0 to 255 images
    ``(B, C, H, W)`` or volumes ``(B, C, X, Y, Z)``, from left to right, back to front and bottom to
    top. In addition, it has ``label`` and ``index``, ``(B, 1)`` int64, the class and the row in the
    published split.

    The published training split is divided at random, by ``split_seed`` alone, into training and
    validation. Subclasses implement :meth:`load`; they may override :meth:`divide` and, for
    augmentation, :meth:`training_dataset`.

    Args:
        batch_size: Rows per batch.
        validation_size: Rows of the published training split that are held out for validation.
        split_seed: Seed of the division, independent of any global seed.
        num_workers: Worker processes of each data loader; 0, the main process, is usually fastest.
        drop_last: Whether training omits a last batch that is smaller than the others.

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
        """Load the published splits in their order.

        Scalars are ``(N, 1)`` float32, images ``(N, C, H, W)`` uint8, ``label`` is ``(N, 1)``
        int64.
        """

    def load_originals(self, split: PublishedSplit) -> NDArray[Any]:
        """Load the originals from which the images of a published split were drawn.

        Returns:
            The input of the renderer, N rows: grey levels ``(N, H, W)`` for worlds of digits.

        Raises:
            ValueError: If there are none.
        """
        raise self._without_originals()

    def originals(self, split: Split) -> NDArray[Any]:
        """The originals of the images; see :meth:`CausalData.originals`."""
        rows = self.variables(split)["index"].squeeze(-1).numpy()
        source = self.load_originals("test" if split == "test" else "train")
        published: tuple[Split, ...] = ("test",) if split == "test" else ("train", "validation")
        size = sum(len(self._dataset(each)) for each in published)
        if len(source) != size:
            raise ValueError(
                f"originals: expected one for each of the {size} images that the {split} split was "
                f"taken from, but got {len(source)}; generate the data set again."
            )
        return source[rows]

    def configuration(self) -> dict[str, Any]:
        """The class and arguments of this module as plain data for a checkpoint.

        Each constructor argument of a subclass must be an attribute of the same name. Paths become
        absolute, so that the checkpoint works in any folder.
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
        """Load and divide the data, once.

        Every stage loads all splits, so that a broken test file is reported before the training.

        Raises:
            ValueError: If ``validation_size`` leaves no row for training.
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
        """All rows of a split, for statistics and for the choice of rows; images as uint8.

        The tensors are those of the batches: do not change them in place. Take statistics only from
        ``"train"``.

        Raises:
            ValueError: If the split does not exist.
        """
        return dict(self._dataset(split).variables)

    def training_dataset(self) -> InMemoryDataset:
        """The rows of training batches; override it for augmentation."""
        return self._dataset("train")

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the training split, in an order given by the seed of the run and the epoch.

        Several processes share each epoch; an interrupted training resumes with the next batch.
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
                f"got {self.batch_size}; lower it, or set drop_last to false."
            )
        return loader

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the validation split, in order."""
        return self._loader(self._dataset("validation"))

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the test split, in order."""
        return self._loader(self._dataset("test"))

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the test split, in order; several processes share whole batches."""
        return self._loader(self._dataset("test"), whole_batches=True)

    def _loader(
        self, dataset: InMemoryDataset, whole_batches: bool = False
    ) -> DataLoader[dict[str, Tensor]]:
        """Batches in order, each row in one process."""
        # A process without a batch can skip a prediction, but not a mean over all processes.
        self.allow_zero_length_dataloader_with_multiple_devices = whole_batches
        sampler = ShardSampler(dataset, self.batch_size if whole_batches else 1)
        return DataLoader(dataset, sampler=sampler, **self._settings())

    def _settings(self) -> dict[str, Any]:
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
            raise ValueError(f"split: expected one of {', '.join(datasets)}, but got {split!r}.")
        return datasets[split]

    def divide(self, size: int) -> tuple[RowIndex, RowIndex]:
        """Divide the published training split.

        Args:
            size: Number of rows.

        Returns:
            Rows for training and rows for validation, in ascending order; slices avoid a copy.

        Raises:
            ValueError: If ``validation_size`` leaves no row for training.
        """
        if self.validation_size >= size:
            raise ValueError(
                f"validation_size: expected less than {size}, the rows of the training split, but "
                f"got {self.validation_size}."
            )
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(size, generator=generator)
        validation, training = order[: self.validation_size], order[self.validation_size :]
        return training.sort().values, validation.sort().values


def _already_a_batch(batch: object) -> object:
    return batch


def _as_values(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.uint8 else tensor


def _with_index(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    size = len(next(iter(variables.values())))
    return {**variables, "index": torch.arange(size).unsqueeze(-1)}


def take_rows(variables: Mapping[str, Tensor], rows: RowIndex) -> dict[str, Tensor]:
    """Select rows of every variable."""
    return {name: tensor[rows] for name, tensor in variables.items()}
